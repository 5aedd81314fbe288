"""A named subscription over a socket: every event is acknowledged, those of one message together."""

from __future__ import annotations

import asyncio
import re
import time

from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.sockets import Client, Counter, Publisher, masked, publishing, subscribed

TOKEN = re.compile(rb'"token":("[^"]+")')
"""Of each event of a message, as it stands there."""


async def named(setting: Setting, signal: Signal) -> Record:
    """One publisher and one named subscriber; it ends when the router has settled the last acknowledgement."""
    options, url = setting.options, setting.url.partition("#")[0]
    made = [publishing(number) for number in range(setting.count)]
    publisher: Publisher
    tokens: list[bytes] = []

    def moved() -> None:
        publisher.pump()
        tokens.extend(TOKEN.findall(counter.kept[-1]))
        if not counter.all.is_set():
            subscriber.socket.write(masked(ack(tokens)))
            tokens.clear()

    counter = Counter(setting.count, moved, keep=True)
    publisher = Publisher([frame for _, frame in made], options["window"], [counter], confirmed=True)
    wish = b',"name":"%b","credit":%d' % (options["name"].encode(), options["credit"])
    subscriber = await subscribed(url, counter.take, batch=True, settings=wish)
    client = await Client.connect(url, publisher.take)
    await signal.ready()
    record = Record(started=time.monotonic(), published=[id for id, _ in made])
    publisher.client = client
    publisher.pump()
    await counter.all.wait()
    await subscriber.ask(ack(tokens, b',"ref":1'), b"settled")
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    await publisher.answered.wait()
    await asyncio.gather(subscriber.leave(), client.leave())
    record.handled = counter.ids
    record.values = {"clients_cpu": record.cpu, "lost": float(publisher.refused)}
    return record


def ack(tokens: list[bytes], ref: bytes = b"") -> bytes:
    """The frame that acknowledges them."""
    return b'{"type":"ack","subscription_id":"sub-1","tokens":[%b]%b}' % (b",".join(tokens), ref)
