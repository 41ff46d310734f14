"""Plays a client for Connect's conformance suite: a client of the suite in front, wharf between it and the suite's server.

Reads one ClientCompatRequest after the other from standard input as every client of the suite does, starts a wharf before each
server that one of them names, and hands the requests to the given client with wharf's port in them. The suite's server speaks
gRPC and answers as a case wants it to, wrongly too; the client is told to speak what FRONT says: `grpc`, `web-http1` or
`web-http2`. So what is tested is that wharf makes nothing better and nothing worse of what a backend says.

    WHARF_BIN=… client_under_test.py FRONT CLIENT

Source: connectrpc.com/conformance, proto/connectrpc/conformance/v1/client_compat.proto. Ends with its standard input.
"""

import os
import signal
import subprocess
import sys

from suite import GRPC, GRPC_WEB, HTTP_1, HTTP_2, Wharf, changed, fields, log, read_message, stop, write_message

HTTP_VERSION, PROTOCOL, HOST, PORT = 2, 3, 6, 7

FRONTS = {"grpc": (GRPC, HTTP_2), "web-http1": (GRPC_WEB, HTTP_1), "web-http2": (GRPC_WEB, HTTP_2)}


def main():
    protocol, version = FRONTS[sys.argv[1]]
    children, wharves = [], {}

    def end(*_):
        stop(children)
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    # It writes its results where the suite reads ours.
    client = subprocess.Popen([sys.argv[2]], stdin=subprocess.PIPE)
    children.append(client)
    try:
        while (request := read_message(sys.stdin.buffer)) is not None:
            asked = {number: value for number, _, value in fields(request)}
            if (asked.get(PROTOCOL), asked.get(HTTP_VERSION)) != (GRPC, HTTP_2):
                raise SystemExit(f"only gRPC over HTTP/2 is asked of a backend: {asked}")
            backend = f"{asked[HOST].decode()}:{asked[PORT]}"
            if backend not in wharves:
                wharves[backend] = Wharf(backend)
                children.append(wharves[backend].child)
            changes = {
                (PROTOCOL, 0): protocol,
                (HTTP_VERSION, 0): version,
                (HOST, 2): b"127.0.0.1",
                (PORT, 0): wharves[backend].port,
            }
            write_message(client.stdin, changed(request, changes))
        client.stdin.close()
        status = client.wait()
        for backend, wharf in wharves.items():
            if wharf.child.poll() is not None:
                raise SystemExit(f"the wharf before {backend} ended while it was under test")
        log(f"{len(wharves)} servers, the client ended with {status}")
        sys.exit(status)
    finally:
        stop(children)


if __name__ == "__main__":
    main()
