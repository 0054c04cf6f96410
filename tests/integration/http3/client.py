"""HTTP/3 as strangers speak it: aioquic for what needs a hand on the frames, niquests and curl for everyday use.

    client.py CASE PORT CA_FILE [PID]

Prints what it saw; exits with 0 when the case went as it should.
"""
import asyncio
import hashlib
import os
import socket
import ssl
import sys

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import encode_uint_var
from aioquic.h3.connection import H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, StreamReset

HOST = "localhost"
PORT = int(sys.argv[2])
CA = sys.argv[3]
DEADLINE = 30
MEGABYTES_50 = 50 << 20
H3_NO_ERROR = 0x100
H3_STREAM_CREATION_ERROR = 0x103
H3_FRAME_UNEXPECTED = 0x105
H3_MISSING_SETTINGS = 0x10A
H3_REQUEST_CANCELLED = 0x10C
H3_MESSAGE_ERROR = 0x10E


class Client(QuicConnectionProtocol):
    """Requests over one connection; remembers how it ended."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.http = None
        self.waiting = {}
        self.resets = {}
        self.ended = asyncio.get_running_loop().create_future()
        self.held = None

    def hold(self):
        """Hears nothing until it is released."""
        self.held = []

    def release(self):
        held, self.held = self.held, None
        for datagram in held:
            self.datagram_received(*datagram)

    def datagram_received(self, data, addr):
        if self.held is None:
            super().datagram_received(data, addr)
        else:
            self.held.append((data, addr))

    def speak(self):
        self.http = H3Connection(self._quic)
        return self

    def quic_event_received(self, event):
        if isinstance(event, ConnectionTerminated) and not self.ended.done():
            self.ended.set_result(event.error_code)
        if isinstance(event, StreamReset):
            self._reset(event.stream_id).set_result(event.error_code)
        if self.http is None:
            return
        for seen in self.http.handle_event(event):
            if not isinstance(seen, (HeadersReceived, DataReceived)):
                continue
            answered, events = self.waiting.get(seen.stream_id, (None, []))
            events.append(seen)
            if seen.stream_ended and answered and not answered.done():
                answered.set_result(events)

    def ask(self, method, path, headers=(), body=None, unfinished=False):
        stream = self._quic.get_next_available_stream_id()
        answered = asyncio.get_running_loop().create_future()
        self.waiting[stream] = (answered, [])
        head = [(b":method", method), (b":scheme", b"https"), (b":authority", f"{HOST}:{PORT}".encode()), (b":path", path)]
        self.http.send_headers(stream, head + list(headers), end_stream=body is None and not unfinished)
        if body is not None:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream, answered

    def _reset(self, stream):
        return self.resets.setdefault(stream, asyncio.get_running_loop().create_future())

    async def reset_of(self, stream):
        return await asyncio.wait_for(self._reset(stream), DEADLINE)

    async def request(self, *args, **kwargs):
        _, answered = self.ask(*args, **kwargs)
        events = await asyncio.wait_for(answered, DEADLINE)
        fields = dict(it for event in events if isinstance(event, HeadersReceived) for it in event.headers)
        data = b"".join(event.data for event in events if isinstance(event, DataReceived))
        return int(fields[b":status"]), fields, data


def configuration():
    made = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=HOST)
    made.load_verify_locations(CA)
    return made


def dial(ticket=None, **kwargs):
    made = configuration()
    made.session_ticket = ticket
    return connect("127.0.0.1", PORT, configuration=made, create_protocol=Client, **kwargs)


def check(what, seen, expected):
    print(f"{what}: {seen}")
    assert seen == expected, f"{what}: expected {expected}"


async def everyday():
    async with dial() as client:
        client.speak()
        status, fields, data = await client.request(b"GET", b"/small.txt")
        check("GET", (status, data), (200, b"small\n"))
        assert fields[b"server"] == b"miwid" and b"date" in fields and b"connection" not in fields
        check("missing", (await client.request(b"GET", b"/missing"))[0], 404)
        status, fields, data = await client.request(b"GET", b"/small.txt", [(b"range", b"bytes=1-3")])
        check("range", (status, data, fields[b"content-range"]), (206, b"mal", b"bytes 1-3/6"))
        status, _, data = await client.request(b"POST", b"/echo", body=b"hello")
        check("echo", (status, data), (200, b"hello"))
        etag = (await client.request(b"GET", b"/small.txt"))[1][b"etag"]
        check("not modified", (await client.request(b"GET", b"/small.txt", [(b"if-none-match", etag)]))[0], 304)


async def parallel():
    async with dial() as client:
        client.speak()
        answers = await asyncio.gather(*(client.request(b"GET", b"/small.txt") for _ in range(40)))
        check("40 in parallel", {(status, data) for status, _, data in answers}, {(200, b"small\n")})


async def bulk():
    sent = os.urandom(1 << 20) * 50
    async with dial() as client:
        client.speak()
        status, _, data = await client.request(b"POST", b"/echo", body=sent)
        check("50 MB both ways", (status, len(data)), (200, MEGABYTES_50))
        check("digest", hashlib.sha256(data).hexdigest(), hashlib.sha256(sent).hexdigest())


async def limits():
    async with dial() as client:
        client.speak()
        too_long = b"/" + b"a" * 9000
        check("long target", (await client.request(b"GET", too_long))[0], 414)
        wide = [(b"x-wide", b"a" * 40_000)]
        status, fields, _ = await client.request(b"GET", b"/small.txt", wide)
        check("large head", (status, fields[b"miwi-reason"]), (431, b"limit-header"))
        status, fields, _ = await client.request(b"POST", b"/echo", [(b"content-length", b"999999999999")], unfinished=True)
        check("large body", (status, fields[b"miwi-reason"]), (413, b"limit-body"))


async def refused():
    """One request a minute passes, and a closed route is closed."""
    async with dial() as client:
        client.speak()
        answers = [await client.request(b"GET", path) for path in (b"/", b"/", b"/closed")]
        check("statuses", [it[0] for it in answers], [200, 429, 403])
        reasons = [it[1].get(b"miwi-reason") for it in answers]
        check("reasons", reasons, [None, b"rate-limit", b"denied"])
        assert 1 <= int(answers[1][1][b"retry-after"]) <= 60


async def migration():
    async with dial(local_port=0) as client:
        client.speak()
        check("before", (await client.request(b"GET", b"/small.txt"))[0], 200)
        loop = asyncio.get_running_loop()
        old = client._transport
        transport, _ = await loop.create_datagram_endpoint(lambda: client, local_addr=("::", 0), family=socket.AF_INET6)
        print("moved from", old.get_extra_info("sockname")[1], "to", transport.get_extra_info("sockname")[1])
        client._quic.change_connection_id()
        client._transport = transport
        for number in range(5):
            check(f"after, {number}", (await client.request(b"GET", b"/small.txt"))[0], 200)
        old.close()


async def ticket():
    """A session to come back with."""
    kept = asyncio.get_running_loop().create_future()
    keep = lambda it: kept.done() or kept.set_result(it)
    async with dial(session_ticket_handler=keep) as client:
        client.speak()
        check("first", (await client.request(b"GET", b"/small.txt"))[0], 200)
        return await asyncio.wait_for(kept, DEADLINE)


async def return_with(ticket, *requests, until=None):
    """What is asked before the handshake is over, which it is not before `until`; whether it was heard then."""
    async with dial(ticket, wait_connected=False) as client:
        client.speak()
        if until:
            client.hold()
        asking = [asyncio.create_task(client.request(*it[0], **it[1])) for it in requests]
        if until:
            await until
            client.release()
        answers = await asyncio.gather(*asking)
        return client._quic.tls.early_data_accepted, answers


async def told():
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def early():
    """Says `ready` when its early requests are out, and waits for a line on standard input before it hears an answer."""
    held = await ticket()
    get, post = ((b"GET", b"/echo?early"), {}), ((b"POST", b"/echo"), {"body": b"hello"})
    accepted, answers = await return_with(held, get, post, until=told())
    check("early data", (accepted, [it[0] for it in answers]), (True, [200, 425]))
    check("reason", answers[1][1][b"miwi-reason"], b"early-data")
    accepted, answers = await return_with(held, get)
    check("the same session again", (accepted, answers[0][0]), (False, 200))


async def not_early():
    accepted, answers = await return_with(await ticket(), ((b"POST", b"/echo"), {"body": b"hello"}))
    check("early data", (accepted, answers[0][0], answers[0][2]), (False, 200, b"hello"))


async def retry():
    """Handshakes that never go on, until the server wants proof of the address."""
    flood = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(300):
            quic = QuicConnection(configuration=configuration())
            quic.connect(("127.0.0.1", PORT), now=0.0)
            for data, _ in quic.datagrams_to_send(now=0.0):
                stranger.sendto(data, ("127.0.0.1", PORT))
            flood.append(quic)
        async with dial() as client:
            client.speak()
            check("asked to prove its address", client._quic._retry_count, 1)
            check("served", (await client.request(b"GET", b"/small.txt"))[0], 200)


async def raw(expected, act):
    async with dial() as client:
        act(client)
        client.transmit()
        check("closed with", hex(await asyncio.wait_for(client.ended, DEADLINE)), hex(expected))


def frame(kind, payload=b""):
    return encode_uint_var(kind) + encode_uint_var(len(payload)) + payload


CONTROL_STREAM = encode_uint_var(0)
SETTINGS = frame(4)


async def broken():
    def data_before_headers(client):
        client._quic.send_stream_data(2, CONTROL_STREAM + SETTINGS)
        client._quic.send_stream_data(0, frame(0, b"early"))

    def frame_of_http2(client):
        client._quic.send_stream_data(2, CONTROL_STREAM + SETTINGS)
        client._quic.send_stream_data(0, frame(2))

    def two_control_streams(client):
        client._quic.send_stream_data(2, CONTROL_STREAM + SETTINGS)
        client._quic.send_stream_data(6, CONTROL_STREAM + SETTINGS)

    def no_settings(client):
        client._quic.send_stream_data(2, CONTROL_STREAM + frame(7, encode_uint_var(0)))

    await raw(H3_FRAME_UNEXPECTED, data_before_headers)
    await raw(H3_FRAME_UNEXPECTED, frame_of_http2)
    await raw(H3_STREAM_CREATION_ERROR, two_control_streams)
    await raw(H3_MISSING_SETTINGS, no_settings)
    async with dial() as client:
        client.speak()
        for field in [(b"transfer-encoding", b"chunked"), (b"host", b"other.test"), (b"content-length", b"5")]:
            stream, _ = client.ask(b"GET", b"/small.txt", [field])
            check(field, hex(await client.reset_of(stream)), hex(H3_MESSAGE_ERROR))
        check("the connection goes on", (await client.request(b"GET", b"/small.txt"))[0], 200)


async def through_reload():
    """Says `ready`, waits for a line on standard input, and goes on over the same connection."""
    async with dial() as client:
        client.speak()
        check("before", (await client.request(b"GET", b"/small.txt"))[0], 200)
        await told()
        check("after", (await client.request(b"GET", b"/small.txt"))[0], 200)


async def through_stop():
    """A request that is under way when the daemon is told to stop is answered; then the connection ends without error."""
    async with dial() as client:
        client.speak()
        _, slow = client.ask(b"GET", b"/slow")
        print("ready", flush=True)
        events = await asyncio.wait_for(slow, DEADLINE)
        status = dict(it for event in events if isinstance(event, HeadersReceived) for it in event.headers)[b":status"]
        check("the request that was under way", status, b"200")
        check("closed with", hex(await asyncio.wait_for(client.ended, DEADLINE)), hex(H3_NO_ERROR))


async def cancelled():
    """Stops an answer whose head has come and an answer that has not begun, and goes on over the same connection."""
    async with dial() as client:
        client.speak()
        for path in (b"/begun", b"/slow"):
            stream, _ = client.ask(b"GET", path)
            if path == b"/begun":
                while not client.waiting[stream][1]:
                    await asyncio.sleep(0.01)
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            client._quic.stop_stream(stream, H3_REQUEST_CANCELLED)
            client.transmit()
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        check("after", (await client.request(b"GET", b"/small.txt"))[0], 200)


def niquests_client():
    import niquests

    with niquests.Session() as session:
        session.quic_cache_layer.add_domain(HOST, PORT)
        url = f"https://{HOST}:{PORT}"
        answer = session.get(f"{url}/small.txt", verify=CA)
        check("GET", (answer.status_code, answer.http_version, answer.text), (200, 30, "small\n"))
        answer = session.head(f"{url}/small.txt", verify=CA)
        check("HEAD", (answer.status_code, answer.http_version, answer.headers["content-length"]), (200, 30, "6"))
        answer = session.post(f"{url}/echo", data=b"x" * 100_000, verify=CA)
        check("POST", (answer.status_code, len(answer.content)), (200, 100_000))


def curl_client():
    from curl_cffi import CurlHttpVersion, requests

    def ask(method, path, **kwargs):
        return requests.request(
            method, f"https://{HOST}:{PORT}{path}", http_version=CurlHttpVersion.V3ONLY, verify=CA, timeout=DEADLINE, **kwargs
        )

    check("GET", (ask("GET", "/small.txt").status_code, ask("GET", "/small.txt").http_version), (200, 30))
    check("HEAD", ask("HEAD", "/small.txt").status_code, 200)
    check("missing", ask("GET", "/missing").status_code, 404)
    check("POST", ask("POST", "/echo", data=b"hello").content, b"hello")


if __name__ == "__main__":
    case = globals()[sys.argv[1]]
    result = case()
    if asyncio.iscoroutine(result):
        asyncio.run(result)
