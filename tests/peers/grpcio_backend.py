"""A real gRPC server on grpcio (the C core): the Echo service of echo.proto, health and reflection.

Prints `PORT n` as its first line, then `CANCELLED id nanoseconds-since-1970 sent=n` whenever a caller leaves a call of
Say or Stream before its end. Ends when its standard input does, so that it never outlives the test that started it.
"""

import argparse
import os
import sys
import threading
import time
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
echo_pb2, echo_pb2_grpc = grpc.protos_and_services("echo.proto")

CODES = {code.value[0]: code for code in grpc.StatusCode}
output = threading.Lock()


def say_aloud(line):
    with output:
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


class Watch:
    """Sees whether a call was left before it had ended."""

    def __init__(self, call_id, context):
        self.sent = 0
        self.left = threading.Event()
        self.finished = False

        def over():
            now = time.time_ns()
            if not self.finished:
                say_aloud(f"CANCELLED {call_id} {now} sent={self.sent}")
            self.left.set()

        if not context.add_callback(over):
            over()


def value_bytes(value):
    return value if isinstance(value, bytes) else value.encode()


def begin(context):
    """Sends back what is to come back in the head, and sets what is to come back in the trailers."""
    metadata = context.invocation_metadata()
    head = [(name, value) for name, value in metadata if name.startswith("head-")]
    trailers = [(name, value) for name, value in metadata if name.startswith("trail-")]
    if head:
        context.send_initial_metadata(head)
    if trailers:
        context.set_trailing_metadata(trailers)
    return metadata, trailers


def fail(context, failure, trailers):
    if failure.details:
        context.set_trailing_metadata(trailers + [("grpc-status-details-bin", failure.details)])
    context.abort(CODES[failure.code], failure.message)


def reply(request, metadata, context):
    remaining = context.time_remaining()
    # Without a deadline the C core tells a time that is centuries away.
    deadline = -1 if remaining is None or remaining > 1e9 else int(remaining * 1000)
    return echo_pb2.SayReply(
        text=request.text,
        payload=request.payload,
        metadata=[echo_pb2.Field(name=name, value=value_bytes(value)) for name, value in metadata],
        deadline_ms=deadline,
    )


class Echo(echo_pb2_grpc.EchoServicer):
    def Say(self, request, context):
        watch = Watch(request.id, context)
        metadata, trailers = begin(context)
        answer = reply(request, metadata, context)
        if request.delay_ms and watch.left.wait(request.delay_ms / 1000):
            return answer
        watch.finished = True
        if request.HasField("failure"):
            fail(context, request.failure, trailers)
        return answer

    def Stream(self, request, context):
        watch = Watch(request.id, context)
        _, trailers = begin(context)
        payload = bytes(request.size)
        for number in range(1, request.count + 1):
            if request.interval_ms and number > 1 and watch.left.wait(request.interval_ms / 1000):
                return
            # Before: once it is there, the caller may leave before this generator goes on.
            watch.sent = number
            yield echo_pb2.StreamReply(number=number, payload=payload)
            if number == request.hold_after:
                watch.left.wait()
                return
        watch.finished = True
        if request.HasField("failure"):
            fail(context, request.failure, trailers)

    def Upload(self, requests, context):
        messages, size = 0, 0
        for request in requests:
            messages += 1
            size += len(request.payload)
        return echo_pb2.UploadReply(messages=messages, bytes=size)

    def Talk(self, requests, context):
        metadata, trailers = begin(context)
        for request in requests:
            if request.HasField("failure"):
                fail(context, request.failure, trailers)
            yield reply(request, metadata, context)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--gzip", action="store_true", help="compress every answer")
    options = arguments.parse_args()

    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=64),
        compression=grpc.Compression.Gzip if options.gzip else None,
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 << 20)],
    )
    echo_pb2_grpc.add_EchoServicer_to_server(Echo(), server)
    checks = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    names = (
        echo_pb2.DESCRIPTOR.services_by_name["Echo"].full_name,
        health.SERVICE_NAME,
        reflection.SERVICE_NAME,
    )
    for name in ("", names[0]):
        checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection(names, server)

    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    say_aloud(f"PORT {port}")
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main()
