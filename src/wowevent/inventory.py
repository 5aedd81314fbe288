"""What the engine remembers, asked for by name: an id is itself, an agent's name stands for all that it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from msgspec import structs

from wowevent.broker import Broker, Subscription, SubscriptionInfo
from wowevent.errors import SubscriptionConflict, SubscriptionNotFound, Unroutable
from wowevent.event import Event
from wowevent.routing import Routes


class Inventory:
    """The questions of one bus to its engine that take a name."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def ids(self, name: str) -> Sequence[str]:
        """The subscriptions of a name; none if it is unknown."""
        return [spec.id for spec in await self._named(name)]

    async def lasting(self, name: str) -> Sequence[str]:
        """The subscriptions of a name that events wait for.

        SubscriptionNotFound for an unknown one, SubscriptionConflict where all of them are live.
        """
        specs = await self._named(name)
        if not specs:
            raise _unknown(name)
        ids = [spec.id for spec in specs if spec.durable]
        if not ids:
            raise SubscriptionConflict(f"{name!r} is live: nothing waits for it")
        return ids

    async def info(self, name: str) -> SubscriptionInfo | None:
        """The numbers of a name, summed where it has several subscriptions; None if it is unknown."""
        infos = [info for id in await self.ids(name) if (info := await self._broker.info(id)) is not None]
        if len(infos) <= 1:
            return infos[0] if infos else None
        ages = [info.oldest for info in infos if info.oldest is not None]
        sums = {key: sum(getattr(i, key) or 0 for i in infos) for key in ("ready", "leased", "delayed", "dead", "lost")}
        return structs.replace(
            infos[0],
            **sums,
            consumers=max(info.consumers for info in infos),
            oldest=max(ages, default=None),
            lapsed=any(info.lapsed for info in infos),
        )

    async def purge(self, name: str) -> int:
        """Drop what is ready for a name; returns how many. SubscriptionNotFound."""
        ids = await self.ids(name)
        if not ids:
            raise _unknown(name)
        return sum([await self._broker.purge(id) for id in ids])

    async def require_match(self, events: Iterable[Event]) -> None:
        """Unroutable unless each of them would go to somebody."""
        routes = Routes()
        for present in await self._broker.presence():
            routes.add(present.subscription)
        for event in events:
            if not routes.match(event):
                raise Unroutable(f"no subscription is known to match {event.topic!r}")

    async def _named(self, name: str) -> Sequence[Subscription]:
        known = [present.subscription for present in await self._broker.presence()]
        return [spec for spec in known if spec.id == name] or [spec for spec in known if spec.agent == name]


def _unknown(name: str) -> SubscriptionNotFound:
    return SubscriptionNotFound(f"no subscription or agent {name!r} is remembered")
