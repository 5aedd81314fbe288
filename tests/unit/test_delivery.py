"""Delivery, what a handler can know of it, and what its publishes inherit."""

import asyncio
from typing import Any

import pytest

from wowevent import Event
from wowevent.delivery import Delivery, current, enter, followed, following, inherited
from wowevent.lineage import LINEAGE


def delivery(**fields: Any) -> Delivery:
    return Delivery(Event(topic="a"), attempt=1, subscription="s", position=None, **fields)


async def test_the_current_delivery_is_of_its_task_and_of_what_it_starts():
    seen: dict[str, Any] = {}

    async def child(name: str) -> None:
        seen[name] = current()

    async def handler() -> None:
        enter(mine := delivery())
        await asyncio.gather(child("task"), asyncio.to_thread(lambda: seen.setdefault("thread", current())))
        seen["mine"] = mine

    await asyncio.create_task(handler())
    assert seen["task"] is seen["thread"] is seen["mine"]
    assert current() is None


async def test_extend_asks_for_seconds_and_is_nothing_where_there_is_no_lease():
    asked: list[tuple[str, float]] = []

    async def extend(token: str, seconds: float) -> None:
        asked.append((token, seconds))

    await delivery(_token="t", _extend=extend).extend(12)
    await delivery().extend(12)
    assert asked == [("t", 12)]


PARENT = Event(topic="a", event_id="p", correlation_id="c", trace_id="t", traceparent="tp", execution_id="e", hops=4)


def test_all_that_an_event_does_not_say_itself_is_inherited():
    assert inherited(Event(topic="b"), PARENT) == {
        "hops": 5,
        "head": {LINEAGE: '{"root":"p","visits":{}}'},
        "correlation_id": "c",
        "trace_id": "t",
        "traceparent": "tp",
        "execution_id": "e",
        "parent_event_id": "p",
    }


@pytest.mark.parametrize("name", ["correlation_id", "trace_id", "traceparent", "execution_id", "parent_event_id"])
def test_what_an_event_says_itself_stays(name: str):
    fields: dict[str, Any] = {name: "own"}
    assert name not in inherited(Event(topic="b", **fields), PARENT)


def test_hops_never_shrink_and_what_the_parent_lacks_is_not_invented():
    assert inherited(Event(topic="b", hops=9), PARENT)["hops"] == 9
    assert inherited(Event(topic="b"), Event(topic="a", event_id="p")) == {
        "hops": 1,
        "head": {LINEAGE: '{"root":"p","visits":{}}'},
        "correlation_id": "p",
        "parent_event_id": "p",
    }


def test_a_lineage_is_not_an_events_own_to_say():
    event = Event(topic="b", headers={LINEAGE: "mine", "other": "kept"})
    assert inherited(event, PARENT, "s")["head"] == {LINEAGE: '{"root":"p","visits":{"s a":1}}', "other": "kept"}


def test_a_client_says_by_which_name_the_bus_knows_its_subscription():
    assert following(Event(topic="b"), delivery())["head"][LINEAGE].endswith('{"s a":1}}')
    assert following(Event(topic="b"), delivery(via="worker~a.*"))["head"][LINEAGE].endswith('{"worker~a.* a":1}}')


def test_what_follows_from_a_batch_has_more_hops_than_any_of_it():
    assert following(Event(topic="b"), delivery(hops=7))["hops"] == 8
    assert following(Event(topic="b"), delivery())["hops"] == 1


async def test_what_is_published_in_a_replay_follows_from_the_handler_that_began_it():
    outer = delivery()
    seen: list[Delivery | None] = []

    async def nested() -> None:
        for each in (delivery(replayed=True), delivery(replayed=True, outer=outer), outer):
            enter(each)
            seen.append(followed())
        enter(delivery(replayed=True, outer=delivery(replayed=True, outer=outer)))
        seen.append(followed())

    await asyncio.create_task(nested())
    assert [each is outer for each in seen] == [False, True, True, True]
    assert seen[0] is None
