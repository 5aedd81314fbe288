"""How far a conversation may go: the limits, as a table; and what is said of one that went further."""

from __future__ import annotations

from typing import Any

import pytest

from wowevent import Event, Storm, StormPolicy
from wowevent.lineage import LINEAGE, Lineage, extended, lineage_of
from wowevent.settings import Settings
from wowevent.storm import Step, exceeded, in_words, path_of, stored, storm_of

POLICY = StormPolicy(max_hops=20, max_visits=4)


@pytest.mark.parametrize(
    ("policy", "hops", "visits", "times", "limit"),
    [
        (POLICY, 0, {}, 1, None),
        (POLICY, 20, {}, 1, None),
        (POLICY, 21, {}, 1, "max_hops"),
        (POLICY, 21, {}, 2, None),
        (POLICY, 41, {}, 2, "max_hops"),
        (POLICY, 3, {"planner plan.step": 3}, 1, None),
        (POLICY, 3, {"planner plan.step": 4}, 1, "max_visits"),
        (POLICY, 3, {"planner plan.step": 4}, 2, None),
        (POLICY, 3, {"planner plan.step": 8}, 2, "max_visits"),
        (POLICY, 3, {"planner task.done": 4, "worker plan.step": 4}, 1, None),
        (POLICY, 3, {"planner task.done": 5}, 1, "max_visits"),
        (POLICY, 21, {"planner plan.step": 9}, 1, "max_hops"),
        (StormPolicy(max_hops=None, max_visits=4), 10_000, {"worker plan.step": 4}, 1, None),
        (StormPolicy(max_hops=0, max_visits=0), 10_000, {"planner plan.step": 10_000}, 1, None),
        (StormPolicy(max_hops=20, max_visits=None), 3, {"planner plan.step": 10_000}, 1, None),
    ],
)
def test_the_limits(policy: StormPolicy, hops: int, visits: dict[str, int], times: int, limit: str | None):
    event = Event(topic="plan.step", hops=hops)
    assert exceeded(policy, event, Lineage("root", visits), "planner", times) == limit


@pytest.mark.parametrize("name", ["max_hops", "max_visits", "max_events"])
@pytest.mark.parametrize("value", [-1, 1.5, True, "many"])
def test_what_is_no_limit_is_refused(name: str, value: Any):
    with pytest.raises(ValueError, match=name):
        StormPolicy(**{name: value})


def test_the_environments_defaults_are_the_policys(monkeypatch: pytest.MonkeyPatch):
    for name in ("MAX_HOPS", "MAX_VISITS", "MAX_EVENTS"):
        monkeypatch.delenv(f"WOWEVENT_{name}", raising=False)
    settings, policy = Settings(), StormPolicy()
    assert (settings.max_hops, settings.max_visits, settings.max_events) == (
        policy.max_hops,
        policy.max_visits,
        policy.max_events,
    )


def test_a_hundred_turns_of_two_agents_are_no_storm():
    policy, event = StormPolicy(), Event(topic="chat.said")
    for turn in range(100):
        speaker = ("alice", "bob")[turn % 2]
        assert exceeded(policy, event, lineage_of(event), speaker) is None
        event = Event(topic="chat.said", hops=event.hops + 1, headers={LINEAGE: extended(event, speaker)})


def test_a_path_in_words():
    path = path_of(Lineage("root", {"planner plan.step": 32, "worker~task.* task.done": 31}))
    assert path == (Step("planner", "plan.step", 32), Step("worker~task.*", "task.done", 31))
    assert in_words(path) == "planner (plan.step) x32 -> worker~task.* (task.done) x31"
    assert in_words(()) == "no step is known"


def test_of_a_long_path_the_most_frequent_steps_are_kept_in_their_order():
    visits = {f"s{n} t": 1 for n in range(30)} | {"a ping": 9, "b pong": 9}
    path = path_of(Lineage("root", visits))
    assert len(path) == 16
    assert [step.subscription for step in path][-2:] == ["a", "b"]
    assert [step.subscription for step in path][:2] == ["s0", "s1"]


def test_a_storm_is_told_as_json():
    storm = Storm(
        id="root", correlation_id="c", limit="max_visits", most=32, path=(Step("a", "t", 32),), since=1.5, who="a"
    )
    assert storm_of(stored(storm)) == storm
    assert storm.why == (
        "storm: a subscription was to handle one topic more than 32 times in a row of causes (max_visits): a (t) x32"
    )
    others: list[Any] = [None, {}, {"id": 3}, [], "storm"]
    for other in others:
        assert storm_of(other) is None
