"""Runs the commands of README.md as they stand there, on free ports, with a real gRPC server where one is spoken of.

Every `$ command` in a console block must be known here: a command that nobody runs is a command that breaks unseen.
"""

import atexit
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DEMO = "cargo run --release -- demo"
PROXY = "cargo run --release -- --backend localhost:50051"
FILE = "wharf run -c wharf.toml"
TESTS = "./scripts/test"
# Where they all listen, as README.md has it, and what only the demo answers.
ADDRESS = "127.0.0.1:8080"
DEMO_SERVICE = "demo.v1."
# The first start builds with every optimization.
PATIENCE_S = 1800


def commands(text):
    """The commands of the console blocks, with their continued lines joined."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for command in re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE):
            yield re.sub(r"\\\n\s*", "", command)


def run_from_file(text, backend_port):
    """Starts wharf with the configuration that stands in the README, on its own port and with the real server behind."""
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    if len(blocks) != 1:
        raise SystemExit(f"README.md has {len(blocks)} configurations, not one")
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(blocks[0].replace("127.0.0.1:8080", "127.0.0.1:0").replace(":50051", f":{backend_port}"))
        file.flush()
        arguments = FILE.replace("wharf ", "cargo run --release -- ", 1).replace("wharf.toml", file.name).split()
        return Program(arguments, r"http://127\.0\.0\.1:\d+")


class Program:
    """A started command whose lines are read until one says where it listens."""

    def __init__(self, arguments, pattern):
        self.process = subprocess.Popen(
            arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        # Also where a check fails; who has ended is not hurt by it.
        atexit.register(self.process.kill)
        alarm = threading.Timer(PATIENCE_S, self.process.kill)
        alarm.start()
        self.seen = []
        self.found = None
        for line in self.process.stdout:
            self.seen.append(line)
            self.found = re.search(pattern, line)
            if self.found:
                break
        alarm.cancel()
        if not self.found:
            raise SystemExit(f"{arguments} ended and had said:\n{''.join(self.seen)}")
        # A full pipe would stop it.
        threading.Thread(target=self.process.stdout.read, daemon=True).start()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


def start(command):
    """wharf, as that command starts it, on a free port."""
    return Program([*command.split(), "--listen", "127.0.0.1:0"], r"http://127\.0\.0\.1:\d+")


def call(command, program, told):
    """Runs a command that calls that program, whose answer has `told` in it."""
    print(f"+ {command}", flush=True)
    here = command.replace(ADDRESS, program.found.group(0).removeprefix("http://"))
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", here], cwd=ROOT, capture_output=True, timeout=20, check=False
    )
    print(done.stdout.decode(errors="replace"))
    if done.returncode != 0 or told not in done.stdout:
        raise SystemExit(f"it ended with {done.returncode}: {done.stdout!r} {done.stderr!r}")
    return 1


def check(program, what):
    status = program.stop()
    if status != 0:
        raise SystemExit(f"{what} ended with {status}")


def main():
    with open(os.path.join(ROOT, "README.md"), encoding="utf-8") as file:
        text = file.read()
    said = list(commands(text))
    for needed in (DEMO, PROXY, FILE, TESTS):
        if needed not in said:
            raise SystemExit(f"README.md does not say: {needed}")
    if not os.access(os.path.join(ROOT, TESTS), os.X_OK):
        raise SystemExit(f"{TESTS} is not executable")

    print(f"+ {DEMO}", flush=True)
    demo = start(DEMO)
    with urllib.request.urlopen(demo.found.group(0) + "/", timeout=10) as answer:
        page = answer.read()
    if b"<html" not in page:
        raise SystemExit(f"the demo's page is none: {page[:200]!r}")
    calls = sum(call(command, demo, b'"text"') for command in said if DEMO_SERVICE in command)
    check(demo, "the demo")

    backend = Program([sys.executable, "tests/peers/grpcio_backend.py"], r"^PORT (\d+)")
    print(f"+ {PROXY}", flush=True)
    proxy = start(PROXY.replace("50051", backend.found.group(1)))
    for command in said:
        if command in (DEMO, PROXY, FILE, TESTS) or DEMO_SERVICE in command:
            continue
        if "curl" not in command or ADDRESS not in command:
            raise SystemExit(f"nobody runs this command of README.md: {command}")
        calls += call(command, proxy, b"grpc-status:0")
    if calls == 0:
        raise SystemExit("README.md calls nothing")
    check(proxy, "wharf")
    print(f"+ {FILE}", flush=True)
    check(run_from_file(text, backend.found.group(1)), "wharf with a file")
    backend.process.stdin.close()
    backend.process.wait(10)
    print(f"the {calls + 4} commands of README.md do what they say")


if __name__ == "__main__":
    main()
