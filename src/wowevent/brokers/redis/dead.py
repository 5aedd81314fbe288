"""Dead letters: a stream for each subscription, read by pages."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final

from msgspec import structs

from wowevent.broker import DeadLetter, DeadQuery, Discard, Redeliver
from wowevent.brokers.redis.entries import letter_of
from wowevent.brokers.redis.session import Session
from wowevent.reading import asked_for

_PAGE: Final = 100


async def found(session: Session, query: DeadQuery) -> list[DeadLetter]:
    """See Broker."""
    await session.fold()
    nums = {num: id for id, num in session.registry.nums.items() if query.subscription in (None, id)}
    letters: list[DeadLetter] = []
    if query.ids is not None:
        for place in map(_place, dict.fromkeys(query.ids)):
            if place is not None and place[0] in nums:
                letters += await _of(session, place[0], nums[place[0]], query, only=place[1])
    else:
        for num, id in nums.items():
            letters += await _of(session, num, id, query)
    letters.sort(key=lambda letter: letter.time)
    return letters[: query.limit]


async def every(session: Session, query: DeadQuery) -> AsyncGenerator[Sequence[DeadLetter]]:
    """Those that were asked for, whatever the limit, by pages."""
    await session.fold()
    for id, num in list(session.registry.nums.items() if query.ids is None else ()):
        if query.subscription in (None, id):
            async with aclosing(_pages(session, num, id, query)) as pages:
                async for page in pages:
                    yield page
    if query.ids is not None:
        yield await found(session, structs.replace(query, limit=len(query.ids)))


async def resolve(session: Session, orders: Sequence[Redeliver | Discard]) -> int:
    """See Broker."""
    parts: list[Any] = []
    for order in orders:
        place = _place(order.id)
        if place is not None:
            parts += (*place, int(isinstance(order, Redeliver)))
    return int(await session.call("resolve", *parts)) if parts else 0


async def _of(session: Session, num: str, id: str, query: DeadQuery, only: str | None = None) -> list[DeadLetter]:
    letters: list[DeadLetter] = []
    async with aclosing(_pages(session, num, id, query, only)) as pages:
        async for page in pages:
            letters += page
            if len(letters) >= query.limit:
                break
    return letters


async def _pages(
    session: Session, num: str, id: str, query: DeadQuery, only: str | None = None
) -> AsyncGenerator[list[DeadLetter]]:
    """Those of one subscription that were asked for, oldest first."""
    first = only or "-"
    while True:
        page = await session.line.call("XRANGE", f"{session.key}:q:{num}:dead", first, only or "+", "COUNT", _PAGE)
        letters = [letter_of(f"{num}.{entry.decode()}", id, fields) for entry, fields in page]
        yield [letter for letter in letters if asked_for(query, letter)]
        if only or len(page) < _PAGE:
            return
        first = f"({page[-1][0].decode()}"


def _place(id: str) -> tuple[str, str] | None:
    """Number of the subscription and stream id of a letter's id; None for what is none of ours."""
    num, _, entry = id.partition(".")
    at, _, sequence = entry.partition("-")
    fits = all(part.isascii() and part.isdigit() and len(part) < 20 for part in (num, at, sequence))
    return (num, entry) if fits else None
