"""A real gRPC client on grpcio (the C core), in front of the Echo service of echo.proto: plain gRPC over HTTP/2.

    grpcio_client.py HOST:PORT CASE [ID]

Makes the calls of one case on one channel and looks at every answer. Prints `fine` and ends with 0 where all was as it has
to be; a traceback and 1 where it was not. `ID` names calls that are left, so that the backend tells whether it has heard.
"""

import os
import queue
import sys
import time

import grpc

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
echo_pb2, echo_pb2_grpc = grpc.protos_and_services("echo.proto")

# Longer than anything waits here on purpose, in seconds.
PATIENCE = 60
ALL_BYTES = bytes(range(256))


def kinds(echo, _):
    """The four kinds of stream, and two that talk in turns on one of them."""
    assert echo.Say(echo_pb2.SayRequest(text="grüß dich"), timeout=PATIENCE).text == "grüß dich"

    request = echo_pb2.StreamRequest(count=100, size=3000)
    replies = list(echo.Stream(request, timeout=PATIENCE))
    assert [reply.number for reply in replies] == list(range(1, 101))
    assert all(len(reply.payload) == 3000 for reply in replies)
    assert list(echo.Stream(echo_pb2.StreamRequest(), timeout=PATIENCE)) == []

    uploads = (echo_pb2.UploadRequest(payload=bytes(size)) for size in range(50))
    told = echo.Upload(uploads, timeout=PATIENCE)
    assert (told.messages, told.bytes) == (50, sum(range(50))), told
    told = echo.Upload(iter(()), timeout=PATIENCE)
    assert (told.messages, told.bytes) == (0, 0), told

    # Each message is written only when the answer to the one before has been read: nothing may wait for more on its way.
    said = queue.Queue()
    talk = echo.Talk(iter(said.get, None), timeout=PATIENCE)
    for number in range(50):
        said.put(echo_pb2.SayRequest(text=str(number)))
        assert next(talk).text == str(number)
    said.put(None)
    assert list(talk) == []
    assert talk.code() is grpc.StatusCode.OK


def sizes(echo, _, compression=grpc.Compression.NoCompression):
    """Messages around a frame and around a window, both ways."""
    for size in (0, 1, 16_378, 16_384, 65_530, 65_536, 1_000_001):
        payload = bytes(at % 251 for at in range(size))
        request = echo_pb2.SayRequest(payload=payload)
        assert echo.Say(request, timeout=PATIENCE, compression=compression).payload == payload, size


def compressed(echo, own):
    """The same in gzip, for a backend that reads it."""
    sizes(echo, own, grpc.Compression.Gzip)


def metadata(echo, _):
    """What goes with a call, with the head of its answer, and with its end; text and bytes."""
    sent = [
        ("x-plain", "one value, with a comma"),
        ("x-twice", "first"),
        ("x-twice", "second"),
        ("x-bytes-bin", ALL_BYTES),
        ("x-empty-bin", b""),
        ("authorization", "Bearer abc"),
        ("head-plain", "in the head"),
        ("head-bytes-bin", ALL_BYTES),
        ("trail-plain", "in the trailers"),
        ("trail-twice", "first"),
        ("trail-twice", "second"),
        ("trail-bytes-bin", ALL_BYTES),
    ]
    answer, call = echo.Say.with_call(echo_pb2.SayRequest(), metadata=sent, timeout=PATIENCE)
    got = [(field.name, field.value) for field in answer.metadata]
    for name, value in sent[:6]:
        value = value if isinstance(value, bytes) else value.encode()
        assert got.count((name, value)) == 1, (name, got)
    assert [value for name, value in got if name == "x-twice"] == [b"first", b"second"], got
    # What only gRPC-Web has is not made up for who speaks gRPC.
    assert not any(name in ("x-grpc-web", "origin") for name, _ in got), got

    replies = echo.Stream(echo_pb2.StreamRequest(count=2), metadata=sent, timeout=PATIENCE)
    assert len(list(replies)) == 2
    for one in (call, replies):
        head, end = list(one.initial_metadata()), list(one.trailing_metadata())
        assert ("head-plain", "in the head") in head and ("head-bytes-bin", ALL_BYTES) in head, head
        assert [value for name, value in end if name == "trail-twice"] == ["first", "second"], end
        assert ("trail-plain", "in the trailers") in end and ("trail-bytes-bin", ALL_BYTES) in end, end
        assert not any(name.startswith("trail-") for name, _ in head), head
        assert not any(name.startswith("head-") for name, _ in end), end


