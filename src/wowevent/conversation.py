"""A conversation as a tree: who caused what, when, and what failed; pure.

Each event stands under the one that it names as its parent. What names one that is not among them (the log let it go,
it belongs to another conversation, or who asks may not see it) is an orphan, and stands under the root: the event that
the conversation is named after, or else the first that has no parent. So does the first event of a ring, which only
forged parents make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from msgspec import Struct

from wowevent.broker import DeadLetter, Reason, Stored
from wowevent.errors import ConversationNotFound, printable, shown
from wowevent.event import Event


class FailedDelivery(Struct, frozen=True, kw_only=True):
    """One subscription could not handle an event: a dead letter that is there now."""

    id: str
    """The dead letter's."""
    subscription: str
    reason: Reason
    error: str
    attempts: int
    """How many failed."""
    time: float
    """When it was buried, Unix seconds."""


class Step(Struct, frozen=True, kw_only=True):
    """One event of a conversation, at its place in the tree."""

    event_id: str
    depth: int
    """How many events stand above it."""
    cause: str | None
    """The event above it; None at the top."""
    parent_event_id: str | None
    """The event that it names itself."""
    orphan: bool
    """It stands there because the event that it names is not among these."""
    topic: str
    event_type: str
    source_agent: str
    target_agent: str | None
    hops: int
    timestamp: datetime
    """The event's own time."""
    time: float
    """When it was stored, Unix seconds; its own time if the log has it no more."""
    after: float | None
    """Seconds after its cause; None at the top and for an orphan."""
    delayed_until: datetime | None
    """It was published earlier, to be sent then."""
    position: str | None
    """None: the log has it no more, and a dead letter has kept it."""
    replay_of: str | None
    """It is a replay of that event."""
    failures: tuple[FailedDelivery, ...]


class Conversation(Struct, frozen=True, kw_only=True):
    """All that is known of what belongs together."""

    id: str
    """The correlation id."""
    steps: tuple[Step, ...]
    """Cause before effect, and what has one cause in the order of the log: the tree, a line each."""
    agents: tuple[str, ...]
    """Who published, in the order of their first events."""
    started: float
    """When the first event was stored, Unix seconds,"""
    ended: float
    """and the last one."""
    failures: int
    """Dead letters."""
    orphans: int
    """Events whose cause is not in the log any more."""
    replays: int
    """Events that repeat one that was published before."""
    unreadable: int
    """Events that are damaged, or of a newer version, and left out."""
    more: bool
    """There may be more events, or dead letters, than were asked for: the last ones are left out."""

    @property
    def seconds(self) -> float:
        """From the first event to the last one."""
        return self.ended - self.started


class Found(Struct, frozen=True, kw_only=True):
    """What a conversation is made of."""

    id: str
    stored: Sequence[Stored]
    letters: Sequence[DeadLetter] = ()
    unreadable: int = 0
    more: bool = False


class _Seen(Struct, frozen=True, gc=False):
    """An event, by the log or by a dead letter."""

    event: Event
    time: float
    position: str | None


def unknown(id: str) -> ConversationNotFound:
    """What is raised for an id that leads to no conversation."""
    return ConversationNotFound(f"no event is known by {shown(id)}, nor is anything of that correlation id")


def conversation(found: Found) -> Conversation:
    """The tree of what was found; ValueError if nothing was."""
    events = _events(found)
    if not events:
        raise ValueError("a conversation has an event")
    causes, orphans = _causes(found.id, {id: seen.event.parent_event_id for id, seen in events.items()})
    failures = _failures(found.letters)
    steps = tuple(
        _step(
            events[id],
            depth=depth,
            above=None if (cause := causes[id]) is None else events[cause],
            orphan=id in orphans,
            failures=failures.get(id, ()),
        )
        for id, depth in _walk(causes)
    )
    times = [seen.time for seen in events.values()]
    return Conversation(
        id=found.id,
        steps=steps,
        agents=tuple(dict.fromkeys(agent for seen in events.values() if (agent := seen.event.source_agent))),
        started=min(times),
        ended=max(times),
        failures=sum(len(step.failures) for step in steps),
        orphans=len(orphans),
        replays=sum(step.replay_of is not None for step in steps),
        unreadable=found.unreadable,
        more=found.more,
    )


