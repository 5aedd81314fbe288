"""What somebody may do: rights by topic pattern, and how much of it."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from wowevent.errors import NotPermitted, shown
from wowevent.topic import covers

RIGHTS: Final = ("publish", "subscribe", "replay", "dead_letters", "admin")
"""What can be granted, each for topic patterns; `admin` for all or nothing."""

EVERYTHING: Final = "#"
"""The pattern of who names none. It does not cover the bus's own topics, `_…`."""


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much one identity may do; None is no bound of its own."""

    events: str | None = None
    """Events it may publish, as `"100/s"`."""
    clients: int | None = None
    """Its sockets and streams at once."""
    subscriptions: int | None = None
    """Of one socket."""


class Identity(Struct, frozen=True):
    """Who asks, as a token says it."""

    name: str
    """The agent that it is: `source_agent` of everything that it publishes."""
    token_id: str
    namespace: str | None = None
    """None is the one that is served."""
    grants: dict[str, tuple[str, ...]] = {}
    """Topic patterns by right."""
    expires: float | None = None
    """Unix seconds."""
    limits: Limits = Limits()

    def may(self, right: str, *patterns: str) -> bool:
        """Whether each pattern lies within one that is granted; without patterns, whether everything is granted."""
        granted = self.grants.get(right, ())
        return all(any(covers(each, wanted) for each in granted) for wanted in patterns or (EVERYTHING,))

    def check(self, right: str, *patterns: str) -> None:
        """NotPermitted, which names the right and the pattern, unless `may`."""
        for wanted in patterns or (EVERYTHING,):
            if not self.may(right, wanted):
                raise NotPermitted(f"this token does not grant {right} on {shown(wanted)}")
