"""Dead letters: list, redeliver, discard."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Iterable, Sequence

from wowevent.broker import Broker, DeadLetter, DeadQuery, Discard, Reason, Redeliver

_PAGE = 500


class DeadLetters:
    """The dead letters of a bus, kept by its engine."""

    def __init__(self, broker: Broker, ids_of: Callable[[str], Awaitable[Sequence[str]]]) -> None:
        """`ids_of` resolves a name to subscription ids: an id is itself, an agent is all of its subscriptions."""
        self._broker = broker
        self._ids_of = ids_of

    async def list(
        self,
        *,
        subscription: str | None = None,
        reason: Reason | str | None = None,
        event_id: str | None = None,
        correlation_id: str | None = None,
        limit: int = 100,
    ) -> Sequence[DeadLetter]:
        """Those that fit every given filter, oldest first. `subscription` is an id or an agent's name."""
        names = [None] if subscription is None else await self._ids_of(subscription)
        found: list[DeadLetter] = []
        for name in names:
            query = DeadQuery(
                subscription=name,
                reason=None if reason is None else Reason(reason),
                event_id=event_id,
                correlation_id=correlation_id,
                limit=limit,
            )
            found += await self._broker.dead(query)
        return sorted(found, key=lambda letter: letter.time)[:limit]

    async def redeliver(self, ids: Iterable[str] | str | None = None, **filters: str | None) -> int:
        """Hand letters to their subscriptions again, with fresh attempts, marked as redelivered; returns how many.

        Takes ids, or the filters of `list`; without either, nothing is sent.
        """
        return await self._broker.resolve([Redeliver(id) for id in await self._ids(ids, filters)])

    async def discard(self, ids: Iterable[str] | str | None = None, **filters: str | None) -> int:
        """Forget letters, named as in `redeliver`; returns how many."""
        return await self._broker.resolve([Discard(id) for id in await self._ids(ids, filters)])

    async def _ids(self, ids: Iterable[str] | str | None, filters: dict[str, str | None]) -> builtins.list[str]:
        if ids is not None:
            return [ids] if isinstance(ids, str) else list(ids)
        if not any(filters.values()):
            return []
        return [letter.id for letter in await self.list(**filters, limit=2**31)]
