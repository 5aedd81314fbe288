"""The tree of a conversation: as a table, and by properties."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent import Event
from wowevent.broker import Attempt, DeadLetter, Position, Reason, Stored
from wowevent.conversation import Conversation, Found, Step, conversation

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
ROOT = "root"


def stored(place: int, id: str, parent: str | None = None, **fields: Any) -> Stored:
    known: dict[str, Any] = {
        "event_id": id,
        "correlation_id": ROOT,
        "parent_event_id": parent,
        "timestamp": NOON,
        **fields,
    }
    return Stored(Event(topic="a", **known), Position("e", place), NOON.timestamp() + place)


def letter(event: Event, subscription: str = "worker", error: str = "no", tries: int = 2) -> DeadLetter:
    return DeadLetter(
        id=f"{subscription}-{event.event_id}",
        event=event,
        subscription=subscription,
        reason=Reason.HANDLER_ERROR,
        error=error,
        traceback="in work",
        attempts=tuple(Attempt(n + 1, 1.0, error) for n in range(tries)),
        time=10.0,
    )


def of(*pairs: tuple[str, str | None]) -> Conversation:
    return conversation(Found(id=ROOT, stored=[stored(n, *pair) for n, pair in enumerate(pairs, 1)]))


def drawn(found: Conversation) -> list[str]:
    """The tree as text: dots for the depth, a question mark for an orphan."""
    return [f"{'.' * step.depth}{step.event_id}{'?' * step.orphan}" for step in found.steps]


@pytest.mark.parametrize(
    ("pairs", "tree"),
    [
        ([(ROOT, None)], [ROOT]),
        ([(ROOT, None), ("a", ROOT), ("b", "a")], [ROOT, ".a", "..b"]),
        ([(ROOT, None), ("a", ROOT), ("b", ROOT), ("c", "a")], [ROOT, ".a", "..c", ".b"]),
        ([(ROOT, None), ("a", "gone"), ("b", "a"), ("c", ROOT)], [ROOT, ".a?", "..b", ".c"]),
        ([("a", "gone"), ("b", "a")], ["a?", ".b"]),
        ([("a", None), ("b", None), ("c", "gone")], ["a", ".c?", "b"]),
        ([("a", ROOT), (ROOT, None)], [ROOT, ".a"]),
        ([(ROOT, "gone"), ("a", ROOT), ("b", "gone")], [f"{ROOT}?", ".a", ".b?"]),
        ([(ROOT, None), ("a", "a")], [ROOT, ".a?"]),
        ([(ROOT, None), ("a", "b"), ("b", "a"), ("c", "b")], [ROOT, ".a?", "..b", "...c"]),
        ([(ROOT, "b"), ("a", ROOT), ("b", "a")], [f"{ROOT}?", ".a", "..b"]),
        ([("x", "y"), (ROOT, "x"), ("y", ROOT)], ["x?", f".{ROOT}", "..y"]),
    ],
    ids=str,
)
def test_where_each_event_stands(pairs: list[tuple[str, str | None]], tree: list[str]) -> None:
    assert drawn(of(*pairs)) == tree


def test_what_is_told_of_one_event() -> None:
    first = stored(1, ROOT, source_agent="planner", target_agent="worker")
    second = stored(3, "a", ROOT, hops=1, event_type="b", replay_of="z", not_before=NOON, source_agent="worker")
    found = conversation(Found(id=ROOT, stored=[first, second], letters=[letter(second.event)]))

    assert (found.id, found.agents, found.failures, found.orphans, found.replays) == (
        ROOT, ("planner", "worker"), 1, 0, 1,
    )  # fmt: skip
    assert (found.started, found.ended, found.seconds) == (NOON.timestamp() + 1, NOON.timestamp() + 3, 2.0)
    root, step = found.steps
    assert (root.cause, root.after, root.target_agent, root.failures) == (None, None, "worker", ())
    assert (step.cause, step.parent_event_id, step.after, step.hops) == (ROOT, ROOT, 2.0, 1)
    assert (step.topic, step.event_type, step.source_agent) == ("a", "b", "worker")
    assert (step.position, step.replay_of, step.delayed_until) == ("e-3", "z", NOON)
    (failure,) = step.failures
    assert (failure.id, failure.subscription, failure.reason) == ("worker-a", "worker", Reason.HANDLER_ERROR)
    assert (failure.error, failure.attempts, failure.time) == ("no", 2, 10.0)


def test_an_event_that_only_a_dead_letter_has_kept() -> None:
    gone = Event(topic="a", event_id=ROOT, correlation_id=ROOT, timestamp=NOON)
    found = conversation(Found(id=ROOT, stored=[stored(5, "a", ROOT)], letters=[letter(gone), letter(gone, "other")]))

    root, step = found.steps
    assert (root.event_id, root.position, root.time) == (ROOT, None, NOON.timestamp())
    assert [failure.subscription for failure in root.failures] == ["worker", "other"]
    assert (step.cause, step.after, found.failures) == (ROOT, 5.0, 2)


def test_an_event_that_was_stored_twice_stands_there_once() -> None:
    found = conversation(Found(id=ROOT, stored=[stored(1, ROOT), stored(2, "a", ROOT), stored(3, "a", ROOT)]))
    assert drawn(found) == [ROOT, ".a"]
    assert found.steps[1].position == "e-2"


def test_nothing_is_no_conversation() -> None:
    with pytest.raises(ValueError, match="has an event"):
        conversation(Found(id=ROOT, stored=[]))


def test_it_is_json_whatever_an_error_says() -> None:
    event = stored(1, ROOT)
    found = conversation(Found(id=ROOT, stored=[event], letters=[letter(event.event, error="half a character \udcff")]))
    assert msgspec.json.decode(msgspec.json.encode(found), type=Conversation) == found


def test_a_chain_of_ten_thousand_takes_no_time_and_no_stack() -> None:
    began = time.process_time()
    chain = of((ROOT, None), *((str(n), str(n - 1) if n else ROOT) for n in range(9_999)))
    assert chain.steps[-1].depth == 9_999
    msgspec.json.encode(chain)
    assert time.process_time() - began < 5  # a quarter of a second


IDS = [ROOT, *"abcdefgh"]


@given(st.permutations(IDS), st.lists(st.sampled_from([None, "gone", *IDS]), min_size=len(IDS), max_size=len(IDS)))
def test_every_event_stands_there_once_below_its_cause_whatever_parents_say(
    order: Sequence[str], parents: Sequence[str | None]
) -> None:
    found = of(*zip(order, parents, strict=True))

    assert sorted(step.event_id for step in found.steps) == sorted(IDS)
    above: list[Step] = []
    for step in found.steps:
        del above[step.depth :]
        assert len(above) == step.depth
        assert step.cause == (above[-1].event_id if above else None)
        assert step.orphan or step.cause == step.parent_event_id
        above.append(step)
    named = dict(zip(order, parents, strict=True))
    for step in found.steps:  # only to break a ring is one taken from its parent
        if step.orphan and named[step.event_id] in IDS:
            assert _is_in_ring(step.event_id, named)


def _is_in_ring(id: str, parents: dict[str, str | None]) -> bool:
    at: str | None = parents[id]
    for _ in range(len(parents)):
        if at == id:
            return True
        at = parents.get(at) if at is not None else None
    return at == id
