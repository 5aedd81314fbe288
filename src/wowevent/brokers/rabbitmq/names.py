"""What exchanges, queues and streams are called, and the keys by which queues are bound.

    agent_events            topic exchange; the routing key is {topic}.{band}      (agent_events.{namespace} elsewhere)
    agent_events#reserved   topic exchange of the topics that begin with _, which `#` must not catch
    agent_events#live       topic exchange of what is not stored: replies, presence
    agent_events_dlx        direct exchange of the dead letters; the key is the subscription
    agent_events#history    stream of all events;   agent_events#control   stream of declarations and facts
    agent_events#later      queue of what is delayed
    Q, Q#urgent             the lanes of subscription Q; Q#suspect and dlq.Q are made when they are needed

`#` is in no name that a user can give, so none of ours is ever one of theirs. The driver takes few characters in a
name: in a subscription's, others are written as `+` and their code. Those of another namespace begin with
`#{namespace}#`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from itertools import groupby
from typing import Final

from wowevent.broker import URGENT, Subscription
from wowevent.topic import compile_pattern

_LOW: Final = ("low", "normal")
_BANDS: Final = {"low": range(1, 4), "normal": range(4, URGENT), "high": range(URGENT, 9), "critical": range(9, 11)}
_OTHERS: Final = re.compile(r"[^A-Za-z0-9_.:@/-]")
_LONGEST: Final = 255  # bytes of a name
_NAMESPACE: Final = 100  # of them for a namespace: the driver takes 127 for an exchange
_HASHES: Final = 2  # in a binding's key
_HASH: Final = 24  # digits

Binding = tuple[str, str]
"""An exchange and a key."""


class Names:
    """The names of one namespace."""

    def __init__(self, namespace: str) -> None:
        if len(namespace) > _NAMESPACE:
            namespace = f"{namespace[: _NAMESPACE - _HASH - 1]}+{_digest(namespace)}"
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
        # First of all, so that urgent of the namespace x is not the urgent lane of x, nor ever begins with amq.
        self._prefix = "" if namespace == "default" else f"#{namespace}#"
        self._room = _LONGEST - len(f"{self.events}#lock.+")  # what adds most to a subscription's part

    def exchange(self, topic: str) -> str:
        """Where an event of that topic, or a binding of that pattern, belongs."""
        return self.reserved if topic.startswith("_") else self.events

    def plain(self, id: str) -> str:
        """The queue of a subscription."""
        return self._prefix + self._part(id)

    def urgent(self, id: str) -> str:
        """The queue of its urgent lane."""
        return f"{self.plain(id)}#urgent"

    def suspects(self, id: str) -> str:
        """The queue of what is delivered alone."""
        return f"{self.plain(id)}#suspect"

    def dead(self, id: str) -> str:
        """The queue of its dead letters."""
        return f"{self._prefix}dlq.{self._part(id)}"

    def lock(self, what: str) -> str:
        """The exclusive queue that one connection at a time can have."""
        return f"{self.events}#lock.{self._part(what)}"

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

    def _part(self, id: str) -> str:
        part = _OTHERS.sub(_code, id)
        if len(part) > self._room:
            part = f"{part[: self._room - _HASH - 2]}+-{_digest(id)}"
        # amq. is the server's own, and dlq.x would be the dead letters of x.
        return f"+{part}" if part.startswith(("amq.", "dlq.")) else part


def _digest(name: str) -> str:
    return blake2b(name.encode(), digest_size=_HASH // 2).hexdigest()


def _code(found: re.Match[str]) -> str:
    return "".join(f"+{byte:02X}" for byte in found[0].encode())


def _wanted(subscription: Subscription) -> list[str]:
    wish = None if subscription.filter is None else subscription.filter.priorities
    return [band for band, levels in _BANDS.items() if wish is None or wish.intersection(levels)]


def _keys(pattern: str, band: str, *, keyed: bool) -> set[str]:
    """The binding keys for what a pattern matches within one band."""
    words = list(compile_pattern(pattern, amqp=keyed))
    # The key itself, and the topic alone where the type differs: that is looked at when it is fetched.
    keys = [*_within(words, band), [*words, band]] if keyed else [[*words, band]]
    return {".".join(_cheap(key)) for key in keys}


def _cheap(key: list[str]) -> list[str]:
    """With so few `#` that they cost the server little: it tries each with every rest of what is published."""
    if key.count("#") <= 1:
        return key
    found: list[str] = []
    for wild, run in groupby(key, key=("*", "#").__contains__):  # `#.*.#` is `*.#`
        words = list(run)
        found += ["*"] * words.count("*") + ["#"] * ("#" in words) if wild else words
    return found if found.count("#") <= _HASHES else [*found[: found.index("#") + 1], found[-1]]


def _within(words: list[str], band: str) -> list[list[str]]:
    """Patterns for what AMQP-style `words` match among the keys that end with `band`."""
    if not words:
        return []
    *rest, last = words
    if last == "#":
        return [[*words, band], *_within(rest, band)]
    return [[*rest, band]] if last in ("*", band) else []
