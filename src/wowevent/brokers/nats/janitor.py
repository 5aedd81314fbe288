"""The log's limits. What goes unread is counted, and told to who would have had it; facts are kept."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol

from msgspec import structs

from wowevent.broker import CONTROL, Retention
from wowevent.brokers.nats.consumers import Consumers, unread
from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.history import epoch_of
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.locks import Locks
from wowevent.brokers.nats.names import LANES, Names
from wowevent.brokers.nats.registry import Known, Registry
from wowevent.brokers.nats.stream import Item, Pages, read_all
from wowevent.brokers.nats.tags import copied, tag_of
from wowevent.clock import Clock
from wowevent.errors import StorageFull
from wowevent.log import logger
from wowevent.presence import Presence
from wowevent.tag import Tag

_LOCK: Final = "trim"
_OVERHEAD: Final = 40  # bytes that the server adds to each message, at least


class State(Protocol):
    """What the janitor needs of a session."""

    link: Link
    names: Names
    control: Control
    locks: Locks
    registry: Registry
    presence: Presence
    clock: Clock
    consumers: Consumers


class Janitor:
    """Of one instance; whoever is first does it."""

    def __init__(self, state: State, retention: Retention) -> None:
        """Nothing is done before it is asked for."""
        self._state = state
        self._retention = retention

    async def trim(self) -> None:
        """Let go of what lies before the limits."""
        limits, state = self._retention, self._state
        if limits.max_age is limits.max_bytes is limits.max_count is None:
            return
        found = (await state.link.ask(f"STREAM.INFO.{state.names.log}"))["state"]
        first, last = int(found["first_seq"]), int(found["last_seq"])
        if not int(found["messages"]):
            return
        upto = await self._aged_or_many(first, int(found["bytes"]))
        if limits.max_count is not None and last - limits.max_count >= first:
            upto = max(upto, min(last - limits.max_count + 1, await self._unread(last)))
        if upto <= first or not await self._alone():
            return
        try:
            kept = await self._keep_facts(upto)
            lost = await self._losses(upto)
            await self._purge(upto, facts=kept)
            await self._tell(lost)
        finally:
            await state.locks.free(_LOCK)

    async def _alone(self) -> bool:
        """Whether nobody else does it just now, so that what is lost is counted once. Where nothing can be written, go.

        Else a store that is full would stay so, whatever the limits say.
        """
        try:
            return await self._state.locks.lock(_LOCK)
        except StorageFull as error:
            logger.debug("the log's limits are kept without a lock", error=error)
            return True

    async def _aged_or_many(self, first: int, size: int) -> int:
        """The first sequence that stays, by age and bytes."""
        limits, state = self._retention, self._state
        over = 0 if limits.max_bytes is None else size - limits.max_bytes
        since = 0.0 if limits.max_age is None else state.clock.time() - limits.max_age
        if over <= 0:  # of what is young nothing else has to be read
            oldest = await state.link.get(state.names.log, seq=first)
            if oldest is None or tag_of(oldest.headers).at >= since:
                return first
        subjects = [f"{state.names.prefix}{lane}.>" for lane in (*LANES, *LANES.upper())]
        pages = Pages(state.link, state.names.log, subjects, first)
        upto = first
        try:
            while page := await pages.next():
                for item in page:
                    if over <= 0 and tag_of(item.headers).at >= since:
                        return upto
                    over -= len(item.body) + len(item.headers) + len(item.subject) + _OVERHEAD
                    upto = item.seq + 1
        finally:
            await pages.close()
        return upto

    async def _unread(self, last: int) -> int:
        """The first sequence that some subscription has not left behind."""
        floors = [last + 1]
        for known in list(self._state.registry.known.values()):
            wanted = self._state.consumers.wanted(known, of_log=True)
            floors += [unread(state, known, last) for state in await self._state.consumers.states(wanted)]
        return min(floors)

    async def _losses(self, upto: int) -> dict[str, int]:
        """How many that lie before `upto` were given to nobody of each subscription."""
        state, found = self._state, dict[str, int]()
        for known in list(state.registry.known.values()):
            wanted = state.consumers.wanted(known, of_log=True)
            for consumer, (_, config) in zip(await state.consumers.states(wanted), wanted, strict=True):
                given = int(consumer["delivered"]["stream_seq"]) if consumer else 0
                first = max(given, known.done, known.begins - 1) + 1
                if first < upto:
                    more = await self._count(config["filter_subjects"], first, upto)
                    found[known.id] = found.get(known.id, 0) + more
        return found

    async def _count(self, filters: list[str], first: int, upto: int) -> int:
        count, pages = 0, Pages(self._state.link, self._state.names.log, filters, first, headers_only=True)
        try:
            while (page := await pages.next()) and page[0].seq < upto:
                count += sum(item.seq < upto for item in page)
        finally:
            await pages.close()
        return count

    async def _tell(self, losses: dict[str, int]) -> None:
        for id, lost in losses.items():
            if lost:
                logger.error("the log's limits took unread events", subscription=id, lost=lost)
                await self._state.control.change(id, partial(_losing, lost))

    async def _keep_facts(self, upto: int) -> bool:
        """The newest of each topic that goes, where it stays; False: there is no room for them."""
        state, names = self._state, self._state.names
        subjects = [f"{names.prefix}{lane}.{CONTROL}>" for lane in LANES.upper()]
        newest = await read_all(state.link, names.log, subjects, deliver_policy="last_per_subject")
        going = [item for item in newest if item.seq < upto]
        try:
            await self.keep(going)
        except StorageFull as error:
            logger.debug("facts stay in the log until there is room for them elsewhere", error=error)
            return False
        return True

    async def _purge(self, upto: int, *, facts: bool) -> None:
        """What lies before is gone; without `facts` those stay, until there is room to keep them."""
        link, names = self._state.link, self._state.names
        if facts:
            await link.ask(f"STREAM.PURGE.{names.log}", seq=upto)
            return
        for lane in LANES:
            await link.ask(f"STREAM.PURGE.{names.log}", filter=f"{names.prefix}{lane}.>", seq=upto)

    async def keep(self, items: Sequence[Item]) -> None:
        """These, in their order: of a topic's two lanes the newer one stays."""
        state, names = self._state, self._state.names
        copies = [
            copied(names.fact(names.topic(item.subject)), item.body, _fact(item, state.registry))
            for item in sorted(items, key=lambda item: item.seq)
        ]
        await state.link.store(copies)

    async def lapse(self, id: str) -> None:
        """Nobody has served it for too long."""
        state = self._state
        await state.control.sync()
        known = state.registry.known.get(id)
        if known is None or known.lapsed or state.presence.consumers(id):
            return
        if state.clock.time() - known.at < self._retention.unserved_after:
            return
        await state.control.note(id, lapsed=True, untold=True)
        await state.consumers.unmake(id)
        logger.error("subscription lapsed, nobody served it", subscription=id)


def _losing(lost: int, known: Known | None) -> Known | None:
    return None if known is None else structs.replace(known, lost=known.lost + lost, untold=True)


def _fact(item: Item, registry: Registry) -> Tag:
    """Where it was, and in which log."""
    return Tag(at=tag_of(item.headers).at, place=item.seq, copy=epoch_of(registry))