def _events(found: Found) -> dict[str, _Seen]:
    """Each event once, in the order of the log; where the log has it no more, in that of the times."""
    events: dict[str, _Seen] = {}
    for stored in found.stored:
        events.setdefault(stored.event.event_id, _Seen(stored.event, stored.stored_at, str(stored.position)))
    for letter in found.letters:
        event = letter.event
        events.setdefault(event.event_id, _Seen(event, event.timestamp.timestamp(), None))
    return dict(sorted(events.items(), key=lambda each: each[1].time))  # the log's times do not decrease


def _causes(root: str, parents: Mapping[str, str | None]) -> tuple[dict[str, str | None], set[str]]:
    """What each stands under, None at the top; and which ones are orphans."""
    causes = {id: parent if parent in parents else None for id, parent in parents.items()}
    for id in _ring_ends(causes):
        causes[id] = None
    top = [id for id, cause in causes.items() if cause is None]
    orphans = {id for id in top if parents[id] is not None}
    if root not in top:
        root = next((id for id in top if id not in orphans), "")
    if root:
        causes |= dict.fromkeys(orphans - {root}, root)
    return causes, orphans


def _ring_ends(causes: Mapping[str, str | None]) -> set[str]:
    """The first event of each ring."""
    order = {id: place for place, id in enumerate(causes)}
    ends, done = set[str](), set[str]()
    for start in causes:
        path: dict[str, None] = {}
        at: str | None = start
        while at is not None and at not in done and at not in path:
            path[at] = None
            at = causes[at]
        if at is not None and at in path:
            walked = list(path)
            ends.add(min(walked[walked.index(at) :], key=order.__getitem__))
        done |= path.keys()
    return ends


def _walk(causes: Mapping[str, str | None]) -> list[tuple[str, int]]:
    """Each event with its depth, cause before effect."""
    effects: dict[str | None, list[str]] = {}
    for id, cause in causes.items():
        effects.setdefault(cause, []).append(id)
    walked: list[tuple[str, int]] = []
    left = [(id, 0) for id in reversed(effects.get(None, ()))]
    while left:
        id, depth = left.pop()
        walked.append((id, depth))
        left += [(effect, depth + 1) for effect in reversed(effects.get(id, ()))]
    return walked


def _failures(letters: Sequence[DeadLetter]) -> dict[str, list[FailedDelivery]]:
    """By event, oldest first."""
    found: dict[str, list[FailedDelivery]] = {}
    for letter in sorted(letters, key=lambda each: each.time):
        failure = FailedDelivery(
            id=letter.id,
            subscription=letter.subscription,
            reason=letter.reason,
            error=printable(letter.error),
            attempts=len(letter.attempts),
            time=letter.time,
        )
        found.setdefault(letter.event.event_id, []).append(failure)
    return found


def _step(seen: _Seen, *, depth: int, above: _Seen | None, orphan: bool, failures: Sequence[FailedDelivery]) -> Step:
    event = seen.event
    return Step(
        event_id=event.event_id,
        depth=depth,
        cause=None if above is None else above.event.event_id,
        parent_event_id=event.parent_event_id,
        orphan=orphan,
        topic=event.topic,
        event_type=event.kind,
        source_agent=event.source_agent,
        target_agent=event.target_agent,
        hops=event.hops,
        timestamp=event.timestamp,
        time=seen.time,
        after=None if above is None or orphan else round(seen.time - above.time, 6),
        delayed_until=event.not_before,
        position=seen.position,
        replay_of=event.replay_of,
        failures=tuple(failures),
    )
