"""Storms as processes share them: parked here at once, there soon; counted, released, forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.unit.process import Process
from wowevent import Event, StormPolicy
from wowevent.brokers.memory import MemoryLog
from wowevent.delivery import inherited
from wowevent.errors import BrokerUnavailable
from wowevent.roll import Roll
from wowevent.storms import KEPT, QUIET, Storms
from wowevent.testing import settle

Peer = Process[Storms]
POLICY = StormPolicy(max_hops=10, max_visits=3, max_events=5)


def process_of(log: MemoryLog, policy: StormPolicy | None = POLICY) -> Peer:
    return Process(log, lambda directory, clock: Storms(directory, clock, policy))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def here(log: MemoryLog) -> AsyncIterator[Peer]:
    async with process_of(log) as process:
        yield process


@pytest.fixture
async def there(log: MemoryLog) -> AsyncIterator[Peer]:
    async with process_of(log) as process:
        yield process


def caused(event: Event, by: str = "a", topic: str = "ping") -> Event:
    """What `by` publishes while it handles that event."""
    fields = inherited(Event(topic=topic), event, by)
    return Event(topic=topic, hops=fields["hops"], correlation_id=fields["correlation_id"], headers=fields["head"])


def row(root: Event, length: int) -> Event:
    """The last of so many events that `a` caused one after the other."""
    for _ in range(length):
        root = caused(root)
    return root


async def test_one_that_goes_too_far_is_parked_with_all_that_belongs_to_it(here: Peer, there: Peer):
    root = Event(topic="ping", correlation_id="c")
    assert here.part.stops("a", row(root, 2)) is None
    assert here.part.list() == []
    why = here.part.stops("a", row(root, 3))
    assert why is not None
    assert why.endswith("(max_visits): a (ping) x3")
    assert here.part.alert
    for event in (root, caused(root), caused(root, "b", "other")):
        assert here.part.stops("b", event) == why
    assert here.part.stops("b", Event(topic="ping")) is None, "another conversation"
    await there.look()
    assert there.part.stops("b", root) == why
    (storm,) = there.part.list()
    assert (storm.id, storm.correlation_id, storm.limit, storm.most, storm.who) == (
        root.event_id, "c", "max_visits", 3, "a",
    )  # fmt: skip
    assert (here.part.tripped, there.part.tripped) == (1, 0)


async def test_it_is_said_once(here: Peer, caplog: pytest.LogCaptureFixture):
    last = row(Event(topic="ping"), 3)
    for _ in range(5):
        here.part.stops("a", last)
    assert [line.levelno for line in caplog.records].count(logging.ERROR) == 1


async def test_what_is_released_may_go_as_far_again(here: Peer, there: Peer):
    root = Event(topic="ping", correlation_id="c")
    here.part.stops("a", row(root, 3))
    await there.look()
    (released,) = await there.part.release("c")
    assert released.id == root.event_id
    await here.look()
    for process in (here, there):
        assert process.part.list() == []
        assert not process.part.alert
        assert process.part.stops("a", row(root, 5)) is None
    assert here.part.stops("a", row(root, 6)) is not None
    assert here.part.list()[0].most == 6
    assert len(await here.part.release(root.event_id)) == 1
    assert here.part.stops("a", row(root, 8)) is None
    assert here.part.stops("a", row(root, 9)) is not None


async def test_what_is_not_parked_cannot_be_released(here: Peer):
    assert await here.part.release("nobody") == []


async def test_a_release_comes_behind_the_news_that_it_takes_back(here: Peer, there: Peer):
    root = Event(topic="ping")
    here.part.stops("a", row(root, 3))
    await here.part.release(root.event_id)  # before the others were told
    await settle()
    await there.look()
    assert (here.part.list(), there.part.list()) == ([], [])


async def test_who_ends_says_first_what_it_has_to(here: Peer, there: Peer):
    root = Event(topic="ping")
    here.part.stops("a", row(root, 3))
    await here.part.close()
    await there.look()
    assert [storm.id for storm in there.part.list()] == [root.event_id]


async def test_a_redelivered_letter_is_handled_until_it_went_as_far_again(here: Peer):
    root = Event(topic="ping")
    assert here.part.stops("a", row(root, 3)) is not None
    assert here.part.stops("a", row(root, 3), redelivered=True) is None
    assert here.part.stops("a", row(root, 5), redelivered=True) is None
    assert here.part.stops("a", row(root, 6), redelivered=True) is not None
    assert here.part.stops("a", row(root, 4)) is not None, "what it causes is stopped"


async def test_a_conversation_that_causes_too_much_is_parked_by_who_counts(here: Peer):
    root = Event(topic="ping")
    for _ in range(5):
        here.part.count(caused(root), "a")
    assert here.part.list() == []
    here.part.count(caused(root), "a")
    (storm,) = here.part.list()
    assert (storm.limit, storm.who, storm.id) == ("max_events", "a", root.event_id)
    assert here.part.stops("b", caused(root)) == storm.why
    for _ in range(4):
        assert here.part.stops("b", caused(root), redelivered=True) is None
        here.part.count(caused(root), "b")
    here.part.count(caused(root), "b")
    assert here.part.stops("b", caused(root), redelivered=True) == storm.why, "as many again"
    await here.part.release(root.event_id)
    for _ in range(5):
        here.part.count(caused(root), "a")
    assert here.part.list() == [], "counted from nothing"


async def test_what_nothing_caused_is_not_counted(here: Peer):
    again = Event(topic="a", correlation_id="c", hops=3)
    for _ in range(100):
        here.part.count(again, "a")
    assert here.part.list() == []


async def test_who_is_quiet_for_an_hour_begins_anew(here: Peer):
    root = Event(topic="ping")
    for pause in (QUIET - 1, QUIET + 1):
        for _ in range(2):
            here.part.count(caused(root), "a")
        await here.clock.advance(pause)
    for _ in range(5):
        here.part.count(caused(root), "a")
    assert here.part.list() == []


async def test_of_too_many_conversations_the_quietest_is_forgotten(here: Peer, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wowevent.storms._CONVERSATIONS", 3)
    roots = [Event(topic="ping") for _ in range(4)]
    for root in roots:
        for _ in range(5):
            here.part.count(caused(root), "a")
    for root in (roots[3], roots[0]):
        here.part.count(caused(root), "a")
    assert [storm.id for storm in here.part.list()] == [roots[3].event_id]


async def test_after_a_day_it_is_forgotten(here: Peer):
    root = Event(topic="ping")
    here.part.stops("a", row(root, 3))
    await settle()
    await here.clock.advance(KEPT - 1)
    assert here.part.stops("b", root) is not None
    await here.clock.advance(2)
    assert here.part.stops("b", root) is None
    assert here.part.list() == []


async def test_without_a_policy_nothing_is_parked_and_nothing_is_looked_at(log: MemoryLog, here: Peer):
    off = process_of(log, None)
    assert off.part.guard is None
    for _ in range(100):
        off.part.count(caused(Event(topic="ping")), "a")
    root = Event(topic="ping")
    here.part.stops("a", row(root, 3))
    await settle()
    await off.look()
    assert off.part.stops("a", root) is None
    assert [storm.id for storm in off.part.list()] == [root.event_id], "but it can be listed and released"
    assert len(await off.part.release(root.event_id)) == 1
    await off.close()


async def test_an_engine_that_is_away_changes_nothing_here(here: Peer, monkeypatch: pytest.MonkeyPatch):
    async def away(*_: Any) -> None:
        await asyncio.sleep(0)
        raise BrokerUnavailable("on purpose")

    monkeypatch.setattr(here.directory, "put", away)
    root = Event(topic="ping")
    assert here.part.stops("a", row(root, 3)) is not None
    await settle()
    assert here.part.stops("b", root) is not None


@pytest.mark.parametrize("value", [{}, {"storm": 3}, {"storm": {"id": "x"}}, {"storm": None, "released": "often"}])
async def test_what_somebody_else_wrote_there_is_left_out(here: Peer, value: dict[str, Any]):
    await Roll(here.directory, "storm", here.clock).add("root", value)
    assert here.part.list() == []
    assert here.part.stops("a", row(Event(topic="ping", event_id="root"), 2)) is None
    assert here.part.stops("a", row(Event(topic="ping", event_id="root"), 3)) is not None
