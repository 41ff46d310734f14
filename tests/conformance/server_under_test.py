"""Plays a server for Connect's conformance suite: a gRPC server of the suite behind, wharf in front.

Reads a ServerCompatRequest from standard input as every server of the suite does, starts the given server with the same
request but gRPC over HTTP/2 in it, starts wharf before it, and answers with wharf's port. So what the suite tests as a
gRPC-Web server over HTTP/1.1 is wharf; the server behind is never asked to speak gRPC-Web.

    WHARF_BIN=… server_under_test.py SERVER

Source: connectrpc.com/conformance, proto/connectrpc/conformance/v1/server_compat.proto. Ends at SIGTERM, with both programs.
"""

import os
import re
import signal
import struct
import subprocess
import sys
import urllib.request

PROTOCOL, HTTP_VERSION, HOST, PORT = 1, 2, 1, 2
GRPC, GRPC_WEB, HTTP_1, HTTP_2 = 2, 3, 1, 2


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
    """(number, wire type, value) of each field; enough for the two messages here."""
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


def read_message(stream):
    (length,) = struct.unpack(">I", exactly(stream, 4))
    return exactly(stream, length)


def exactly(stream, length):
    data = stream.read(length)
    if len(data) != length:
        raise EOFError("the other side ended inside a message")
    return data


def write_message(stream, message):
    stream.write(struct.pack(">I", len(message)) + message)
    stream.flush()


def assert_backend_gets_grpc(address):
    """The reference server also takes gRPC-Web: ask it through wharf what it was sent. It answers with the request's head."""
    body = b"\0\0\0\0\0"
    request = urllib.request.Request(
        f"http://{address}/connectrpc.conformance.v1.ConformanceService/Unary",
        data=body,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        told = answer.read()
    sent = re.findall(rb"content-type.{2,4}?(application/[a-z+-]+)", told, re.IGNORECASE | re.DOTALL)
    if sent not in ([b"application/grpc"], [b"application/grpc+proto"]):
        raise AssertionError(f"the server behind was sent {sent}, answer {told!r}")
    log(f"the server behind was sent {sent[0].decode()}")


def log(line):
    sys.stderr.write(f"server_under_test: {line}\n")
    sys.stderr.flush()


def main():
    server = sys.argv[1]
    children = []

    def stop(*_):
        for child in children:
            child.terminate()
        for child in children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        os._exit(0)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)

    asked = {number: (number, kind, value) for number, kind, value in fields(read_message(sys.stdin.buffer))}
    if asked[PROTOCOL][2] != GRPC_WEB or asked[HTTP_VERSION][2] != HTTP_1:
        raise SystemExit(f"only gRPC-Web over HTTP/1.1 is offered: {asked}")
    asked[PROTOCOL] = (PROTOCOL, 0, GRPC)
    asked[HTTP_VERSION] = (HTTP_VERSION, 0, HTTP_2)

    backend = subprocess.Popen([server], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    children.append(backend)
    write_message(backend.stdin, encode(asked.values()))
    told = {number: value for number, _, value in fields(read_message(backend.stdout))}
    host = told.get(HOST, b"127.0.0.1").decode()

    wharf = subprocess.Popen(
        [os.environ["WHARF_BIN"], "--backend", f"{host}:{told[PORT]}", "--listen", "127.0.0.1:0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    children.append(wharf)
    try:
        address = None
        while address is None:
            line = wharf.stdout.readline()
            if not line:
                raise SystemExit("wharf ended before it listened")
            found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
            address = found and found.group(1)
        if os.path.basename(server) == "referenceserver":
            assert_backend_gets_grpc(address)
        port = int(address.rsplit(":", 1)[1])
        write_message(sys.stdout.buffer, encode([(HOST, 2, b"127.0.0.1"), (PORT, 0, port)]))
        # A full pipe would stop wharf.
        for _ in wharf.stdout:
            pass
        raise SystemExit("wharf ended while it was under test")
    finally:
        for child in children:
            child.kill()


if __name__ == "__main__":
    main()