def failures(echo, _):
    """Every code with its message and its details, before the first message and after the last."""
    for code in grpc.StatusCode:
        number = code.value[0]
        if number == 0:
            continue
        failure = echo_pb2.Failure(code=number, message="weil: 100 % ü\r\nnächste", details=ALL_BYTES)
        for count, call in (
            (0, lambda: echo.Say(echo_pb2.SayRequest(failure=failure), timeout=PATIENCE)),
            (2, lambda: list(echo.Stream(echo_pb2.StreamRequest(count=2, failure=failure), timeout=PATIENCE))),
        ):
            error = failed(call)
            assert error.code() is code, (code, error)
            assert error.details() == failure.message, (code, count, error.details())
            assert ("grpc-status-details-bin", ALL_BYTES) in list(error.trailing_metadata()), (code, count)


def failed(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("a call that had to fail went well")


def deadline(echo, own):
    """A deadline reaches the backend as what is left of it, and ends what takes longer."""
    left = echo.Say(echo_pb2.SayRequest(), timeout=20)
    told = [field.value for field in left.metadata if field.name == "grpc-timeout"]
    # One of the two stacks tells what is left, the other one what it was sent.
    assert 10_000 <= left.deadline_ms <= 20_000 or len(told) == 1, left
    assert echo.Say(echo_pb2.SayRequest()).deadline_ms == -1

    for name, call in (
        ("unary", lambda: echo.Say(echo_pb2.SayRequest(delay_ms=20_000, id=f"{own}-unary"), timeout=0.3)),
        (
            "stream",
            lambda: list(echo.Stream(echo_pb2.StreamRequest(count=9, hold_after=2, id=f"{own}-stream"), timeout=0.3)),
        ),
    ):
        began = time.monotonic()
        error = failed(call)
        took = time.monotonic() - began
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, (name, error)
        assert 0.25 < took < 5, (name, took)


def cancel(echo, own):
    """Who leaves is gone; who shares the connection is not disturbed. The backend tells the rest."""
    stays = echo.Stream(echo_pb2.StreamRequest(count=40, interval_ms=20), timeout=PATIENCE)
    assert next(stays).number == 1
    stream = echo.Stream(echo_pb2.StreamRequest(count=9, hold_after=2, id=f"{own}-stream"), timeout=PATIENCE)
    assert [next(stream).number, next(stream).number] == [1, 2]
    unary = echo.Say.future(echo_pb2.SayRequest(delay_ms=30_000, id=f"{own}-unary"), timeout=PATIENCE)
    # Long enough that the call has reached the backend.
    time.sleep(0.2)
    stream.cancel()
    unary.cancel()
    assert stream.code() is grpc.StatusCode.CANCELLED
    assert unary.cancelled()
    assert [reply.number for reply in stays] == list(range(2, 41))


def many(echo, own):
    """10,000 calls on one connection, 100 at a time; and once more one after the other."""
    def one(number):
        return echo.Say.future(echo_pb2.SayRequest(text=str(number)), timeout=PATIENCE)

    begun = queue.Queue()
    for number in range(10_000):
        if number >= 100:
            before, call = begun.get()
            assert call.result().text == str(before)
        begun.put((number, one(number)))
    while not begun.empty():
        before, call = begun.get()
        assert call.result().text == str(before)
    for number in range(200):
        assert echo.Say(echo_pb2.SayRequest(text=str(number)), timeout=PATIENCE).text == str(number)
    count = connections_to(int(sys.argv[1].rsplit(":", 1)[1]))
    assert count == 1, f"{count} connections"


def connections_to(port):
    """Of this process, as the kernel tells."""
    own = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            own.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    count = 0
    for table in ("tcp", "tcp6"):
        with open(f"/proc/self/net/{table}") as lines:
            for line in list(lines)[1:]:
                words = line.split()
                if int(words[2].rsplit(":", 1)[1], 16) == port and f"socket:[{words[9]}]" in own:
                    count += 1
    return count


CASES = {case.__name__: case for case in (kinds, sizes, compressed, metadata, failures, deadline, cancel, many)}


def main():
    address, case, own = (sys.argv[1:] + [""])[:3]
    options = [("grpc.max_receive_message_length", 16 << 20), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        CASES[case](echo_pb2_grpc.EchoStub(channel), own)
    print("fine")


if __name__ == "__main__":
    main()
