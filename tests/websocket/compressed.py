"""Offers permessage-deflate, says what was agreed on, and sends messages that must come back as they were."""

import asyncio
import json
import random
import sys

from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

SIZES = [1 << power for power in range(10, 21)]


def text(size):
    """Compresses well."""
    records = json.dumps([{"id": number, "name": "grüße 世界", "tags": ["a", "b"]} for number in range(64)])
    return (records * (size // len(records) + 1))[:size]


async def check(url, **offer):
    factory = ClientPerMessageDeflateFactory(**offer)
    async with connect(url, extensions=[factory], compression=None, max_size=None, proxy=None) as socket:
        agreed = socket.response.headers.get("Sec-WebSocket-Extensions", "nothing")
        assert socket.protocol.extensions, f"not agreed: {agreed}"
        sent = 0
        for size in SIZES:
            for message in (text(size), text(size).encode()):
                await socket.send(message)
                assert await socket.recv() == message, f"{size} bytes came back changed"
                sent += len(message.encode()) if isinstance(message, str) else len(message)
        noise = random.randbytes(100_000)
        await socket.send(noise)
        assert await socket.recv() == noise
        sent += len(noise)
        # In fragments, each of which is part of one compressed message.
        parts = [text(5000), text(70_000), text(10)]
        await socket.send(parts)
        assert await socket.recv() == "".join(parts)
        sent += len("".join(parts).encode())
        print(f"{sent} {agreed}")


async def main(url):
    await check(url, client_max_window_bits=True)
    await check(url, client_no_context_takeover=True, server_no_context_takeover=True)
    await check(url, client_max_window_bits=10, server_max_window_bits=10)


asyncio.run(main(sys.argv[1]))
