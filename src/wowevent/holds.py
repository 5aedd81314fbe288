"""What is paused, and what that holds: a subscription, an agent's, a topic's, a conversation's events, or everything.

    everything, agent, subscription     close the valve of whoever serves:      `closing`
    topic, conversation                 hold single events, the others go on:   `holding`

No I/O. A pause with an end is over by the clock of whoever asks, whether or not anybody has taken it away.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from math import inf
from typing import Final, Literal

from msgspec import Struct

from wowevent.clock import Clock
from wowevent.event import Event
from wowevent.topic import Trie

Scope = Literal["subscription", "agent", "topic", "conversation", "everything"]

EVERYTHING: Final = ""
"""The name of the pause of everything."""
_AGAIN: Final = (1.0, 30.0)  # seconds, first and longest, after which a held event is looked at again
_GROWS: Final = 4.0  # so many times the wait is as long as the pause has lasted


class Pause(Struct, frozen=True, kw_only=True):
    """One pause that is in force."""

    scope: Scope
    """Of what it is a pause."""
    name: str
    """A subscription's id, an agent, a pattern of topics, a correlation id; empty for everything."""
    since: float
    """Unix seconds."""
    until: float | None = None
    """Unix seconds; None: until somebody resumes it."""
    reason: str = ""
    by: str = ""
    """Who asked for it, as far as that is known."""


def said(pause: Pause) -> dict[str, str]:
    """What a log line says of it, where there is something to say."""
    until = None if pause.until is None else datetime.fromtimestamp(pause.until, UTC).isoformat(timespec="seconds")
    found = {"scope": pause.scope, "name": pause.name, "until": until, "reason": pause.reason, "by": pause.by}
    return {name: value for name, value in found.items() if value}


class Holds:
    """The pauses that are known here."""

    def __init__(self, clock: Clock) -> None:
        self.active: bool = False
        """Whether single events are held at all: asked before each event is looked at."""
        self.broad: bool = False
        """Whether anything is paused beyond single subscriptions."""
        self._clock = clock
        self._pauses: dict[tuple[Scope, str], Pause] = {}
        self._topics: Trie[str] = Trie()

    # --- what is known ------------------------------------------------------------------------------------------

    def put(self, pause: Pause) -> None:
        """It is in force; the newest of a scope and name holds."""
        self._pauses[pause.scope, pause.name] = pause
        if pause.scope == "topic":
            self._topics.add(pause.name, pause.name)
        self._note()

    def drop(self, scope: Scope, name: str) -> Pause | None:
        """It is no longer; the pause that it was."""
        pause = self._pauses.pop((scope, name), None)
        if pause is not None and scope == "topic":
            self._topics.remove(name, name)
        self._note()
        return pause

    def get(self, scope: Scope, name: str) -> Pause | None:
        """That pause, if it is in force."""
        pause = self._pauses.get((scope, name))
        return None if pause is None or self._over(pause) else pause

    def all(self) -> Sequence[Pause]:
        """Those in force, by scope and name."""
        return [self._pauses[key] for key in sorted(self._pauses) if not self._over(self._pauses[key])]

    def ended(self) -> Sequence[Pause]:
        """Those that are over, now no longer known."""
        over = [pause for pause in self._pauses.values() if self._over(pause)]
        for pause in over:
            self.drop(pause.scope, pause.name)
        return over

    def next_end(self) -> float | None:
        """Seconds until one of them is over by itself."""
        ends = [pause.until for pause in self._pauses.values() if pause.until is not None]
        return max(0.0, min(ends) - self._clock.time()) if ends else None

    # --- what that holds ----------------------------------------------------------------------------------------

    def closing(self, id: str, agent: str) -> Pause | None:
        """What keeps all events from a subscription, of that agent if it has one."""
        return self.get("everything", EVERYTHING) or self.get("subscription", id) or self.get("agent", agent)

    def holding(self, event: Event) -> Pause | None:
        """What keeps this event from whoever it is for, though others come."""
        patterns = (self.get("topic", name) for name in self._topics.match(event.topic))
        return self.get("conversation", event.correlation_id) or next(filter(None, patterns), None)

    def stops(self, agent: str, event: Event) -> Pause | None:
        """What keeps an event from a subscription of that agent for which nothing is remembered."""
        return self.get("everything", EVERYTHING) or self.get("agent", agent) or self.holding(event)

    def again(self, pause: Pause) -> float:
        """Seconds after which an event that it holds is looked at again: the longer it lasts, the more seldom."""
        now = self._clock.time()
        wait = min(max(_AGAIN[0], (now - pause.since) / _GROWS), _AGAIN[1])
        left = inf if pause.until is None else pause.until - now
        return max(0.0, min(wait, left))

    def _over(self, pause: Pause) -> bool:
        return pause.until is not None and self._clock.time() >= pause.until

    def _note(self) -> None:
        scopes = {scope for scope, _ in self._pauses}
        self.active = bool(scopes & {"topic", "conversation"})
        self.broad = bool(scopes - {"subscription"})
