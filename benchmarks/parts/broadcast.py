"""The bare peer: a fan-out of the websockets library's `broadcast`, as its documentation shows it, and nothing else.

What a publisher sends goes out as it is: bytes that are not decoded, in text frames, without compression. Who says
`subscribe` first is a subscriber. With `confirm` a publisher gets a short frame for each message, as the router's does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from benchmarks.part import Record, Setting, Signal

_CONFIRMED = b'{"type":"published","status":"queued"}'


async def fan_out(setting: Setting, signal: Signal, send: Callable[..., None] = broadcast) -> Record:
    """Serve until the clients have left; `send` is what a test puts in the library's place."""
    subscribers: set[ServerConnection] = set()
    left = asyncio.Event()
    confirm = setting.options["confirm"]

    async def handle(client: ServerConnection) -> None:
        async for message in client:
            if isinstance(message, str) and message.startswith('{"type":"subscribe"'):
                subscribers.add(client)
                await client.send('{"type":"subscribed"}')
                break
        else:
            return
        await client.wait_closed()
        subscribers.discard(client)
        if not subscribers:
            left.set()

    async def relay(client: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            while True:
                send(subscribers, await client.recv(decode=False), text=True)
                if confirm:
                    await client.send(_CONFIRMED, text=True)

    async def accept(client: ServerConnection) -> None:
        await (relay if client.request is not None and client.request.path == "/publish" else handle)(client)

    url = urlsplit(setting.url)
    async with serve(accept, url.hostname, url.port, compression=None, max_size=None):
        await signal.ready()
        await left.wait()
        cpu = signal.cpu()
    return Record(cpu=cpu, values={"server_cpu": cpu})
