"""The raw peer on SQLite: one table, one thread, INSERT and COMMIT in FULL, and the asyncio waiters that it wakes."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

import apsw
import msgspec

from benchmarks.body import id_of, payload
from benchmarks.load import event
from benchmarks.part import Record, Setting, Signal
from benchmarks.parts.bus import percentiles, steadily

_encode = msgspec.json.Encoder().encode
Item = tuple[str, bytes, "asyncio.Future[None]"]


def _open(url: str) -> apsw.Connection:
    db = apsw.Connection(url.removeprefix("sqlite:///").partition("?")[0])
    db.execute("PRAGMA journal_mode=wal; PRAGMA synchronous=full")
    db.execute("CREATE TABLE IF NOT EXISTS log(offset INTEGER PRIMARY KEY, id TEXT, body BLOB)")
    return db


class Committer:
    """What gathered while the last commit went to disk is the next one."""

    def __init__(self, url: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, args=(url,))
        self._thread.start()

    async def commit(self, id: str, body: bytes) -> None:
        """Return once it is on disk."""
        future = self._loop.create_future()
        self._queue.put((id, body, future))
        await future

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self, url: str) -> None:
        db = _open(url)
        while (item := self._queue.get()) is not None:
            group = [item]
            while not self._queue.empty() and (more := self._queue.get()) is not None:
                group.append(more)
            db.execute("BEGIN IMMEDIATE")
            for id, body, _ in group:
                db.execute("INSERT INTO log(id, body) VALUES (?, ?)", (id, body))
            db.execute("COMMIT")
            self._loop.call_soon_threadsafe(_wake, [future for _, _, future in group])
        db.close()


def _wake(futures: list[asyncio.Future[None]]) -> None:
    for future in futures:
        future.set_result(None)


async def one_by_one(setting: Setting, signal: Signal) -> Record:
    """Each commit awaited."""
    return await _measured(setting, signal, _each)


async def _each(committer: Committer, setting: Setting) -> dict[str, float]:
    for number in range(setting.count):
        await committer.commit(id_of(number), _encode(payload(number)))
    return {}


async def latency(setting: Setting, signal: Signal) -> Record:
    """From the call to the waiter's waking, at a steady rate."""
    return await _measured(setting, signal, _steady)


async def _steady(committer: Committer, setting: Setting) -> dict[str, float]:
    taken = [0.0] * setting.count

    async def commit(number: int) -> None:
        body = _encode(event(number))
        began = time.monotonic()
        await committer.commit(id_of(number), body)
        taken[number] = time.monotonic() - began

    await steadily(setting, commit)
    return percentiles(taken)


async def _measured(setting: Setting, signal: Signal, work: Callable[[Committer, Setting], Any]) -> Record:
    committer = Committer(setting.url)
    await signal.ready()
    record = Record(started=time.monotonic())
    record.values = await work(committer, setting)
    record.ended, record.cpu = time.monotonic(), signal.cpu()
    committer.close()
    db = _open(setting.url)
    record.published = [id_of(number) for number in range(setting.count)]
    record.handled = [id for (id,) in db.execute("SELECT id FROM log")]
    db.close()
    return record
