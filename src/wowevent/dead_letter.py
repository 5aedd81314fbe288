"""Dead letters: list, group, count, redeliver, discard; resend, corrected."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from heapq import nsmallest
from typing import Any, Final

from msgspec import Struct

from wowevent.broker import Broker, DeadLetter, DeadQuery, Discard, Reason, Redeliver, Subscription
from wowevent.clock import Clock
from wowevent.errors import DeadLetterNotFound, InvalidEvent, SubscriptionConflict, SubscriptionNotFound, shown
from wowevent.event import Event
from wowevent.fingerprint import Grouping, LetterGroups, fingerprint
from wowevent.log import logger
from wowevent.resent import Resent, corrected, corrected_id
from wowevent.routing import matches
from wowevent.step import whole

TOGETHER: Final = 500
"""Letters of one call of the engine."""
LONGEST: Final = 500
"""Characters of the reason for a correction, and of the name of who made it."""

_TOLD: Final = 10  # ids of an error
_TURN: Final = 100  # letters that are looked at before others get their turn on the loop

Where = Callable[[DeadLetter], bool]
"""Whether a letter is meant, by what no filter says."""
Progress = Callable[[int, int], object]
"""Told how many letters were looked for, and how many of them were there."""


class LetterCount(Struct, frozen=True):
    """How many letters there are."""

    count: int
    by_subscription: dict[str, int]


class Correction(Struct, frozen=True):
    """What became of a letter that was sent again, corrected."""

    event_id: str
    """Of the event that stands for it now."""
    replaces: str
    """The id of the event that could not be handled."""
    duplicate: bool
    """The letter had been sent before, by somebody who could not take it away: nothing was added."""


class DeadLetters:
    """The dead letters of a bus, kept by its engine."""

    def __init__(
        self,
        broker: Broker,
        clock: Clock,
        ids_of: Callable[[str], Awaitable[Sequence[str]]],
        *,
        model: Callable[[Event], Event],
        send: Callable[[Sequence[Event]], Awaitable[Sequence[Any]]],
    ) -> None:
        """`ids_of` resolves a name to subscription ids: an id is itself, an agent is all of its subscriptions.

        `model` is an event as a publish would store it, checked; `send` publishes it.
        """
        self._broker = broker
        self._clock = clock
        self._ids_of = ids_of
        self._model = model
        self._send = send

    # --- look ---------------------------------------------------------------------------------------------------

    async def list(
        self,
        *,
        subscription: str | None = None,
        reason: Reason | str | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        fingerprint: str | None = None,
        where: Where | None = None,
        limit: int = 100,
    ) -> Sequence[DeadLetter]:
        """Those that fit every given filter, oldest first. `subscription` is an id or an agent's name."""
        filters: dict[str, Any] = {
            "subscription": subscription,
            "reason": reason,
            "event_id": event_id,
            "correlation_id": correlation_id,
        }
        found: list[DeadLetter] = []
        if fingerprint is None and where is None:
            for query in await self._queries(**filters, limit=limit):
                found += await self._broker.dead(query)
            return nsmallest(limit, found, key=_age)
        async with aclosing(self._each(**filters, fingerprint=fingerprint, where=where)) as letters:
            async for letter in letters:
                found.append(letter)
                if len(found) > 2 * limit:  # no more are kept than are asked for, or about so many
                    found = nsmallest(limit, found, key=_age)
        return nsmallest(limit, found, key=_age)

    async def groups(self, *, limit: int = 100, **filters: Any) -> LetterGroups:
        """What the letters that fit died of: a group for each error, the largest first. Filters are those of `list`.

        However many letters there are, what is kept of them is bounded: `more` says that groups were left out.
        """
        grouping = Grouping()
        async with aclosing(self._each(**filters)) as letters:
            async for letter in letters:
                grouping.add(letter)
        return grouping.groups(limit)

    async def ids(self, **filters: Any) -> Sequence[str]:
        """The ids of all that fit the filters of `list`, oldest first; without any, of all there are."""
        async with aclosing(self._each(**filters)) as letters:
            found = [(letter.time, letter.id) async for letter in letters]
        found.sort(key=lambda each: each[0])
        return [id for _, id in found]

    async def count(self, ids: Iterable[str] | str | None = None, **filters: Any) -> LetterCount:
        """How many `redeliver` or `discard` would find of the same ids or filters; of neither, all."""
        counts: Counter[str] = Counter()
        if ids is None:
            async with aclosing(self._each(**filters)) as letters:
                async for letter in letters:
                    counts[letter.subscription] += 1
        else:
            counts.update(letter.subscription for letter in await named(self._broker, ids))
        return LetterCount(counts.total(), dict(counts.most_common()))

    # --- resolve ------------------------------------------------------------------------------------------------

    async def redeliver(
        self,
        ids: Iterable[str] | str | None = None,
        *,
        rate: float | None = None,
        progress: Progress | None = None,
        **filters: Any,
    ) -> int:
        """Hand letters to their subscriptions again, with fresh attempts, marked as redelivered; returns how many.

        Takes ids, or the filters of `list`; without either, nothing is sent. `rate` is how many a second at most: which
        ones is settled when it begins. `progress(tried, redelivered)` is told after each step, of which one a second is
        taken; a cancellation is heeded between steps.
        """
        if rate is not None and not 0 < rate < float("inf"):
            raise ValueError(f"rate: {rate!r} is not a number of letters a second, above 0")
        chosen = await self._chosen(ids, filters)
        tried = done = 0

        async def send(part: Sequence[str]) -> None:
            nonlocal tried, done
            done += await self._broker.resolve([Redeliver(id) for id in part])
            tried += len(part)
            if progress is not None:
                progress(tried, done)

        for part in _parts(chosen, TOGETHER if rate is None else max(1, int(rate))):
            began = self._clock.monotonic()
            await whole(send(part))
            if rate is not None and tried < len(chosen):
                await self._clock.sleep(max(0.0, began + len(part) / rate - self._clock.monotonic()))
        return done

    async def discard(self, ids: Iterable[str] | str | None = None, **filters: Any) -> int:
        """Forget letters, named as in `redeliver`; returns how many."""
        chosen = await self._chosen(ids, filters)
        return sum([await self._broker.resolve([Discard(id) for id in part]) for part in _parts(chosen)])

    async def resend(self, id: str, payload: Any, *, reason: str = "", by: str = "") -> Correction:
        """Send the event of a letter again with another payload, to the letter's subscription alone; the letter goes.

        It is a new event of the log, `replay_of` the other one, with a header that says for whom, why and `by` whom.
        Its id comes from the letter, so that doing it again, after a crash too, adds nothing while the engine knows the
        id; and a handler that heeds ids knows it for ever. Raises DeadLetterNotFound; InvalidEvent before anything is
        stored; SubscriptionConflict where the subscription would not get it; and what `publish` raises.
        """
        if max(len(reason), len(by)) > LONGEST:
            raise InvalidEvent(f"reason, by: at most {LONGEST} characters")
        found = await self._broker.dead(DeadQuery(ids=(id,), limit=1))
        if not found:
            raise DeadLetterNotFound(f"there is no dead letter {shown(id)}")
        (letter,) = found
        old = letter.event
        new = corrected_id(letter.id, letter.subscription, old.event_id, letter.time)
        mark = Resent(new, letter.subscription, letter.id, _plain(by), _plain(reason))
        now = datetime.fromtimestamp(self._clock.time(), UTC)
        event = self._model(corrected(old, payload, mark, now))
        _check_reaches(await self._spec(letter.subscription), event)
        (receipt,) = await self._send([event])
        if not await self._broker.resolve([Discard(letter.id)]):
            logger.warning("dead_letter was resent, and somebody else took it, too", letter=letter.id, event_id=new)
        return Correction(new, old.event_id, receipt.duplicate)

    async def _spec(self, id: str) -> Subscription:
        if (info := await self._broker.info(id)) is None:
            raise SubscriptionNotFound(f"no subscription {shown(id)} is remembered")
        return info.subscription

    # --- which ones ---------------------------------------------------------------------------------------------

    async def _chosen(self, ids: Iterable[str] | str | None, filters: dict[str, Any]) -> Sequence[str]:
        if ids is not None:
            return _ids(ids)
        return await self.ids(**filters) if any(filters.values()) else []

    async def _each(
        self, *, fingerprint: str | None = None, where: Where | None = None, **filters: Any
    ) -> AsyncGenerator[DeadLetter]:
        """Those that fit, in no order, without having all of them in memory."""
        for query in await self._queries(**filters):
            async with aclosing(self._broker.letters(query)) as pages:
                async for page in pages:
                    for number, letter in enumerate(page, 1):
                        if not number % _TURN:
                            await asyncio.sleep(0)
                        if _died_of(letter, fingerprint) and (where is None or where(letter)):
                            yield letter

    async def _queries(
        self,
        *,
        subscription: str | None = None,
        reason: Reason | str | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        limit: int = 100,
    ) -> Sequence[DeadQuery]:
        return [
            DeadQuery(
                subscription=id,
                reason=None if reason is None else Reason(reason),
                event_id=event_id,
                correlation_id=correlation_id,
                limit=limit,
            )
            for id in ([None] if subscription is None else await self._ids_of(subscription))
        ]


