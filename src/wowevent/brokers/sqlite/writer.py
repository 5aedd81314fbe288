"""The writer thread: what gathered while the last commit went to disk is one transaction, answered once it is durable.

    loop:    put(items) ─► queue                                   deliver(answer) ─► futures
    thread:                gather ► BEGIN ► publish, settle, … ► fetches ► COMMIT ─┘ ► ring the others ► checkpoint

A fetch that finds nothing is parked here, and runs again inside the very transaction that makes something ready for it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import apsw
from msgspec import Struct

from wowevent.brokers.sqlite import entries, log, retention, subscriptions, wake
from wowevent.brokers.sqlite.jobs import Call, Close, Fetch, GiveUp, Item, Job, Look, Outcome, Publish
from wowevent.brokers.sqlite.schema import BUSY_SECONDS, BusyWait, one, translated
from wowevent.brokers.sqlite.store import Store
from wowevent.errors import BusError, Closed, StorageDamaged, StorageFull

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from wowevent.broker import Appended

GROUP: Final = 500  # events in one transaction: a thousand cost 24 to 76 ms at the 99th percentile
_RESERVE: Final = 8 * 2**20  # bytes of the disk that publishing leaves to acknowledgements
_PAGE_BYTES: Final = 4_096
_WAL_PAGES: Final = 1_000
_WAL_PAGES_TOO_MANY: Final = 16_000
_RESTART_SECONDS: Final = 0.1
_JANITOR_SECONDS: Final = 1.0
_TROUBLE_SECONDS: Final = 1.0
_logger: Final = logging.getLogger(__name__)

# The trouble is the file's, not one job's: everything in this transaction failed.
_SHARED_TROUBLE: Final = (apsw.BusyError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, apsw.NotADBError)


def reserve(disk: os.statvfs_result) -> int:
    """The bytes of a disk that publishing leaves to acknowledgements."""
    return min(_RESERVE, disk.f_blocks * disk.f_frsize // 16)


class Answer(Struct, frozen=True):
    """What one turn of the thread has to say to the loop."""

    outcomes: list[Outcome]
    grew: bool
    """The log has more events."""
    due: float
    """Monotonic seconds: when there is something to do without being asked."""
    waiting: bool
    """Fetches are parked."""


class Writer:
    """The thread, and what it owns. `put` is for the loop; all else happens in the thread."""

    def __init__(self, open_store: Callable[[], Store], bell: wake.Bell, deliver: Callable[[Answer], None]) -> None:
        """`open_store` and `deliver` are called in the thread."""
        self._open_store = open_store
        self._bell = bell
        self._deliver = deliver
        self._queue: queue.SimpleQueue[Sequence[Item]] = queue.SimpleQueue()
        self._pending: deque[Item] = deque()
        self._parked: dict[int, list[Fetch]] = {}
        self._again: set[int] = set()  # to look at in the next turn, without being asked
        self._news: set[int] = set()  # what others are told after this turn
        self._grew = False
        self._janitor_at = 0.0
        self._pages = 0
        self._too_many = _WAL_PAGES_TOO_MANY
        self._version = 0
        self._directory = ""

    def put(self, items: Sequence[Item]) -> None:
        """Queue these, in their order."""
        self._queue.put(items)

    def run(self, opened: Callable[[Store | None, BaseException | None], None]) -> None:
        """The thread's life: open, say so, serve until `Close`."""
        try:
            store = self._open_store()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the caller gets it
            opened(None, translated(error))
            return
        store.db.set_wal_hook(self._note_pages)
        self._directory = str(Path(store.db.filename).parent)
        try:
            self._keep_house(store)
        except (TypeError, ValueError) as error:  # so far the file is all that was asked
            store.db.close()
            damage = StorageDamaged("this log has values that were not written so")
            damage.__cause__ = error
            opened(None, damage)
            return
        except Exception as error:  # noqa: BLE001 - as above
            store.db.close()
            opened(None, translated(error))
            return
        opened(store, None)
        try:
            while self._turn(store):
                pass
        finally:
            store.db.close()

    def _note_pages(self, _db: apsw.Connection, _name: str, pages: int) -> int:
        self._pages = pages
        return apsw.SQLITE_OK

    # ------------------------------------------------------------------------------------------------ one turn

    def _turn(self, store: Store) -> bool:
        """Take what gathered, carry it out, answer; False after the last."""
        self._gather(store)
        if self._pending and isinstance(self._pending[0], Close):
            self._finish(store)
            return False
        writes, fetches, outcomes = self._select(store)
        if store.due <= store.clock.monotonic():
            self._try_to_keep_house(store)
        nums, self._again = self._again, set()
        fetches += self._unpark(nums)
        if not writes:
            fetches = self._needed(store, fetches, outcomes)
        if writes or fetches:
            outcomes += self._commit(store, writes, fetches)
        self._again &= self._parked.keys()
        self._tell(store, outcomes)
        if self._pages >= _WAL_PAGES:
            self._checkpoint(store.db)
        return True

    def _gather(self, store: Store) -> None:
        """Everything that was put by now; waits only if there is nothing to do."""
        if not self._pending and not self._again and store.due > store.clock.monotonic():
            self._pending.extend(self._queue.get())
        with contextlib.suppress(queue.Empty):
            while True:
                self._pending.extend(self._queue.get_nowait())

    def _select(self, store: Store) -> tuple[list[Call | Publish], list[Fetch], list[Outcome]]:
        """As much of the pending as makes a group; outcomes are those of fetches that gave up."""
        writes: list[Call | Publish] = []
        fetches: list[Fetch] = []
        outcomes: list[Outcome] = []
        weight = 0
        while self._pending and weight < GROUP:
            item = self._pending[0]
            if isinstance(item, Close) or (isinstance(item, Call) and item.after_fetches and fetches):
                break
            self._pending.popleft()
            weight += item.weight
            if isinstance(item, Fetch):
                fetches.append(item)
            elif isinstance(item, GiveUp):
                self._give_up(item.fetch, outcomes)
            elif isinstance(item, Look):
                self._look(store, item.nums)
            else:
                writes.append(item)
        return writes, fetches, outcomes

    def _give_up(self, fetch: Fetch, outcomes: list[Outcome]) -> None:
        fetch.waits = False
        parked = self._parked.get(fetch.num, []) if fetch.num is not None else []
        if fetch in parked:
            parked.remove(fetch)
            outcomes.append((fetch, [], None))

    def _look(self, store: Store, nums: set[int] | None) -> None:
        if nums is None:
            try:
                version = store.db.pragma("data_version")
            except apsw.Error:  # whoever asks for something will be told
                return
            if version == self._version:
                return
            self._version = version
            nums = {wake.EVERYWHERE}
            self._grew = True  # perhaps: readers look for themselves
        self._again |= self._parked.keys() if wake.EVERYWHERE in nums else nums & self._parked.keys()

    def _unpark(self, nums: Iterable[int]) -> list[Fetch]:
        return [fetch for num in nums for fetch in self._parked.pop(num, ())]

    def _park(self, store: Store, fetch: Fetch) -> None:
        fetch.num = store.registry.nums.get(fetch.id, 0)
        self._parked.setdefault(fetch.num, []).append(fetch)

    def _needed(self, store: Store, fetches: list[Fetch], outcomes: list[Outcome]) -> list[Fetch]:
        """The fetches that would write; the others are parked or answered without a transaction."""
        if not fetches:
            return []
        try:
            store.registry.refresh(store.db, store.me)
        except Exception as error:  # noqa: BLE001 - whoever asked gets it
            outcomes += [(fetch, None, translated(error, store.db)) for fetch in fetches]
            return []
        needed = []
        for fetch in fetches:
            try:
                if fetch.id not in store.registry.nums or entries.wanted(store, fetch.id):
                    needed.append(fetch)
                elif fetch.waits and fetch.limit > 0:
                    self._park(store, fetch)
                else:
                    outcomes.append((fetch, [], None))
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                outcomes.append((fetch, None, translated(error, store.db)))
        return needed

    def _tell(self, store: Store, outcomes: list[Outcome]) -> None:
        """Answer the loop, then ring the other processes."""
        news, self._news = self._news, set()
        grew, self._grew = self._grew, False
        self._deliver(Answer(outcomes, grew, store.due, bool(self._parked)))
        if not news and not grew:
            return
        for peer in store.registry.peers:
            wanted = news & peer.serves | ({wake.GREW} if grew and peer.follows else set())
            if wanted:
                self._bell.ring((peer.port,), wake.pack(store.registry.epoch, wanted))

    # ------------------------------------------------------------------------------------------------ transactions

    def _commit(self, store: Store, writes: list[Call | Publish], fetches: list[Fetch]) -> list[Outcome]:
        """All in one transaction; if that fails, each in its own, so that one cannot spoil the others."""
        jobs: list[Job] = [*writes, *fetches]
        try:
            return self._transaction(store, writes, fetches)
        except _SHARED_TROUBLE as error:
            return [(job, None, translated(error, store.db)) for job in jobs]
        except Exception as error:  # noqa: BLE001 - it goes to whom it belongs
            if len(jobs) == 1:
                return [(jobs[0], None, translated(error, store.db))]
        outcomes: list[Outcome] = []
        for write in writes:
            outcomes += self._commit(store, [write], [])
        for fetch in fetches:
            outcomes += self._commit(store, [], [fetch])
        return outcomes

    def _transaction(self, store: Store, writes: list[Call | Publish], fetches: list[Fetch]) -> list[Outcome]:
        """One transaction; it has either happened, durably, or raised and not happened."""
        unparked: list[Fetch] = []
        idle: list[Fetch] = []
        progress: list[tuple[Publish, list[Appended]]] = []
        store.db.execute("BEGIN IMMEDIATE")
        try:
            store.begin()
            outcomes = self._write(store, writes, progress)
            woken = set(store.woken)
            unparked = self._unpark(woken)
            outcomes += self._fetch(store, fetches + unparked, idle)
            store.db.execute("COMMIT")
        except BaseException:
            for fetch in unparked:
                self._park(store, fetch)
            self._roll_back(store)
            raise
        for fetch in idle:
            self._park(store, fetch)
        self._again |= store.woken - woken
        self._committed(store)
        for job, appended in reversed(progress):
            job.results += appended
            if job.weight:
                self._pending.appendleft(job)
            else:
                outcomes.append((job, job.results, None))
        return outcomes

    def _committed(self, store: Store) -> None:
        self._news |= store.woken
        self._grew |= store.grew
        store.committed()

    @staticmethod
    def _roll_back(store: Store) -> None:
        # After some errors SQLite has rolled back by itself; after an I/O error even this may fail.
        with contextlib.suppress(apsw.Error):
            if store.db.in_transaction:
                store.db.execute("ROLLBACK")
        store.forget()

    def _write(
        self, store: Store, writes: list[Call | Publish], progress: list[tuple[Publish, list[Appended]]]
    ) -> list[Outcome]:
        """Carry out all but the fetches; publishes that stand together are one insert."""
        outcomes: list[Outcome] = []
        together: list[Publish] = []
        for job in writes:
            if isinstance(job, Publish):
                together.append(job)
                continue
            outcomes += self._publish(store, together, progress)
            together = []
            try:
                outcomes.append((job, job.run(store), None))
            except BusError as error:  # an answer, not a failure: what was done before it stays
                outcomes.append((job, None, error))
        return outcomes + self._publish(store, together, progress)

    def _publish(
        self, store: Store, jobs: list[Publish], progress: list[tuple[Publish, list[Appended]]]
    ) -> list[Outcome]:
        if not jobs:
            return []
        if not self._has_room():
            return [(job, None, StorageFull("the disk is full but for what acknowledging needs")) for job in jobs]
        parts: list[tuple[Publish, Sequence[Any]]] = []
        room = GROUP
        for job in jobs:
            done = len(job.results)
            parts.append((job, job.events[done : done + room]))
            room -= len(parts[-1][1])
        appended = log.publish(store, [event for _, events in parts for event in events])
        at = 0
        for job, events in parts:
            progress.append((job, appended[at : at + len(events)]))
            at += len(events)
        return []

    def _has_room(self) -> bool:
        """Whether the disk has more than what is kept for acknowledgements.

        Besides, each page of the write-ahead log may need its place in the file: while it cannot be brought there, the
        write-ahead log grows with everything that is written, acknowledgements too.
        """
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize > reserve(found) + self._pages * _PAGE_BYTES

    @staticmethod
    def _fetch(store: Store, fetches: list[Fetch], idle: list[Fetch]) -> list[Outcome]:
        """Lease for these, first come first served; `idle` gets those that go on waiting."""
        outcomes: list[Outcome] = []
        dry: set[str] = set()
        for fetch in fetches:
            was_parked = fetch.num is not None
            try:
                if was_parked and fetch.num not in store.serving and fetch.id in store.registry.nums:
                    outcomes.append((fetch, [], None))  # detached while it waited
                    continue
                if was_parked and fetch.id in dry and fetch.waits:
                    idle.append(fetch)
                    continue
                leases = entries.fetch(store, fetch.id, fetch.limit)
                if leases or not fetch.waits or fetch.limit <= 0:
                    outcomes.append((fetch, leases, None))
                else:
                    dry.add(fetch.id)
                    idle.append(fetch)
            except BusError as error:  # PositionLost has written that it was told
                outcomes.append((fetch, None, error))
        return outcomes

    # ------------------------------------------------------------------------------------------------ by itself

    def _try_to_keep_house(self, store: Store) -> None:
        try:
            self._keep_house(store)
        except Exception as error:
            _logger.warning(
                "the log cannot be kept in order now: %s", error, exc_info=not isinstance(error, apsw.Error)
            )
            store.due = store.clock.monotonic() + _TROUBLE_SECONDS

    def _keep_house(self, store: Store) -> None:
        """What is due by itself: presence, ended leases, due retries and delayed events, limits."""
        store.db.execute("BEGIN IMMEDIATE")
        try:
            more = self._due(store)
            store.db.execute("COMMIT")
        except BaseException:
            self._roll_back(store)
            raise
        store.due = store.clock.monotonic() if more else self._next_due(store)
        self._again |= store.woken
        self._committed(store)

    def _due(self, store: Store) -> bool:
        now = store.clock.monotonic()
        if now >= store.beat_at or not store.me:
            store.beat()
        store.begin()
        if store.returned:
            subscriptions.declare_again(store)
        more = [entries.expire(store), log.release(store), entries.revive(store)]
        if now >= self._janitor_at or store.untidy:
            store.untidy = False
            more.append(retention.step(store))
            self._janitor_at = now if more[-1] else now + _JANITOR_SECONDS
        return any(more)

    def _next_due(self, store: Store) -> float:
        until, retry, delayed = one(
            store.db,
            "SELECT (SELECT min(until) FROM lease), (SELECT min(due) FROM retry), "
            "(SELECT min(due) FROM delayed WHERE gone IS NULL)",
        )
        monotonic, now = store.clock.monotonic(), store.clock.time()
        times = [store.beat_at, until] + [monotonic + due - now for due in (retry, delayed) if due is not None]
        if retention.limited(store):
            times.append(self._janitor_at)
        return float(min(time for time in times if time is not None))

    def _checkpoint(self, db: apsw.Connection) -> None:
        """Bring the write-ahead log's pages into the file.

        When there are too many, readers that take turns are waited for, in which time no process can write. One that
        stays for long (a backup) is not to stop everybody: the next such wait comes when there are twice as many.
        """
        pages, self._pages = self._pages, 0
        if pages < _WAL_PAGES_TOO_MANY:
            self._too_many = _WAL_PAGES_TOO_MANY
        if pages < self._too_many:
            self._try_checkpoint(db, apsw.SQLITE_CHECKPOINT_PASSIVE)
            return
        db.set_busy_handler(BusyWait(_RESTART_SECONDS))
        try:
            done = self._try_checkpoint(db, apsw.SQLITE_CHECKPOINT_RESTART)
        finally:
            db.set_busy_handler(BusyWait(BUSY_SECONDS))
        self._too_many = _WAL_PAGES_TOO_MANY if done else 2 * pages

    @staticmethod
    def _try_checkpoint(db: apsw.Connection, mode: int) -> bool:
        try:
            db.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError):
            return False  # another process is at it, or reads
        except apsw.Error as error:
            _logger.warning("the write-ahead log cannot be brought into the file now: %s", error)
            return False
        return True

    def _finish(self, store: Store) -> None:
        """Say good-bye: what was asked for before is done, whoever still waits is told."""
        outcomes: list[Outcome] = [
            (fetch, None, Closed("this broker was closed")) for fetch in self._unpark(list(self._parked))
        ]
        try:
            store.db.execute("BEGIN IMMEDIATE")
            store.begin()
            subscriptions.leave(store)
            store.db.execute("COMMIT")
            self._committed(store)
        except apsw.Error as error:
            _logger.warning("this instance cannot say that it leaves; others notice in a while: %s", error)
            self._roll_back(store)
        self._tell(store, outcomes)
