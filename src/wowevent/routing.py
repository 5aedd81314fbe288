"""Which subscriptions an event goes to: patterns, target, filters; for the engines that route by themselves."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct, structs

from wowevent.broker import Filter, Subscription
from wowevent.errors import InvalidTopic, StorageDamaged
from wowevent.event import Event
from wowevent.resent import RESENT, resent_of
from wowevent.topic import Trie, check_pattern, matches_key
from wowevent.topic import matches as matches_topic

_CACHE = 10_000


class _Spec(Struct, frozen=True, omit_defaults=True):
    """A subscription as an engine keeps it: all but the id, which it is found by, and the start, which is past."""

    patterns: tuple[str, ...]
    agent: str = ""
    filter: Filter | None = None
    durable: bool = True
    exclusive: bool = False
    keyed: bool = False
    lease: float = 30.0


_encoder: Final = msgspec.json.Encoder(order="deterministic")  # so that equal specs are equal texts
_decoder: Final = msgspec.json.Decoder(_Spec)


def spec_of(subscription: Subscription) -> str:
    """The text of a declaration."""
    fields = {name: getattr(subscription, name) for name in _Spec.__struct_fields__}
    return _encoder.encode(_Spec(**fields)).decode()


def subscription_of(id: str, spec: str) -> Subscription:
    """The declaration of a row; StorageDamaged if it cannot be one."""
    try:
        found = _decoder.decode(spec)
        for pattern in found.patterns:
            check_pattern(pattern)
    except (msgspec.MsgspecError, TypeError, UnicodeError, InvalidTopic) as error:
        raise StorageDamaged(f"the declaration of subscription {id!r} is not what was written") from error
    return Subscription(id=id, **structs.asdict(found))


class Routes:
    """The known subscriptions, found by event. Costs by what matches, not by what is known."""

    def __init__(self) -> None:
        self._known: dict[str, Subscription] = {}
        self._topics: Trie[str] = Trie()
        self._keys: Trie[str] = Trie(amqp=True)
        self._keyed = 0
        # topic -> (may all of them be taken as they are, the candidates)
        self._cache: dict[str, tuple[bool, tuple[str, ...]]] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._known

    def get(self, id: str) -> Subscription | None:
        """The declaration of that id."""
        return self._known.get(id)

    def all(self) -> list[Subscription]:
        """Every declaration, in the order of their arrival."""
        return list(self._known.values())

    def add(self, subscription: Subscription) -> None:
        """Take in a declaration; the newest of an id replaces the one before."""
        for pattern in subscription.patterns:
            check_pattern(pattern)  # before anything changes
        self.remove(subscription.id)
        self._known[subscription.id] = subscription
        self._keyed += subscription.keyed
        for pattern in subscription.patterns:
            self._trie(subscription).add(pattern, subscription.id)
        self._cache.clear()

    def remove(self, id: str) -> None:
        """Forget a declaration; unknown ids are ignored."""
        subscription = self._known.pop(id, None)
        if subscription is None:
            return
        self._keyed -= subscription.keyed
        for pattern in subscription.patterns:
            self._trie(subscription).remove(pattern, id)
        self._cache.clear()

    def match(self, event: Event) -> tuple[str, ...]:
        """The ids of the subscriptions that this event goes to."""
        found = self._cache.get(event.topic)
        if found is None:
            found = self._look_up(event.topic)
        all_taken, ids = found
        if not all_taken or event.target_agent is not None or RESENT in event.head:
            ids = tuple(id for id in ids if wants(self._known[id], event))
        return ids if not self._keyed else ids + self._match_keys(event)

    def _match_keys(self, event: Event) -> tuple[str, ...]:
        ids = dict.fromkeys(id for key in _keys(event) for id in self._keys.match(key))
        return tuple(id for id in ids if wants(self._known[id], event))

    def _look_up(self, topic: str) -> tuple[bool, tuple[str, ...]]:
        if len(self._cache) >= _CACHE:  # topics that carry an id must not grow it without bound
            self._cache.clear()
        ids = tuple(self._topics.match(topic))
        found = all(self._known[id].filter is None for id in ids), ids
        self._cache[topic] = found
        return found

    def _trie(self, subscription: Subscription) -> Trie[str]:
        return self._keys if subscription.keyed else self._topics


def wants(subscription: Subscription, event: Event) -> bool:
    """Whether target and filters let this event through; its topic is known to match."""
    if event.target_agent is not None and event.target_agent != subscription.agent:
        return False
    if RESENT in event.head and (resent := resent_of(event)) is not None and resent.to != subscription.id:
        return False
    return fits(subscription.filter, event)


def fits(wish: Filter | None, event: Event) -> bool:
    """Whether a filter lets this event through, whoever it is for."""
    return wish is None or (
        (wish.types is None or event.kind in wish.types)
        and (wish.priorities is None or event.priority in wish.priorities)
        and (wish.sources is None or event.source_agent in wish.sources)
    )


def matches(subscription: Subscription, event: Event) -> bool:
    """Whether a single subscription gets this event, topic included: what `Routes.match` finds, for one."""
    names, fits = (_keys(event), matches_key) if subscription.keyed else ((event.topic,), matches_topic)
    return wants(subscription, event) and any(fits(p, name) for p in subscription.patterns for name in names)


def _keys(event: Event) -> tuple[str, ...]:
    """What AMQP-style patterns match: the routing key, and the topic alone if the publisher gave one of its own."""
    return (event.routing_key,) if event.topic == event.kind else (event.routing_key, event.topic)
