"""gRPC through a proxy: a server of bytes, and a client that makes every kind of call.

    calls.py serve                      prints its port, serves until its input ends
    calls.py app                        serves on the port in PORT, until SIGTERM, and then lets calls end
    calls.py check TARGET [CA_FILE]     runs the checks and prints "ok NAME" or "failed NAME: why" for each
    calls.py down TARGET HOST           one call that fails, its code and the reason that miwid gives
    calls.py hold TARGET [METHOD]       a stream that goes on: a line of input is sent, its echo is printed
    calls.py upload TARGET              a call whose messages are the lines of input: the answer is printed when they end
    calls.py load TARGET                calls without pause; a line of input asks for 50 good ones more, and the last line of output
                                        counts all: "called N, failed N", with what was wrong

No generated code: the methods are bytes in, bytes out.
"""

import concurrent.futures
import os
import queue
import pathlib
import signal
import sys
import threading
import time

import grpc

SERVICE = "test.Echo"
BIG = 32 * 1024 * 1024
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
cancelled = threading.Event()


# --- the server ----------------------------------------------------------------------------------------------------


def unary(request, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata((("x-initial", metadata.get("x-sent", "none")),))
    context.set_trailing_metadata((("x-trailing", "end"), ("x-bytes-bin", b"\x00\xff")))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked for"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "as asked: ä %")


def slow(request, context):
    until = time.monotonic() + 60
    while context.is_active() and time.monotonic() < until:
        time.sleep(0.01)
    cancelled.set()
    return b""


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(20) else b"no"


def count(request, context):
    for number in range(int(request)):
        yield str(number).encode()


def fail_midway(request, context):
    yield b"one"
    context.abort(grpc.StatusCode.DATA_LOSS, "midway")


def total(requests, context):
    return str(sum(len(it) for it in requests)).encode()


def echo(requests, context):
    for request in requests:
        yield request


def signed(text):
    return f"{os.getpid()} {text}".encode()


def who(request, context):
    return signed("here")


def signed_echo(requests, context):
    for request in requests:
        yield signed(request.decode())


def signed_join(requests, context):
    return signed(" ".join(it.decode() for it in requests))


def deadline(request, context):
    return str(context.time_remaining()).encode()


def server_on(port):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=200), options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Fail": grpc.unary_unary_rpc_method_handler(fail),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "WasCancelled": grpc.unary_unary_rpc_method_handler(was_cancelled),
        "Deadline": grpc.unary_unary_rpc_method_handler(deadline),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "FailMidway": grpc.unary_stream_rpc_method_handler(fail_midway),
        "Total": grpc.stream_unary_rpc_method_handler(total),
        "Echo": grpc.stream_stream_rpc_method_handler(echo),
        "Who": grpc.unary_unary_rpc_method_handler(who),
        "SignedEcho": grpc.stream_stream_rpc_method_handler(signed_echo),
        "SignedJoin": grpc.stream_unary_rpc_method_handler(signed_join),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(server.add_insecure_port(f"127.0.0.1:{port}"), flush=True)
    server.start()
    return server


def serve():
    server = server_on(0)
    sys.stdin.read()
    server.stop(0).wait()


def app():
    # A handler may put into this queue whatever it interrupts.
    asked = queue.SimpleQueue()
    signal.signal(signal.SIGTERM, lambda *_: asked.put(None))
    server = server_on(os.environ["PORT"])
    asked.get()
    server.stop(5).wait()


# --- the client ----------------------------------------------------------------------------------------------------


def channel_to(target, tls, host="a.test"):
    options = OPTIONS + [("grpc.default_authority", host), ("grpc.enable_retries", 0)]
    if tls:
        credentials = grpc.ssl_channel_credentials(pathlib.Path(tls).read_bytes())
        return grpc.secure_channel(target, credentials, options + [("grpc.ssl_target_name_override", "a.test")])
    return grpc.insecure_channel(target, options)


class Client:
    def __init__(self, channel):
        self.channel = channel

    def method(self, kind, name):
        return getattr(self.channel, kind)(f"/{SERVICE}/{name}")

    def unary(self, name):
        return self.method("unary_unary", name)


