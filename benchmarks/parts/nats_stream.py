"""The raw peer on NATS: nats-py, one stream on file and one durable consumer, as its documentation shows it.

Many are published asynchronously and their confirms awaited together, or one is awaited after the other; `ids` has the
server drop what comes twice, as ours has it do. The consumer asks for so many, and acknowledges each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from benchmarks.body import Messages, id_of
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily
from benchmarks.parts.nats_left import DURABLE, STREAM, SUBJECT, left, made

_GATHERED = 100
_ID = "Nats-Msg-Id"
_decode = msgspec.json.Decoder(dict[str, Any]).decode


async def publisher(setting: Setting, signal: Signal) -> Record:
    """Gathered by 100, or with `one` each awaited by itself."""
    async with await nats.connect(setting.url) as connection:
        js = connection.jetstream()
        publish = _one_by_one(js, setting) if setting.options.get("one") else _gathered(js, setting)
        await signal.ready()
        began = time.monotonic()
        await publish()
        ended = time.monotonic()
        ids = [id_of(number) for number in range(setting.count)]
        return Record(started=began, ended=ended, published=ids, cpu=signal.cpu())


def _one_by_one(js: JetStreamContext, setting: Setting) -> Callable[[], Awaitable[None]]:
    publish = _publishing(js, setting)

    async def all_of_them() -> None:
        for number in range(setting.count):
            await publish(number)

    return all_of_them


def _gathered(js: JetStreamContext, setting: Setting) -> Callable[[], Awaitable[None]]:
    messages, ids = Messages(setting.options["size"]), setting.options.get("ids", False)

    async def all_of_them() -> None:
        for at in range(0, setting.count, _GATHERED):
            confirms = [
                await js.publish_async(SUBJECT, messages.encoded(number), headers={_ID: id_of(number)} if ids else None)
                for number in range(at, min(setting.count, at + _GATHERED))
            ]
            await asyncio.gather(*confirms)

    return all_of_them


def _publishing(js: JetStreamContext, setting: Setting) -> Callable[[int], Awaitable[None]]:
    """`publish(n)`, which returns when the server has confirmed it."""
    messages, ids = Messages(setting.options["size"]), setting.options.get("ids", False)

    async def publish(number: int) -> None:
        headers = {_ID: id_of(number)} if ids else None
        await js.publish(SUBJECT, messages.encoded(number), headers=headers, timeout=30)

    return publish


async def consumer(setting: Setting, signal: Signal) -> Record:
    """Handles and acknowledges only."""
    handled: list[str] = []
    async with await nats.connect(setting.url) as connection:
        js = connection.jetstream()
        await made(js)
        subscription = await js.pull_subscribe(SUBJECT, DURABLE, STREAM)
        await signal.ready()
        while len(handled) < setting.count:
            asked = min(setting.options.get("fetch", _GATHERED), setting.count - len(handled))
            for message in await subscription.fetch(asked, timeout=30):
                handled.append(_handled(message))
                await message.ack()
        record = Record(ended=time.monotonic(), handled=handled, cpu=signal.cpu())
        record.values["lost"] = await left(js)
    return record


def _handled(message: Msg) -> str:
    """Its id, as whoever handles it would read it."""
    id: str = _decode(message.data)["id"]
    return id


async def latency(setting: Setting, signal: Signal) -> Record:
    """Publish to handler, in milliseconds, at a steady rate that waits for nothing; what comes is pushed to us."""
    sent: dict[str, float] = {}
    taken: dict[str, float] = {}
    done = asyncio.Event()

    async def take(message: Msg) -> None:
        taken[_handled(message)] = time.monotonic()
        await message.ack()
        if len(taken) == setting.count:
            done.set()

    async with await nats.connect(setting.url) as writer, await nats.connect(setting.url) as reader:
        js = reader.jetstream()
        await made(js)
        await js.subscribe(SUBJECT, cb=take, durable=DURABLE, stream=STREAM, manual_ack=True)
        publish = _publishing(writer.jetstream(), setting)

        async def timed(number: int) -> None:
            sent[id_of(number)] = time.monotonic()
            await publish(number)

        await signal.ready()
        began = time.monotonic()
        await steadily(setting, timed)
        await done.wait()
        record = Record(started=began, ended=time.monotonic(), published=list(sent), handled=list(taken))
        record.cpu = signal.cpu()
        record.values = percentiles([taken[id] - sent[id] for id in sent])
        record.values["lost"] = await left(js)
    return record
