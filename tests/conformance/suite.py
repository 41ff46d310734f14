"""What the two sides of Connect's conformance suite have in common here: its messages on pipes, and a wharf to stand between.

Source: connectrpc.com/conformance, proto/connectrpc/conformance/v1. Knows nothing of cases.
"""

import os
import re
import struct
import subprocess
import sys
import threading

# Of the suite's enums.
GRPC, GRPC_WEB = 2, 3
HTTP_1, HTTP_2 = 1, 2


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def take_varint(message, at):
    value, shift = 0, 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(message):
    """(number, wire type, value) of each field; enough for the suite's messages."""
    at = 0
    while at < len(message):
        key, at = take_varint(message, at)
        if key & 7 == 0:
            value, at = take_varint(message, at)
        elif key & 7 == 2:
            length, at = take_varint(message, at)
            value, at = message[at : at + length], at + length
        else:
            raise ValueError(f"wire type {key & 7} is in none of the suite's messages")
        yield key >> 3, key & 7, value


def encode(all_fields):
    out = b""
    for number, kind, value in all_fields:
        out += varint(number << 3 | kind)
        out += varint(value) if kind == 0 else varint(len(value)) + value
    return out


def changed(message, changes):
    """The message with other values in these fields, each of which it may have had or not: {(number, wire type): value}."""
    kept = [field for field in fields(message) if field[:2] not in changes]
    return encode(kept + [(number, kind, value) for (number, kind), value in changes.items()])


def read_message(stream):
    """The next one, or None at the end."""
    head = stream.read(4)
    if not head:
        return None
    (length,) = struct.unpack(">I", head + exactly(stream, 4 - len(head)))
    return exactly(stream, length)


def exactly(stream, length):
    data = stream.read(length)
    if len(data) != length:
        raise EOFError("the other side ended inside a message")
    return data


def write_message(stream, message):
    stream.write(struct.pack(">I", len(message)) + message)
    stream.flush()


class Wharf:
    """One before a backend, on a free port, with its default settings."""

    def __init__(self, backend):
        self.child = subprocess.Popen(
            [os.environ["WHARF_BIN"], "--backend", backend, "--listen", "127.0.0.1:0"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        found = None
        while found is None:
            line = self.child.stdout.readline()
            if not line:
                raise SystemExit("wharf ended before it listened")
            found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        self.port = int(found.group(1))
        # A full pipe would stop it.
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        for _ in self.child.stdout:
            pass


def stop(children):
    """Asks each to end, and makes it end if it does not."""
    for child in children:
        child.terminate()
    for child in children:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()


def log(line):
    sys.stderr.write(f"{os.path.basename(sys.argv[0])}: {line}\n")
    sys.stderr.flush()
