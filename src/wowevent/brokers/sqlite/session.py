"""The loop's side of an open log: jobs for the writer thread, the futures of their answers, the timer and the bell."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import apsw

from wowevent.broker import Retry
from wowevent.brokers.sqlite import settling
from wowevent.brokers.sqlite.jobs import Call, Close, Fetch, GiveUp, Look
from wowevent.brokers.sqlite.schema import connect, connect_reader, translated
from wowevent.brokers.sqlite.store import Store
from wowevent.brokers.sqlite.wake import EVERYWHERE, GREW, Bell
from wowevent.brokers.sqlite.writer import Writer
from wowevent.ending import seen
from wowevent.errors import BrokerUnavailable, BusError, Closed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wowevent.broker import Lease, Retention
    from wowevent.brokers.sqlite.jobs import Item
    from wowevent.brokers.sqlite.writer import Answer
    from wowevent.clock import Clock, Timer

T = TypeVar("T")
P = ParamSpec("P")

_LOOK_SECONDS: Final = 1.0  # how often what waits looks for itself, should a wake-up have got lost
_NEVER: Final = float("inf")
_DEAD: Final = "the log's writer thread has ended by an internal error; open the log again"


class Session:
    """From opening the file to closing it; used from one event loop."""

    def __init__(self, clock: Clock) -> None:
        self.epoch: str = ""
        self.growth: int = 0
        """Counts how often the log was seen to have grown."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._bell = Bell(self._loop, self._heard)
        self._outgoing: list[Item] = []
        self._closed = False
        self._growing: set[asyncio.Future[None]] = set()
        self._follows: asyncio.Future[None] | None = None
        self._timer: Timer | None = None
        self._timer_at = _NEVER
        self._due = _NEVER
        self._waiting = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._ended.add_done_callback(self._thread_ended)
        self._asked: set[asyncio.Future[Any]] = set()

    async def start(self, path: str, synchronous: str, retention: Retention) -> None:
        """Open the log in the writer thread. FormatTooNew, StorageDamaged, BrokerUnavailable, NotSupported."""
        opened: asyncio.Future[Store] = self._loop.create_future()

        def open_store() -> Store:
            return Store(connect(path, synchronous), self._clock, retention, self._bell.port)

        def main() -> None:
            try:
                self._writer.run(lambda store, error: self._call(_resolve, opened, store, error))
            finally:
                self._call(_resolve, self._ended, None, None)

        self._writer = Writer(open_store, self._bell, partial(self._call, self._deliver))
        self._thread = threading.Thread(target=main, name=f"wowevent-{Path(path).name}-writer", daemon=True)
        self._thread.start()
        try:
            store = await opened
        except BaseException:
            self._writer.put([Close()])
            await self._ended
            self._thread.join()
            self._bell.close()
            raise
        self.epoch = store.registry.epoch
        self._path = path
        self._reader: apsw.Connection | None = None
        self._readers = ThreadPoolExecutor(1, f"wowevent-{Path(path).name}-reader")
        self._deliver_due(store.due)

    def _call(self, function: Callable[..., object], *args: object) -> None:
        """Call it on the loop, from the thread."""
        with contextlib.suppress(RuntimeError):  # the loop was closed without us: nobody is there to be told
            self._loop.call_soon_threadsafe(function, *args)

    # ------------------------------------------------------------------------------------------------ asking

    def check_loop(self) -> None:
        """RuntimeError on another loop than the one that opened the log: a clear word rather than a call that hangs."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("this broker was opened on another event loop; open one more for this one")

    def future(self) -> asyncio.Future[Any]:
        """For the answer to a job. BrokerUnavailable if the thread, which should never end by itself, has ended."""
        if self._ended.done() and not self._closed:
            raise BrokerUnavailable(_DEAD)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._asked.add(future)
        future.add_done_callback(self._asked.discard)
        return future

    def _thread_ended(self, _ended: asyncio.Future[None]) -> None:
        """Nobody may wait for answers that cannot come."""
        for future in list(self._asked):
            _resolve(future, None, Closed("this broker is closed") if self._closed else BrokerUnavailable(_DEAD))

    def put(self, item: Item) -> None:
        """Queue it; what one turn of the loop puts goes to the thread at once, so that it becomes one group."""
        if self._closed:
            return
        self._outgoing.append(item)
        if len(self._outgoing) == 1:
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._outgoing:
            items, self._outgoing = self._outgoing, []
            self._writer.put(items)

    async def write(self, step: Callable[[Store], T], weight: int = 1, *, after_fetches: bool = False) -> T:
        """Carry out a step within a transaction; `weight` is how many events it is about.

        `after_fetches`: not before the fetches that were asked for earlier, which other writes overtake.
        """
        job = Call(self.future(), step, weight, after_fetches=after_fetches)
        self.put(job)
        result: T = await job.future
        return result

    async def ask(self, look: Callable[Concatenate[apsw.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Look something up on the reader's connection, in its thread."""
        if self._closed:
            raise Closed("this broker is closed")
        return await self._loop.run_in_executor(self._readers, partial(self._ask, look, *args, **kwargs))

    def _ask(self, look: Callable[..., T], *args: object, **kwargs: object) -> T:
        try:
            if self._reader is None:
                self._reader = connect_reader(self._path)
            return look(self._reader, *args, **kwargs)
        except BusError:
            raise
        except Exception as error:
            if self._closed:
                raise Closed("this broker is closed") from error
            raise translated(error, self._reader) from error

    async def catch_up(self) -> None:
        """Let what is due by now have happened: a lease that has ended is not to be counted as one."""
        if self._clock.monotonic() >= self._due:
            await self.write(lambda _store: None)

    def abandon(self, job: Fetch) -> None:
        """Its caller was cancelled: what it leased or will lease goes back as it was."""
        future = job.future
        if future.cancelled() or not future.done():
            self.put(GiveUp(job))
        elif future.exception() is None:
            self._give_back(job.id, future.result())

    def _give_back(self, id: str, leases: Sequence[Lease]) -> None:
        if leases:
            retries = [Retry(lease.token, charge=False) for lease in leases]
            job = Call(self.future(), lambda store: settling.settle(store, id, retries), len(retries))
            job.future.add_done_callback(seen)
            self.put(job)

    # ------------------------------------------------------------------------------------------------ being told

    def _deliver(self, answer: Answer) -> None:
        for job, result, error in answer.outcomes:
            if job.future.done():  # its caller was cancelled
                if isinstance(job, Fetch) and result:
                    self._give_back(job.id, result)
            elif error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(result)
        if answer.grew:
            self._grown()
        self._waiting = answer.waiting
        self._deliver_due(answer.due)

    def _deliver_due(self, due: float) -> None:
        """Wake the thread when something is due; while anything waits, also to look what others changed."""
        self._due = due
        look = self._clock.monotonic() + _LOOK_SECONDS if self._waiting or self._growing else _NEVER
        at = min(due, look)
        if self._closed or at >= self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.call_later(max(0.0, at - self._clock.monotonic()), self._tick)

    def _tick(self) -> None:
        self._timer, self._timer_at = None, _NEVER
        self.put(Look(None))

    def _heard(self, epoch: str, nums: set[int]) -> None:
        if epoch != self.epoch or self._closed:
            return
        if GREW in nums or EVERYWHERE in nums:
            self._grown()
        if nums := nums - {GREW}:
            self.put(Look(nums))

    def _grown(self) -> None:
        self.growth += 1
        growing, self._growing = self._growing, set()
        for future in growing:
            _resolve(future, None, None)

    async def follow(self) -> None:
        """Be told of every append, by other processes too."""
        if self._follows is None or (self._follows.done() and self._follows.exception() is not None):
            self._follows = asyncio.ensure_future(self.write(Store.follow))
            self._follows.add_done_callback(seen)
        await asyncio.shield(self._follows)

    async def grown_since(self, growth: int) -> None:
        """Return when the log may have grown since `growth` was seen; Closed."""
        if self._closed:
            raise Closed("this broker is closed")
        if self.growth == growth:
            future: asyncio.Future[None] = self._loop.create_future()
            self._growing.add(future)
            self._deliver_due(self._due)
            try:
                await future
            finally:
                self._growing.discard(future)

    # ------------------------------------------------------------------------------------------------ the end

    async def end(self) -> None:
        """Have carried out what was asked for, then stop both threads and leave the socket."""
        self._outgoing.append(Close())
        self._flush()
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._grown()
        if self._reader is not None:
            self._reader.interrupt()
        await self._ended
        self._thread.join()
        self._bell.close()
        await self._loop.run_in_executor(self._readers, self._close_reader)
        self._readers.shutdown()

    def _close_reader(self) -> None:
        if self._reader is not None:
            # An interrupt that met no query stays until the next one, and would stop what closing does: the last
            # connection to go brings the write-ahead log into the file and removes it.
            with contextlib.suppress(apsw.Error):
                self._reader.execute("SELECT 1").fetchall()
            self._reader.close()


def _resolve(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)
