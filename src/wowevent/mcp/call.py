"""One call of a tool: who calls, what they may do and see, and the bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from msgspec import Struct

from wowevent.access import stamp
from wowevent.access.audit import audit, local_user
from wowevent.access.rates import Rates
from wowevent.access.rights import Identity
from wowevent.access.sight import sees_event
from wowevent.bus import EventBus
from wowevent.errors import NotPermitted, Unauthenticated, shown
from wowevent.event import Event
from wowevent.mcp.line import Line


class Caller(Struct, frozen=True):
    """Who calls: the user whose process this is, or who comes by HTTP, with a token or where none is asked for."""

    identity: Identity | None = None
    """Of a token; None: nobody was asked for one, and all is granted."""
    remote: bool = False
    """By HTTP: whoever reaches the port, unless a token says who it is."""
    stands: Callable[[], bool] = lambda: True
    """Whether the token still holds."""

    @property
    def who(self) -> Identity | None:
        """For the audit log; None for nobody that is known."""
        if self.identity is not None or self.remote:
            return self.identity
        return Identity(local_user() or "user", "")

    def has(self, rights: Sequence[str]) -> bool:
        """Whether one of the rights is granted at all; no rights is anybody."""
        return self.identity is None or not rights or any(self.identity.grants.get(each) for each in rights)


class Call(Struct, frozen=True):
    """What a tool is given beside its arguments."""

    caller: Caller
    line: Line
    rates: Rates

    @property
    def identity(self) -> Identity | None:
        """Who calls, by a token; None: nobody was asked for one."""
        return self.caller.identity

    async def bus(self) -> EventBus:
        """The running bus."""
        return await self.line.bus()

    def permit(self, right: str, *patterns: str) -> None:
        """NotPermitted unless each pattern is granted; no patterns is all there is."""
        identity = self.identity
        if identity is None:
            return
        if not patterns and not identity.may(right):
            granted = " or ".join(map(shown, identity.grants.get(right, ()))) or "nothing"
            raise NotPermitted(f"this token does not grant {right} on all topics; ask for {granted}")
        identity.check(right, *patterns)

    def permit_any(self, right: str) -> None:
        """NotPermitted unless it is granted at all, for whatever pattern."""
        if not self.caller.has((right,)):
            raise NotPermitted(f"this token does not grant {right}")

    def sees(self, right: str, event: Event) -> bool:
        """Whether an event may be seen: by its topic, and by whom it is for."""
        return sees_event(self.identity, right, event)

    def stamped(self, event: Event) -> Event:
        """The event as published by who calls; NotPermitted, RateLimited."""
        identity = self.identity
        if identity is None:
            return event
        identity.check("publish", event.topic)
        self.rates.spend(identity, "events")
        return stamp.stamped(event, identity)

    def check_standing(self) -> None:
        """Unauthenticated for a token that ended while the call took its time."""
        if not self.caller.stands():
            raise Unauthenticated("this token is not valid any more", "it ended during a call")

    def note(self, action: str, **facts: Any) -> None:
        """A line of the audit log."""
        audit(action, self.caller.who, by="mcp", **facts)
