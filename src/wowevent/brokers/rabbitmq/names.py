"""What exchanges, queues and streams are called, and the keys by which queues are bound.

    agent_events            topic exchange; the routing key is {topic}.{band}      (agent_events.{namespace} elsewhere)
    agent_events#reserved   topic exchange of the topics that begin with _, which `#` must not catch
    agent_events#live       topic exchange of what is not stored: replies, presence
    agent_events_dlx        direct exchange of the dead letters; the key is the subscription
    agent_events#history    stream of all events;   agent_events#control   stream of declarations and facts
    agent_events#later      queue of what is delayed
    Q, Q#urgent             the lanes of subscription Q; Q#suspect and dlq.Q are made when they are needed

`#` is in no name that a user can give, so none of ours is ever one of theirs. The driver takes few characters in a
name: in a subscription's, others are written as `+` and their code.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from wowevent.broker import URGENT, Subscription
from wowevent.topic import compile_pattern

_LOW: Final = ("low", "normal")
_HIGH: Final = ("high", "critical")
_BANDS: Final = {"low": range(1, 4), "normal": range(4, URGENT), "high": range(URGENT, 9), "critical": range(9, 11)}
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_.:@/-]")
_LONGEST: Final = 180  # bytes of a subscription's part of a name, of the 255 that AMQP has

Binding = tuple[str, str]
"""An exchange and a key."""


class Names:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        own = "" if namespace == "default" else f".{namespace}"
        self.events: str = f"agent_events{own}"
        """The exchange that events are published to."""
        self.dead_letters: str = f"agent_events_dlx{own}"
        """The exchange of dead letters."""
        self.reserved: str = f"{self.events}#reserved"
        """The exchange of the topics that begin with an underscore."""
        self.live: str = f"{self.events}#live"
        """The exchange of what is not stored."""
        self.history: str = f"{self.events}#history"
        """The stream of all events."""
        self.control: str = f"{self.events}#control"
        """The stream of what all instances have to know."""
        self.later: str = f"{self.events}#later"
        """The queue of what is delayed."""
        self._prefix = "" if namespace == "default" else f"{namespace}#"

    def exchange(self, topic: str) -> str:
        """Where an event of that topic, or a binding of that pattern, belongs."""
        return self.reserved if topic.startswith("_") else self.events

    def plain(self, id: str) -> str:
        """The queue of a subscription."""
        return self._prefix + _part(id)

    def urgent(self, id: str) -> str:
        """The queue of its urgent lane."""
        return f"{self.plain(id)}#urgent"

    def suspects(self, id: str) -> str:
        """The queue of what is delivered alone."""
        return f"{self.plain(id)}#suspect"

    def dead(self, id: str) -> str:
        """The queue of its dead letters."""
        return f"{self._prefix}dlq.{_part(id)}"

    def lock(self, what: str) -> str:
        """The exclusive queue that one connection at a time can have."""
        return f"{self.events}#lock.{_part(what)}"

    def mailbox(self, instance: str) -> str:
        """The queue of what is said to one instance."""
        return f"{self.live}.{instance}"

    def bindings(self, subscription: Subscription) -> tuple[set[Binding], set[Binding]]:
        """Of the plain queue, and of the urgent one. They may catch more than is wanted, never less."""
        bands = _wanted(subscription)
        plain = {band for band in bands if subscription.exclusive or band in _LOW}
        found: tuple[set[Binding], set[Binding]] = (set(), set())
        for pattern in subscription.patterns:
            exchange = self.exchange(pattern)
            for band in bands:
                keys = _keys(pattern, band, keyed=subscription.keyed)
                found[band not in plain].update((exchange, key) for key in keys)
        return found


def _part(id: str) -> str:
    part = _OTHERS.sub(lambda found: f"+{ord(found[0]):02X}", id)
    if len(part) > _LONGEST:
        part = f"{part[: _LONGEST - 30]}+{blake2b(id.encode(), digest_size=12).hexdigest()}"
    # amq. is the server's own, and dlq.x would be the dead letters of x.
    return f"+{part}" if part.startswith(("amq.", "dlq.")) else part


def _wanted(subscription: Subscription) -> list[str]:
    wish = None if subscription.filter is None else subscription.filter.priorities
    return [band for band, levels in _BANDS.items() if wish is None or wish.intersection(levels)]


def _keys(pattern: str, band: str, *, keyed: bool) -> set[str]:
    """The binding keys for what a pattern matches within one band."""
    words = list(compile_pattern(pattern, amqp=keyed))
    if not keyed:
        return {".".join([*words, band])}
    # The key itself, and the topic alone where the type differs: that is looked at when it is fetched.
    return {".".join(key) for key in [*_within(words, band), [*words, band]]}


def _within(words: list[str], band: str) -> list[list[str]]:
    """Patterns for what AMQP-style `words` match among the keys that end with `band`."""
    if not words:
        return []
    *rest, last = words
    if last == "#":
        return [[*words, band], *_within(rest, band)]
    return [[*rest, band]] if last in ("*", band) else []
