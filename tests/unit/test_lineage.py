"""The lineage header: what it says, who writes it, how long it may become."""

from __future__ import annotations

import json

import pytest

from wowevent import Event
from wowevent.event import _TEXT as TEXT
from wowevent.lineage import LINEAGE, LONGEST, Lineage, extended, lineage_of, visit


def event(topic: str = "plan.step", lineage: str | None = None, id: str = "e") -> Event:
    return Event(topic=topic, event_id=id, headers={} if lineage is None else {LINEAGE: lineage})


def test_an_event_without_one_begins_a_conversation():
    assert lineage_of(event()) == Lineage("e", {})


def test_each_step_is_counted_in_the_order_of_its_first_time():
    first = extended(event(id="root"), "planner")
    assert json.loads(first) == {"root": "root", "visits": {"planner plan.step": 1}}
    second = extended(event("task.done", first, "second"), "worker")
    third = extended(event("plan.step", second, "third"), "planner")
    assert list(json.loads(third)["visits"].items()) == [("planner plan.step", 2), ("worker task.done", 1)]
    assert lineage_of(event(lineage=third)) == Lineage("root", {"planner plan.step": 2, "worker task.done": 1})


def test_an_answer_hands_on_the_way_and_is_no_step_of_it():
    before = extended(event(id="root"), "planner")
    assert extended(event(lineage=before), None) == before
    assert json.loads(extended(event(id="root"), None)) == {"root": "root", "visits": {}}


def test_subscriptions_without_a_name_are_one_since_their_ids_are_new_each_time():
    assert visit("live~0190a1fd-0000-7000-8000-000000000000", "a.b") == "live a.b"
    assert visit("worker~a.*", "a.b") == "worker~a.* a.b"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "[" * 4000,
        '{"visits": {}}',
        '{"root": 3}',
        '{"root": ""}',
        '{"root": "a b"}',
        '{"root": "a", "visits": {"x": 0}}',
        '{"root": "a", "visits": {"x": -5}}',
        '{"root": "a", "visits": {"x": "many"}}',
    ],
)
def test_what_is_none_says_nothing(text: str):
    assert lineage_of(event(lineage=text)) == Lineage("e", {})
    assert json.loads(extended(event(lineage=text), "w"))["root"] == "e"


def test_it_stays_short_whatever_the_names_and_what_is_in_a_circle_stays_in_it():
    """An agent that names each topic anew walks beside a circle of two."""
    text = None
    for lap in range(200):
        for subscription, topic in (("a", "ping"), (f"{'s' * 120}", f"{'t' * 150}.{lap}"), ("b", "pong")):
            text = extended(event(topic, text), subscription)
            assert len(text) <= LONGEST
            assert TEXT.fullmatch(text), "a header takes it"
    visits = lineage_of(event(lineage=text)).visits
    assert (visits["a ping"], visits["b pong"]) == (200, 200)
    assert f"{'s' * 120} {'t' * 150}.199" in visits, "the last steps are there"


def test_one_step_is_kept_however_long_it_is():
    long = json.dumps({"root": "r", "visits": {"x" * 3000: 7}})
    assert lineage_of(event(lineage=extended(event(lineage=long), "w"))).visits == {"w plan.step": 1}
