"""The names of what the engine makes on a server, and how patterns become its filters; pure.

A namespace K has five streams, and every subject begins with `wow.K.`:

    log      u.TOPIC  n.TOPIC      what was published: priority 7 and up, and the rest
             U.TOPIC  N.TOPIC      the same, of topics that begin with `_`, which a `>` must not catch
    again    a.S.s  a.S.u  a.S.n   what comes to the subscription S once more: suspects, and the two lanes
    later    l.e.ID  l.r.S.ID      what is delayed: events, retries of S
    dead     d.S.ID                dead letters of S
    control  c.…                   what all instances must know, c.i.… what each says of itself; k.… their locks

What is not stored goes by `wow.K.p.TOPIC`.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import Final

from wowevent.broker import LIVE, URGENT, Subscription
from wowevent.event import Event
from wowevent.topic import compile_pattern, is_reserved

SUSPECTS: Final = "s"
"""The lane of what is delivered alone."""
LANES: Final = "un"
"""The lanes of the log, urgent first; in capitals, those of reserved topics."""
_SAFE: Final = re.compile(r"(?!.*-[0-9a-f]{16}\Z)[A-Za-z0-9_-]{1,40}")  # none that ends as one with a digest does
_DIGESTED: Final = re.compile(r"[A-Za-z0-9_-]{1,24}-[0-9a-f]{16}")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9_-]+")


def word(name: str) -> str:
    """A name as one word of a subject, or of a stream or a consumer: itself if it can be, else with a digest."""
    if _SAFE.fullmatch(name):
        return name
    return f"{_UNSAFE.sub('_', name)[:24]}-{blake2b(name.encode(), digest_size=8).hexdigest()}"


def lane_of(event: Event) -> str:
    """The lane of the log that an event goes by."""
    lane = LANES[event.priority < URGENT]
    return lane.upper() if is_reserved(event.topic) else lane


class Names:
    """Of one namespace."""

    def __init__(self, namespace: str) -> None:
        """`namespace` is a name as `check_name` knows it."""
        key = word(namespace)
        self.prefix: str = f"wow.{key}."
        self.log: str = f"wow-{key}-log"
        self.again: str = f"wow-{key}-again"
        self.later: str = f"wow-{key}-later"
        self.dead: str = f"wow-{key}-dead"
        self.control: str = f"wow-{key}-control"

    def stream_of(self, subject: str) -> str:
        """Which stream has what is published there."""
        kind = subject[len(self.prefix)]
        found = {"a": self.again, "l": self.later, "d": self.dead, "c": self.control, "k": self.control}
        return found.get(kind, self.log)

    def event(self, event: Event) -> str:
        """Where an event is published."""
        if event.topic.startswith(LIVE):
            return self.live(event.topic)
        return f"{self.prefix}{lane_of(event)}.{event.topic}"

    def live(self, topic: str) -> str:
        """The path of what is not stored."""
        return f"{self.prefix}p.{topic}"

    def topic(self, subject: str) -> str:
        """The topic of an event's subject."""
        return subject[len(self.prefix) + 2 :]

    def once_more(self, id: str, lane: str) -> str:
        """Where a subscription finds what comes to it again."""
        return f"{self.prefix}a.{word(id)}.{lane}"

    def is_once_more(self, subject: str) -> bool:
        """Whether it is such a one."""
        head, _, rest = subject.partition(f"{self.prefix}a.")
        id, _, lane = rest.partition(".")
        return not head and bool(_SAFE.fullmatch(id) or _DIGESTED.fullmatch(id)) and lane in (SUSPECTS, *LANES)

    def held(self, event_id: str) -> str:
        """Where an event waits until it is published."""
        return f"{self.prefix}l.e.{word(event_id)}"

    def retries(self, id: str) -> str:
        """Where a subscription's retries wait: `{this}.{number}`."""
        return f"{self.prefix}l.r.{word(id)}"

    def letters(self, id: str) -> str:
        """Where its dead letters lie: `{this}.{letter}`."""
        return f"{self.prefix}d.{word(id)}"

    def subscription(self, id: str) -> str:
        """Where the control stream has it."""
        return f"{self.prefix}c.s.{word(id)}"

    def fact(self, topic: str) -> str:
        """Where it has a fact that the log's limits took from the log."""
        return f"{self.prefix}c.f.{topic}"

    def lock(self, what: str) -> str:
        """Where a lock is."""
        return f"{self.prefix}k.{word(what)}"

    def consumer(self, id: str, lane: str) -> str:
        """The name of a subscription's consumer of a lane."""
        return f"{word(id)}-{lane}"

    def filters(self, subscription: Subscription, lane: str) -> set[str]:
        """The subjects of a lane that hold all that it wants there, or more. Of an exclusive one, of both lanes."""
        found: set[str] = set()
        lanes = LANES if subscription.exclusive else lane
        for pattern in subscription.patterns:
            own = lanes.upper() if is_reserved(pattern) else lanes
            for subject in _subjects(pattern, keyed=subscription.keyed):
                found.update(f"{self.prefix}{one}.{subject}" for one in own)
        return found


def _subjects(pattern: str, *, keyed: bool) -> set[str]:
    """What holds all topics that a pattern matches, as the server writes it, or more."""
    words = compile_pattern(pattern, amqp=keyed)
    found = _superset(words)
    if keyed:  # the last word of its key is the band, unless it is the topic alone that matches
        while words[-1:] == ("#",):  # which may be no word at all
            words = words[:-1]
        if len(words) > 1:
            found |= _superset(words[:-1])
    return found


def _superset(words: tuple[str, ...]) -> set[str]:
    if "#" not in words:
        return {".".join(words)}
    at = words.index("#")
    head, tail = words[:at], words[at:]
    if head[-1:] == ("*",) and set(tail) == {"#"}:  # one word or more
        return {".".join((*head[:-1], ">"))}
    if not head:
        return {">"}
    bare = {".".join(head)} if set(tail) == {"#"} else set()  # `a.#` holds `a` itself, which `a.>` does not
    return {".".join((*head, ">"))} | bare


def distinct(subjects: set[str]) -> list[str]:
    """Without those that another one holds: the server refuses them."""
    found = sorted(subjects)
    return [one for one in found if not any(other != one and holds(other, one) for other in found)]


def holds(wide: str, narrow: str) -> bool:
    """Whether every subject that matches `narrow` matches `wide`."""
    a, b = wide.split("."), narrow.split(".")
    for at, each in enumerate(a):
        if each == ">":
            return len(b) > at
        if at >= len(b) or b[at] == ">" or each not in ("*", b[at]):
            return False
    return len(a) == len(b)