async def named(broker: Broker, ids: Iterable[str] | str) -> Sequence[DeadLetter]:
    """The letters of these ids that are there, each once; asked for as many at a time as one answer may have."""
    queries = [DeadQuery(ids=tuple(part), limit=TOGETHER) for part in _parts(_ids(ids))]
    return [letter for query in queries for letter in await broker.dead(query)]


async def all_named(broker: Broker, ids: Iterable[str], where: Where | None = None) -> list[DeadLetter]:
    """The letters of these ids, each once, in their order; DeadLetterNotFound unless all are there, and are meant."""
    wanted = _ids(ids)
    there = {each.id: each for each in await named(broker, wanted) if where is None or where(each)}
    if missing := [id for id in wanted if id not in there]:
        raise DeadLetterNotFound(f"there is no dead letter {', '.join(map(shown, missing[:_TOLD]))}")
    return [there[id] for id in wanted]


def _check_reaches(spec: Subscription, event: Event) -> None:
    """SubscriptionConflict unless the subscription, as it is declared now, gets the event: else nobody would."""
    if not matches(spec, event):
        raise SubscriptionConflict(
            f"{spec.id!r} does not want {event.topic!r} any more, as it is declared now; it can be redelivered as it is"
        )


def _died_of(letter: DeadLetter, mark: str | None) -> bool:
    return mark is None or fingerprint(letter) == mark


def _ids(ids: Iterable[str] | str) -> list[str]:
    """The ids, each once."""
    return [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))


def _parts(ids: Sequence[str], size: int = TOGETHER) -> Iterable[Sequence[str]]:
    size = min(size, TOGETHER)
    return (ids[start : start + size] for start in range(0, len(ids), size))


def _age(letter: DeadLetter) -> float:
    return letter.time


def _plain(text: str) -> str:
    """What a header can hold."""
    return "".join(each if each.isprintable() else " " for each in text).strip()
