"""Plays a server for Connect's conformance suite: a gRPC server of the suite behind, wharf in front.

Reads a ServerCompatRequest from standard input as every server of the suite does, starts the given server with the same
request but gRPC over HTTP/2 in it, starts wharf before it, and answers with wharf's port. So what the suite tests, as a server
of gRPC-Web over HTTP/1.1 and HTTP/2 and of gRPC, is wharf; the server behind is never asked to speak gRPC-Web.

    WHARF_BIN=… server_under_test.py SERVER

Source: connectrpc.com/conformance, proto/connectrpc/conformance/v1/server_compat.proto. Ends at SIGTERM, with both programs.
"""

import os
import re
import signal
import subprocess
import sys
import urllib.request

from suite import (
    GRPC,
    GRPC_WEB,
    HTTP_1,
    HTTP_2,
    Wharf,
    changed,
    encode,
    fields,
    log,
    read_message,
    stop,
    write_message,
)

PROTOCOL, HTTP_VERSION, HOST, PORT = 1, 2, 1, 2


def assert_backend_gets_grpc(port):
    """The reference server also takes gRPC-Web: ask it through wharf what it was sent. It answers with the request's head."""
    body = b"\0\0\0\0\0"
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/connectrpc.conformance.v1.ConformanceService/Unary",
        data=body,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told = answer.read()
    sent = re.findall(rb"content-type.{2,4}?(application/[a-z+-]+)", told, re.IGNORECASE | re.DOTALL)
    if sent not in ([b"application/grpc"], [b"application/grpc+proto"]):
        raise AssertionError(f"the server behind was sent {sent}, answer {told!r}")
    log(f"the server behind was sent {sent[0].decode()}")


def main():
    server = sys.argv[1]
    children = []

    def end(*_):
        stop(children)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    asked = read_message(sys.stdin.buffer)
    wanted = {number: value for number, _, value in fields(asked)}
    if (wanted[PROTOCOL], wanted[HTTP_VERSION]) not in ((GRPC_WEB, HTTP_1), (GRPC_WEB, HTTP_2), (GRPC, HTTP_2)):
        raise SystemExit(f"only gRPC-Web, and gRPC over HTTP/2, are offered: {wanted}")

    backend = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    children.append(backend)
    write_message(backend.stdin, changed(asked, {(PROTOCOL, 0): GRPC, (HTTP_VERSION, 0): HTTP_2}))
    told = {number: value for number, _, value in fields(read_message(backend.stdout))}
    host = told.get(HOST, b"127.0.0.1").decode()
    try:
        wharf = Wharf(f"{host}:{told[PORT]}")
        children.append(wharf.child)
        if os.path.basename(server) == "referenceserver":
            assert_backend_gets_grpc(wharf.port)
        write_message(sys.stdout.buffer, encode([(HOST, 2, b"127.0.0.1"), (PORT, 0, wharf.port)]))
        wharf.child.wait()
        raise SystemExit("wharf ended while it was under test")
    finally:
        for child in children:
            child.kill()


if __name__ == "__main__":
    main()
