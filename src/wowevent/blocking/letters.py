"""One queue's dead letters, handed to a callback: `dlq.{queue}`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from copy import copy
from typing import Any, Final

from msgspec import structs

from wowevent.blocking.consuming import HANDLER_SECONDS
from wowevent.blocking.line import DEAD, Line
from wowevent.blocking.worker import Worker
from wowevent.broker import Broker, DeadLetter, DeadQuery, Discard
from wowevent.bus import EventBus
from wowevent.delivery import Delivery, enter
from wowevent.errors import BrokerError, PauseSubscription, RetryAfter
from wowevent.handler import adapt
from wowevent.log import logger
from wowevent.retry import RetryPolicy

_LOOK_SECONDS: Final = 0.5  # no engine tells of new letters
_PAGE: Final = 100
_HELD: Final = float("inf")


class Claims:
    """Which letters of one queue are in a callback's hands in this process, and which were kept and until when.

    The buses of a process share it, so that two of them do not handle a letter twice. The lock is held for a look only.
    """

    def __init__(self) -> None:
        self.consumers: int = 0
        """How many consume these letters in this process."""
        self._lock = threading.Lock()
        self._until: dict[str, float] = {}  # monotonic seconds

    def __len__(self) -> int:
        return len(self._until)

    def join(self, more: int) -> None:
        """One consumer comes, or goes (-1)."""
        with self._lock:
            self.consumers += more

    def take(self, id: str) -> bool:
        """Whether it is the caller's now."""
        with self._lock:
            if self._until.get(id, 0.0) > time.monotonic():
                return False
            self._until[id] = _HELD
            return True

    def keep(self, id: str, seconds: float) -> None:
        """Nobody's for so long."""
        with self._lock:
            self._until[id] = time.monotonic() + seconds

    def drop(self, id: str) -> None:
        """It is no more."""
        with self._lock:
            self._until.pop(id, None)

    def only(self, ids: set[str]) -> None:
        """Forget what was kept and is not among these: it is no more."""
        with self._lock:
            gone = [id for id, until in self._until.items() if until != _HELD and id not in ids]
            for id in gone:
                del self._until[id]


_claims: dict[Hashable, Claims] = {}


def claims_of(log: Hashable, queue: str) -> Claims:
    """Those of a queue of a log, of this process."""
    return _claims.setdefault((log, queue), Claims())


def forget_claims() -> None:
    """For a forked child, whose parent's callbacks are not its own."""
    _claims.clear()


class Letters:
    """Brings a queue's dead letters to a callback, the oldest first.

    A callback that returns discards its letter, one that raises keeps it, and it is shown again after the pause that
    the retry policy has for that many failures.
    """

    def __init__(  # noqa: PLR0917 - each is another part that it is made of
        self,
        line: Line,
        queue: str,
        callback: Callable[..., Any],
        policy: RetryPolicy,
        worker: Worker,
        claims: Claims,
        *,
        auto_ack: bool,
    ) -> None:
        """`auto_ack` discards a letter before it is handled."""
        self._line = line
        self._queue = queue
        self._handler = adapt(callback, to_thread=worker.run)
        self._policy = policy
        self._claims = claims
        self._auto_ack = auto_ack
        self._failures: dict[str, int] = {}
        self._handled: set[str] = set()  # and not discarded yet, since the engine was away
        self._stopping = asyncio.Event()
        self._done = asyncio.Event()
        self._joined = False
        self._rests_until = 0.0  # monotonic seconds

    async def begin(self) -> None:
        """See Feed."""
        await self._line.started()
        self._joined = True
        self._claims.join(1)

    async def run(self) -> None:
        """See Feed."""
        try:
            bus = await self._line.started()
            while not self._stopping.is_set():
                try:
                    if time.monotonic() >= self._rests_until:
                        await self._round(bus)
                except BrokerError as error:
                    logger.error("dead letters cannot be read now", queue=self._queue, error=error)
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._stopping.wait()
        finally:
            self._done.set()

    async def end(self) -> None:
        """See Feed."""
        self._stopping.set()
        if self._joined:
            self._joined = False
            with suppress(TimeoutError):
                async with asyncio.timeout(HANDLER_SECONDS):
                    await self._done.wait()
            self._claims.join(-1)

    async def _round(self, bus: EventBus) -> None:
        broker, holds = bus.broker, bus.holds
        limit = len(self._claims) + _PAGE
        letters = await broker.dead(DeadQuery(subscription=self._queue, limit=limit))
        if len(letters) < limit:
            ids = {letter.id for letter in letters}
            self._claims.only(ids)
            self._failures = {id: count for id, count in self._failures.items() if id in ids}
            self._handled &= ids
        for letter in letters:
            if self._stopping.is_set() or time.monotonic() < self._rests_until:
                return
            if holds.stops("", letter.event) is None and self._claims.take(letter.id):
                await self._take(broker, letter)

    async def _take(self, broker: Broker, letter: DeadLetter) -> None:
        """Handle a letter that is claimed, unless another bus was through with it since the list was made."""
        pause: float | None = 0.0
        try:
            if await broker.dead(DeadQuery(ids=(letter.id,))):
                if self._auto_ack:
                    await broker.resolve([Discard(letter.id)])
                pause = await self._handle(letter)
                if pause is None and not self._auto_ack:
                    self._handled.add(letter.id)
                    await broker.resolve([Discard(letter.id)])
                    self._handled.discard(letter.id)
            else:
                pause = None
        except BrokerError:
            pause = _LOOK_SECONDS
            raise
        finally:
            if pause is None or self._auto_ack:
                self._claims.drop(letter.id)
            else:
                self._claims.keep(letter.id, pause)

    async def _handle(self, letter: DeadLetter) -> float | None:
        """None if it was handled, else the seconds until it may be shown again."""
        if letter.id in self._handled:
            return None
        event = structs.replace(copy(letter.event), retry_count=len(letter.attempts))
        enter(Delivery(event, len(letter.attempts) + 1, DEAD + self._queue, None))
        try:
            await self._handler(event)
        except RetryAfter as later:
            return later.seconds
        except PauseSubscription as asked:
            pause = asked.seconds(time.time())
            self._rests_until = time.monotonic() + pause
            return pause
        except Exception as error:  # noqa: BLE001 - whatever a callback raises keeps the letter
            failures = self._failures[letter.id] = self._failures.get(letter.id, 0) + 1
            pause = max(_LOOK_SECONDS, self._policy.delay(failures))
            logger.warning(
                "dead_letter kept, its callback failed",
                queue=DEAD + self._queue,
                event_id=event.event_id,
                topic=event.topic,
                error=f"{type(error).__name__}: {error}",
                again_in=pause,
            )
            return pause
        finally:
            enter(None)
        self._failures.pop(letter.id, None)
        return None
