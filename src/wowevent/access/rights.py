"""What somebody may do: rights by topic pattern, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from wowevent.errors import InvalidTopic, NotPermitted, shown
from wowevent.retry import parse_rate
from wowevent.topic import check_pattern, covers

RIGHTS: Final = ("publish", "subscribe", "replay", "dead_letters", "admin")
"""What can be granted, each for topic patterns; `admin` for all or nothing."""

EVERYTHING: Final = "#"
"""The pattern of who names none. It does not cover the bus's own topics, `_…`."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How much one identity may do of one process; None is no bound of its own."""

    events: str | None = None
    """Events that it may publish, as `"100/s"`."""
    requests: str | None = None
    """HTTP requests that it may make, as `"10/s"`."""
    clients: int | None = None
    """Its sockets at once, and its streams."""
    subscriptions: int | None = None
    """Of one socket."""


class Identity(Struct, frozen=True):
    """Who asks, as a token says it."""

    name: str
    """The agent that it is: `source_agent` of everything that it publishes."""
    token_id: str
    """Of a JWT its `jti`, empty without one."""
    namespace: str | None = None
    """None is the one that is served."""
    grants: Mapping[str, tuple[str, ...]] = {}
    """Topic patterns by right."""
    expires: float | None = None
    """Unix seconds."""
    limits: Limits = Limits()
    key: str | None = None
    """The key that signed a JWT; None for a token of the file."""
    seal: str = ""
    """What tells that key from another of its name."""

    def may(self, right: str, *patterns: str) -> bool:
        """Whether each pattern lies within one that is granted; without patterns, whether everything is granted."""
        granted = self.grants.get(right, ())
        return all(any(covers(each, wanted) for each in granted) for wanted in patterns or (EVERYTHING,))

    def check(self, right: str, *patterns: str) -> None:
        """NotPermitted, which names the right and the pattern, unless `may`."""
        for wanted in patterns or (EVERYTHING,):
            if not self.may(right, wanted):
                raise NotPermitted(f"this token does not grant {right} on {shown(wanted)}")


def check_grants(grants: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The grants themselves; ValueError, which says what is wrong, for an unknown right or what is no pattern."""
    for right, patterns in grants.items():
        if right not in RIGHTS:
            raise ValueError(f"{shown(right)} is not a right: {', '.join(RIGHTS)}")
        if right == "admin" and tuple(patterns) not in {(), (EVERYTHING,)}:
            raise ValueError(f'admin is for all or nothing: ["{EVERYTHING}"]')
        try:
            for pattern in patterns:
                check_pattern(pattern)
        except InvalidTopic as error:
            raise ValueError(f"{right}: {error}") from error
    return {right: tuple(patterns) for right, patterns in grants.items()}


def check_limits(limits: Limits) -> Limits:
    """The limits themselves; ValueError for what is no rate, or a number below 1."""
    for rate in (limits.events, limits.requests):
        if rate is not None:
            parse_rate(rate)
    if any(count is not None and count < 1 for count in (limits.clients, limits.subscriptions)):
        raise ValueError("limits: clients and subscriptions are 1 or more")
    return limits
