"""Dead letters: one message each, by subscription. To send one again, it is first written as one that goes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from heapq import nsmallest
from typing import Final

from wowevent.broker import URGENT, DeadLetter, DeadQuery, Discard, Redeliver
from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.faults import WRONG_SEQUENCE, is_missing, refusal
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.names import Names, word
from wowevent.brokers.nats.stream import Item, Pages
from wowevent.brokers.nats.tags import copied, expecting, tag_of
from wowevent.codec import decode
from wowevent.errors import BrokerError, BusError
from wowevent.event import Event
from wowevent.log import logger
from wowevent.reading import asked_for
from wowevent.tag import Tag


class Letters:
    """The dead letters of a namespace."""

    def __init__(self, link: Link, names: Names, control: Control, again: Callable[[str], Awaitable[None]]) -> None:
        """`again` has consumers for what comes to a subscription once more."""
        self._again = again
        self._link = link
        self._names = names
        self._control = control

    async def find(self, query: DeadQuery) -> Sequence[DeadLetter]:
        """See Broker."""
        found: list[DeadLetter] = []
        async with aclosing(self.all(query)) as pages:
            async for page in pages:
                found += page
                if len(found) > 2 * query.limit:  # no more are kept than are asked for, or about so many
                    found = nsmallest(query.limit, found, key=_time)
        return nsmallest(query.limit, found, key=_time)

    async def all(self, query: DeadQuery) -> AsyncGenerator[list[DeadLetter]]:
        """See Broker."""
        ids = {word(id): id for id in self._control.registry.known}
        subjects = self._subjects(query, ids)
        if not subjects:
            return
        pages = Pages(self._link, self._names.dead, subjects)
        try:
            while page := await pages.next():
                yield [letter for each in page if (letter := self._letter(each, ids)) and asked_for(query, letter)]
        finally:
            await pages.close()

    def _subjects(self, query: DeadQuery, ids: dict[str, str]) -> list[str]:
        prefix = f"{self._names.prefix}d."
        if query.ids is not None:
            places = [place for id in dict.fromkeys(query.ids) if (place := self._place(id, ids))]
            return places[:1_000] if len(places) <= 1_000 else [f"{prefix}>"]
        if query.subscription is not None:
            return [f"{self._names.letters(query.subscription)}.>"] if query.subscription in ids.values() else []
        return [f"{prefix}>"]

    def _place(self, letter: str, ids: dict[str, str]) -> str:
        """The subject of a letter's id; nothing if it cannot be one."""
        owner, _, key = letter.rpartition("-")
        return f"{self._names.prefix}d.{owner}.{key}" if owner in ids and key.isascii() and key.isalnum() else ""

    def _letter(self, item: Item, ids: dict[str, str]) -> DeadLetter | None:
        owner, _, key = item.subject[len(self._names.prefix) + 2 :].partition(".")
        if owner not in ids:
            return None
        tag = tag_of(item.headers)
        try:
            event = decode(item.body)
        except BusError:
            event = Event(topic="damaged", event_id=f"{owner}-{key}")
        return tag.letter_of(f"{owner}-{key}", event, ids[owner])

    async def resolve(self, orders: Sequence[Redeliver | Discard]) -> int:
        """See Broker."""
        ids = {word(id): id for id in self._control.registry.known}
        count = 0
        for order in {order.id: order for order in orders}.values():
            subject = self._place(order.id, ids)
            if subject:
                count += await self._resolve(order, subject, ids)
        return count

    async def _resolve(self, order: Redeliver | Discard, subject: str, ids: dict[str, str]) -> bool:
        found = await self._link.get(self._names.dead, subject=subject)
        if found is None:
            return False
        seq, body, tag = found.seq, found.body, tag_of(found.headers)
        if isinstance(order, Redeliver):
            claim = copied(subject, body, tag, more=expecting(seq))
            (confirm,) = await self._link.publish([claim])
            if confirm.error is not None:
                if confirm.error.get("err_code") != WRONG_SEQUENCE:
                    raise refusal(confirm.error)
                return False
            seq = confirm.seq
            await self._send(subject, body, tag, ids)
        try:
            await self._link.ask(f"STREAM.MSG.DELETE.{self._names.dead}", seq=seq, no_erase=True)
        except BrokerError as error:
            if not is_missing(error):
                raise
            return False
        return True

    async def _send(self, subject: str, body: bytes, tag: Tag, ids: dict[str, str]) -> None:
        _, owner, key = subject.rsplit(".", 2)
        id = ids[owner]
        await self._again(id)
        fresh = Tag(at=tag.at, place=tag.place, copy=tag.copy, redelivered=True)
        try:
            urgent = decode(body).priority >= URGENT
        except BusError as error:
            logger.debug("a letter cannot be read", error=error)
            urgent = False
        lane = "u" if urgent else "n"
        await self._link.store([copied(self._names.once_more(id, lane), body, fresh, f"{owner}-letter-{key}")])


def _time(letter: DeadLetter) -> float:
    return letter.time


async def count(link: Link, stream: str, subject: str) -> int:
    """How many messages lie under a subject, each of which has one of its own.

    The server lists 100,000 subjects at most, and always says how many there are: it is asked for those behind all.
    """
    answer = await link.ask(f"STREAM.INFO.{stream}", subjects_filter=subject, offset=_BEHIND_ALL)
    return int(answer["total"])


_BEHIND_ALL: Final = 2**31 - 1
