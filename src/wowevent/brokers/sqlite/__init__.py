"""The SQLite engine: one file, shared by the processes of one machine; what they publish together is one durable commit."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from wowevent.broker import (
    Appended,
    Capabilities,
    DeadLetter,
    DeadQuery,
    Discard,
    Lease,
    Ping,
    Position,
    Query,
    Redeliver,
    Retention,
    Retry,
    Settlement,
    Stored,
    Subscription,
    SubscriptionInfo,
)
from wowevent.brokers.sqlite import dead, entries, log, reader, subscriptions
from wowevent.brokers.sqlite.jobs import Call, Close, Fetch, GiveUp, Item, Look, Outcome, Publish
from wowevent.brokers.sqlite.reader import Page, Place, Reading
from wowevent.brokers.sqlite.schema import connect, connect_reader, translated
from wowevent.brokers.sqlite.store import Store
from wowevent.brokers.sqlite.wake import EVERYWHERE, GREW, Bell
from wowevent.brokers.sqlite.writer import Answer, Writer
from wowevent.clock import Clock, SystemClock, Timer
from wowevent.errors import Closed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import apsw
    from wowevent.event import Event

__all__ = ["SqliteBroker"]

T = TypeVar("T")

_LOOK_SECONDS = 1.0  # how often something that waits looks for itself, should a wake-up have got lost
_PROMISES = {
    "full": "What was confirmed survives the process and a power loss: every commit is on disk before it is confirmed.",
    "normal": "What was confirmed survives the process; a power loss may take the last moments before it.",
    "off": "What was confirmed survives the process; a power loss may take much of it, or damage the log.",
}


class SqliteBroker:
    """One instance of the SQLite engine; see `Broker` for what each call promises.

    Nothing is opened before the first call. All calls come from one event loop.
    """

    def __init__(
        self,
        path: str,
        *,
        synchronous: Literal["full", "normal", "off"] | str = "full",
        retention: Retention | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`path` is that of the file, which is made at need; processes that name the same one share a log."""
        if synchronous not in _PROMISES:
            raise ValueError(f"synchronous={synchronous!r}: full, normal or off")
        self.capabilities = Capabilities(name="sqlite", durable=True, shared=True, promise=_PROMISES[synchronous])
        self._path = str(Path(path).absolute())
        self._synchronous = synchronous
        self._retention = retention or Retention()
        self._clock = clock or SystemClock()
        self._epoch = ""
        self._writer: Writer | None = None
        self._opening: asyncio.Future[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._outgoing: list[Item] = []
        self._growth = 0
        self._growing: set[asyncio.Future[None]] = set()
        self._timer: Timer | None = None
        self._timer_at = float("inf")
        self._waiting = False