def code_of(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call succeeded")


def check_unary(it):
    assert it.unary("Unary")(b"hello", timeout=20) == b"hello"


def check_metadata_both_ways(it):
    answer, call = it.unary("Unary").with_call(b"x", metadata=(("x-sent", "mine"),), timeout=20)
    trailing = dict(call.trailing_metadata())
    assert dict(call.initial_metadata())["x-initial"] == "mine", call.initial_metadata()
    assert trailing["x-trailing"] == "end" and trailing["x-bytes-bin"] == b"\x00\xff", trailing


def check_error_status(it):
    error = code_of(lambda: it.unary("Fail")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.FAILED_PRECONDITION, error
    assert error.details() == "as asked: ä %", error.details()
    assert dict(error.trailing_metadata())["x-why"] == "asked for"


def check_unknown_method(it):
    error = code_of(lambda: it.unary("Nothing")(b"", timeout=20))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error


def check_server_stream(it):
    got = list(it.method("unary_stream", "Count")(b"1000", timeout=20))
    assert got == [str(number).encode() for number in range(1000)]


def check_empty_server_stream(it):
    assert list(it.method("unary_stream", "Count")(b"0", timeout=20)) == []


def check_error_after_messages(it):
    got = []
    error = code_of(lambda: got.extend(it.method("unary_stream", "FailMidway")(b"", timeout=20)))
    assert error.code() == grpc.StatusCode.DATA_LOSS, error


def check_client_stream(it):
    messages = (b"x" * number for number in range(500))
    assert it.method("stream_unary", "Total")(messages, timeout=20) == str(sum(range(500))).encode()


def check_full_duplex(it):
    sent = queue.Queue()
    answers = it.method("stream_stream", "Echo")(iter(sent.get, None), timeout=30)
    for number in range(100):
        message = str(number).encode()
        # The next message is written only after the answer to the one before it was read.
        sent.put(message)
        assert next(answers) == message
    sent.put(None)
    assert list(answers) == []


def check_big_message(it):
    message = bytes(range(256)) * (BIG // 256)
    assert it.unary("Unary")(message, timeout=60) == message


def check_big_stream(it):
    messages = [bytes([number]) * (4 * 1024 * 1024) for number in range(16)]
    assert list(it.method("stream_stream", "Echo")(iter(messages), timeout=60)) == messages


def check_deadline(it):
    error = code_of(lambda: it.unary("Slow")(b"", timeout=0.5))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error


def check_deadline_reaches_the_server(it):
    left = float(it.unary("Deadline")(b"", timeout=15))
    # The unit on the wire is coarse, so it may be a little more than what was asked for.
    assert 1 < left < 16, left


def check_long_call_outlives_the_request_timeout(it):
    # The daemon's request timeout is shorter than this silence; the call's deadline is not.
    sent = queue.Queue()
    answers = it.method("stream_stream", "Echo")(iter(sent.get, None), timeout=30)
    sent.put(b"a")
    assert next(answers) == b"a"
    threading.Timer(3.5, sent.put, [b"b"]).start()
    assert next(answers) == b"b"
    sent.put(None)
    assert list(answers) == []


def check_cancel_reaches_the_server(it):
    call = it.unary("Slow").future(b"", timeout=60)
    threading.Timer(0.3, call.cancel).start()
    try:
        call.result(timeout=20)
    except grpc.FutureCancelledError:
        pass
    assert it.unary("WasCancelled")(b"", timeout=30) == b"yes"


def check_cancelled_stream(it):
    sent = queue.Queue()
    answers = it.method("stream_stream", "Echo")(iter(sent.get, None), timeout=30)
    sent.put(b"a")
    assert next(answers) == b"a"
    answers.cancel()
    error = code_of(lambda: next(answers))
    assert error.code() == grpc.StatusCode.CANCELLED, error
    sent.put(None)


def check_many_parallel_calls(it):
    calls = [it.unary("Unary").future(str(number).encode(), timeout=60) for number in range(500)]
    assert [call.result() for call in calls] == [str(number).encode() for number in range(500)]


def check_many_parallel_streams(it):
    calls = [it.method("unary_stream", "Count")(b"100", timeout=60) for _ in range(50)]
    assert all(len(list(call)) == 100 for call in calls)


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


def check(target, tls=None):
    with channel_to(target, tls) as channel:
        client = Client(channel)
        for one in CHECKS:
            name = one.__name__.removeprefix("check_")
            try:
                one(client)
                print("ok", name, flush=True)
            except Exception as error:
                print(f"failed {name}: {type(error).__name__} {error}".replace("\n", " "), flush=True)


def down(target, host):
    with channel_to(target, None, host) as channel:
        error = code_of(lambda: Client(channel).unary("Unary")(b"", timeout=30))
        reason = dict(error.trailing_metadata() or ()).get("miwi-reason", "")
        print(error.code().name, reason, flush=True)


def lines_of_input():
    return (line.rstrip("\n").encode() for line in sys.stdin)


def hold(target, method="Echo"):
    with channel_to(target, None) as channel:
        for answer in Client(channel).method("stream_stream", method)(lines_of_input(), timeout=120):
            print(answer.decode(), flush=True)
    print("ended", flush=True)


def upload(target):
    with channel_to(target, None) as channel:
        print(Client(channel).method("stream_unary", "SignedJoin")(lines_of_input(), timeout=120).decode(), flush=True)


def load(target):
    answers = queue.Queue()
    stop = threading.Event()

    def call(client):
        while not stop.is_set():
            try:
                answers.put(client.unary("Who")(b"", timeout=60).decode())
            except grpc.RpcError as error:
                answers.put(error)

    called, failures = 0, []

    def take(answer):
        nonlocal called
        called += 1
        if isinstance(answer, grpc.RpcError):
            failures.append(f"{answer.code().name} {answer.details()}")
            return None
        return answer.split()[0]

    with channel_to(target, None) as channel, concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        for _ in range(4):
            pool.submit(call, Client(channel))
        for _ in sys.stdin:
            # What was answered before the question does not count.
            while not answers.empty():
                take(answers.get())
            good = []
            while len(good) < 50 and len(failures) < 50:
                good.extend(pid for pid in [take(answers.get())] if pid)
            print(" ".join(sorted(set(good))), flush=True)
        stop.set()
    while not answers.empty():
        take(answers.get())
    print(f"called {called}, failed {len(failures)} {failures[:3]}", flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
