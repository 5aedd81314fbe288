"""What is paused, and what that holds: a table of scopes, and the ends by the clock."""

from __future__ import annotations

from typing import Any

import pytest

from wowevent import Event
from wowevent.holds import Holds, Pause, Scope, said
from wowevent.testing import ManualClock


def pause(scope: Scope, name: str = "", **fields: Any) -> Pause:
    return Pause(scope=scope, name=name, **{"since": 0.0, **fields})


def holds(*pauses: Pause, clock: ManualClock | None = None) -> Holds:
    found = Holds(clock or ManualClock(0.0))
    for each in pauses:
        found.put(each)
    return found


EVENT = Event(topic="task.created", correlation_id="job-1")


@pytest.mark.parametrize(
    ("scope", "name", "closes", "is_held", "stopped"),
    [
        ("everything", "", True, False, True),
        ("agent", "worker", True, False, True),
        ("agent", "other", False, False, False),
        ("subscription", "s", True, False, False),
        ("subscription", "t", False, False, False),
        ("topic", "task.*", False, True, True),
        ("topic", "plan.*", False, False, False),
        ("topic", "task.created.#", False, True, True),
        ("conversation", "job-1", False, True, True),
        ("conversation", "job-2", False, False, False),
    ],
)
def test_what_each_scope_holds(scope: Scope, name: str, closes: bool, is_held: bool, stopped: bool):
    found = holds(pause(scope, name))
    assert bool(found.closing("s", "worker")) == closes
    assert bool(found.holding(EVENT)) == is_held
    assert bool(found.stops("worker", EVENT)) == stopped
    assert found.active == (scope in {"topic", "conversation"})
    assert found.broad == (scope != "subscription")
    assert found.drop(scope, name) == pause(scope, name)
    assert not found.closing("s", "worker")
    assert not found.holding(EVENT)
    assert not found.stops("worker", EVENT)
    assert (found.active, found.broad) == (False, False)


def test_who_has_no_agent_is_nobodys():
    assert not holds(pause("agent", "worker")).closing("s", "")


async def test_a_pause_is_over_by_the_clock_though_nobody_has_taken_it_away():
    clock = ManualClock(0.0)
    found = holds(pause("topic", "task.*", until=10.0), pause("everything", until=20.0), clock=clock)
    assert found.next_end() == 10.0
    await clock.advance(10)
    assert not found.holding(EVENT)
    assert [each.scope for each in found.all()] == ["everything"]
    assert [each.name for each in found.ended()] == ["task.*"]
    assert (found.active, found.next_end()) == (False, 10.0)
    await clock.advance(10)
    assert not found.closing("s", "worker")
    assert [each.scope for each in found.ended()] == ["everything"]
    assert found.next_end() is None


def test_two_patterns_that_say_the_same_are_two_pauses():
    found = holds(pause("topic", "task.*"), pause("topic", "task.*.#"))
    found.drop("topic", "task.*")
    assert found.holding(EVENT) == pause("topic", "task.*.#")
    found.drop("topic", "task.*.#")
    assert not found.holding(EVENT)


def test_of_two_on_one_topic_the_one_that_is_not_over_holds():
    clock = ManualClock(100.0)
    found = holds(pause("topic", "task.*", until=50.0), pause("topic", "#"), clock=clock)
    assert found.holding(EVENT) == pause("topic", "#")


@pytest.mark.parametrize(
    ("lasted", "until", "seconds"),
    [(0, None, 1.0), (40, None, 10.0), (120, None, 30.0), (10_000, None, 30.0), (0, 0.25, 0.25), (40, 45, 5.0)],
)
def test_the_longer_a_pause_lasts_the_more_seldom_what_it_holds_is_looked_at(
    lasted: float, until: float | None, seconds: float
):
    found = holds(clock=ManualClock(float(lasted)))
    assert found.again(pause("topic", "task.*", until=until)) == seconds


def test_a_log_line_says_what_there_is_to_say():
    assert said(pause("everything")) == {"scope": "everything"}
    assert said(pause("agent", "a", until=0.0, reason="too loud", by="ops")) == {
        "scope": "agent",
        "name": "a",
        "until": "1970-01-01T00:00:00+00:00",
        "reason": "too loud",
        "by": "ops",
    }
