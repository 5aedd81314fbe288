"""A thousand clients in one process: idle, or all reading but one."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from functools import partial

from benchmarks.load import PATTERN
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily
from benchmarks.parts.sockets import Client, frame_of, masked, publishing, subscribed
from wowevent import Event

_LARGE = "large.event"
_AT_ONCE = 50  # handshakes
_NUMBER = re.compile(rb'"number":(\d+)')
_SLOW = re.compile(rb'"slow_clients":(\d+)')


async def idle(setting: Setting, signal: Signal) -> Record:
    """Clients with one subscription each, that say and get nothing; `named`: each has a name of its own."""
    options, url = setting.options, setting.url.partition("#")[0]

    async def connect(number: int) -> Client:
        agent = f"agent-{number}" if options["agents"] else None
        name = b',"name":"idle-%d"' % number if options.get("named") else b""
        return await subscribed(url, _ignore, agent=agent, settings=name)

    clients = await _connected([partial(connect, number) for number in range(setting.count)])
    await signal.ready()
    record = Record(started=time.monotonic())
    await asyncio.sleep(options["settle"] + options["idle"] + 0.2)
    record.ended = time.monotonic()
    await asyncio.gather(*(client.leave() for client in clients))
    return record


async def readers(setting: Setting, signal: Signal) -> Record:
    """How late events come to clients that read, in milliseconds; with `stopped`, one client more reads nothing.

    That one has large events coming to it beside those that all get, so that it is cut off within the run.
    """
    options, url = setting.options, setting.url.partition("#")[0]
    filler = {"filler": "x" * options["large"]}
    frames = [
        publishing(number)[1] + frame_of(Event(topic=_LARGE, payload=filler), number) for number in range(setting.count)
    ]
    sent = [0.0] * setting.count
    late: list[float] = []
    left = options["clients"] * setting.count
    done = asyncio.Event()

    def take(data: bytes) -> None:
        nonlocal left
        for number in _NUMBER.findall(data):
            late.append(time.monotonic() - sent[int(number)])
            left -= 1
        if not left:
            done.set()

    async def publish(number: int) -> None:
        sent[number] = time.monotonic()
        publisher.socket.write(frames[number])

    clients = await _connected([lambda: subscribed(url, take) for _ in range(options["clients"])])
    stopped = await _stopped(url) if options["stopped"] else None
    publisher = await Client.connect(url, _ignore)
    await signal.ready()
    record = Record(started=time.monotonic())
    await steadily(setting, publish)
    await done.wait()
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    found = _SLOW.search(await publisher.ask(b'{"type":"get_health"}', b"health"))
    cut = float(found[1]) if found is not None else -1.0
    record.values = {**percentiles(late), "cut": cut, "lost": float(options["cut"] != cut)}
    if stopped is not None:
        stopped.socket.abort()
    await asyncio.gather(*(client.leave() for client in (publisher, *clients)))
    return record


async def _connected(connect: list[Callable]) -> list[Client]:
    clients: list[Client] = []
    for at in range(0, len(connect), _AT_ONCE):
        clients += await asyncio.gather(*(each() for each in connect[at : at + _AT_ONCE]))
    return clients


async def _stopped(url: str) -> Client:
    """A client that subscribes and then reads nothing; its socket holds little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    sock.setblocking(False)
    host, _, port = url.removeprefix("ws://").partition(":")
    await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
    client = await Client.connect(url, _ignore, socket_factory=lambda _: sock)
    wish = b'{"type":"subscribe","subscription":{"topics":["%b","%b"]}}' % (PATTERN.encode(), _LARGE.encode())
    client.socket.write(masked(wish))
    client.socket.pause_reading()
    return client


def _ignore(_data: bytes) -> None:
    """Nothing."""
