"""Storms as processes share them: parked here at once, there soon; counted, released, forgotten."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from wowevent import Event, StormPolicy
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.delivery import inherited
from wowevent.directory import Directory
from wowevent.errors import BrokerUnavailable
from wowevent.roll import Roll
from wowevent.storms import KEPT, QUIET, Storms
from wowevent.testing import ManualClock, settle

POLICY = StormPolicy(max_hops=10, max_visits=3, max_events=5)


class Process:
    """The storms of one process on a log that others have, too."""

    def __init__(self, log: MemoryLog, policy: StormPolicy | None = POLICY) -> None:
        self.clock = ManualClock()
        self.directory = Directory(MemoryBroker(log))
        self.storms = Storms(self.directory, self.clock, policy)

    async def look(self) -> None:
        await settle()
        await self.directory.refresh()

    async def close(self) -> None:
        await self.storms.close()
        await self.directory.close()


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def here(log: MemoryLog) -> AsyncIterator[Process]:
    process = Process(log)
    yield process
    await process.close()


@pytest.fixture
async def there(log: MemoryLog) -> AsyncIterator[Process]:
    process = Process(log)
    yield process
    await process.close()


def caused(event: Event, by: str = "a", topic: str = "ping") -> Event:
    """What `by` publishes while it handles that event."""
    fields = inherited(Event(topic=topic), event, by)
    return Event(topic=topic, hops=fields["hops"], correlation_id=fields["correlation_id"], headers=fields["head"])


def row(root: Event, length: int) -> Event:
    """The last of so many events that `a` caused one after the other."""
    for _ in range(length):
        root = caused(root)
    return root


async def test_one_that_goes_too_far_is_parked_with_all_that_belongs_to_it(here: Process, there: Process):
    root = Event(topic="ping", correlation_id="c")
    assert here.storms.stops("a", row(root, 2)) is None
    assert here.storms.list() == []
    why = here.storms.stops("a", row(root, 3))
    assert why is not None
    assert why.endswith("(max_visits): a (ping) x3")
    assert here.storms.alert
    for event in (root, caused(root), caused(root, "b", "other")):
        assert here.storms.stops("b", event) == why
    assert here.storms.stops("b", Event(topic="ping")) is None, "another conversation"
    await there.look()
    assert there.storms.stops("b", root) == why
    (storm,) = there.storms.list()
    assert (storm.id, storm.correlation_id, storm.limit, storm.most, storm.who) == (
        root.event_id, "c", "max_visits", 3, "a",
    )  # fmt: skip
    assert (here.storms.tripped, there.storms.tripped) == (1, 0)


async def test_it_is_said_once(here: Process, caplog: pytest.LogCaptureFixture):
    last = row(Event(topic="ping"), 3)
    for _ in range(5):
        here.storms.stops("a", last)
    assert [line.levelno for line in caplog.records].count(logging.ERROR) == 1


async def test_what_is_released_may_go_as_far_again(here: Process, there: Process):
    root = Event(topic="ping", correlation_id="c")
    here.storms.stops("a", row(root, 3))
    await there.look()
    (released,) = await there.storms.release("c")
    assert released.id == root.event_id
    await here.look()
    for process in (here, there):
        assert process.storms.list() == []
        assert not process.storms.alert
        assert process.storms.stops("a", row(root, 5)) is None
    assert here.storms.stops("a", row(root, 6)) is not None
    assert here.storms.list()[0].most == 6
    assert len(await here.storms.release(root.event_id)) == 1
    assert here.storms.stops("a", row(root, 8)) is None
    assert here.storms.stops("a", row(root, 9)) is not None


async def test_what_is_not_parked_cannot_be_released(here: Process):
    assert await here.storms.release("nobody") == []


async def test_a_release_comes_behind_the_news_that_it_takes_back(here: Process, there: Process):
    root = Event(topic="ping")
    here.storms.stops("a", row(root, 3))
    await here.storms.release(root.event_id)  # before the others were told
    await settle()
    await there.look()
    assert (here.storms.list(), there.storms.list()) == ([], [])


async def test_who_ends_says_first_what_it_has_to(here: Process, there: Process):
    root = Event(topic="ping")
    here.storms.stops("a", row(root, 3))
    await here.storms.close()
    await there.look()
    assert [storm.id for storm in there.storms.list()] == [root.event_id]


async def test_a_redelivered_letter_is_handled_until_it_went_as_far_again(here: Process):
    root = Event(topic="ping")
    assert here.storms.stops("a", row(root, 3)) is not None
    assert here.storms.stops("a", row(root, 3), redelivered=True) is None
    assert here.storms.stops("a", row(root, 5), redelivered=True) is None
    assert here.storms.stops("a", row(root, 6), redelivered=True) is not None
    assert here.storms.stops("a", row(root, 4)) is not None, "what it causes is stopped"


async def test_a_conversation_that_causes_too_much_is_parked_by_who_counts(here: Process):
    root = Event(topic="ping")
    for _ in range(5):
        here.storms.count(caused(root), "a")
    assert here.storms.list() == []
    here.storms.count(caused(root), "a")
    (storm,) = here.storms.list()
    assert (storm.limit, storm.who, storm.id) == ("max_events", "a", root.event_id)
    assert here.storms.stops("b", caused(root)) == storm.why
    for _ in range(4):
        assert here.storms.stops("b", caused(root), redelivered=True) is None
        here.storms.count(caused(root), "b")
    here.storms.count(caused(root), "b")
    assert here.storms.stops("b", caused(root), redelivered=True) == storm.why, "as many again"
    await here.storms.release(root.event_id)
    for _ in range(5):
        here.storms.count(caused(root), "a")
    assert here.storms.list() == [], "counted from nothing"


async def test_what_nothing_caused_is_not_counted(here: Process):
    again = Event(topic="a", correlation_id="c", hops=3)
    for _ in range(100):
        here.storms.count(again, "a")
    assert here.storms.list() == []


async def test_who_is_quiet_for_an_hour_begins_anew(here: Process):
    root = Event(topic="ping")
    for pause in (QUIET - 1, QUIET + 1):
        for _ in range(2):
            here.storms.count(caused(root), "a")
        await here.clock.advance(pause)
    for _ in range(5):
        here.storms.count(caused(root), "a")
    assert here.storms.list() == []


async def test_of_too_many_conversations_the_quietest_is_forgotten(here: Process, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wowevent.storms._CONVERSATIONS", 3)
    roots = [Event(topic="ping") for _ in range(4)]
    for root in roots:
        for _ in range(5):
            here.storms.count(caused(root), "a")
    for root in (roots[3], roots[0]):
        here.storms.count(caused(root), "a")
    assert [storm.id for storm in here.storms.list()] == [roots[3].event_id]


async def test_after_a_day_it_is_forgotten(here: Process):
    root = Event(topic="ping")
    here.storms.stops("a", row(root, 3))
    await settle()
    await here.clock.advance(KEPT - 1)
    assert here.storms.stops("b", root) is not None
    await here.clock.advance(2)
    assert here.storms.stops("b", root) is None
    assert here.storms.list() == []


async def test_without_a_policy_nothing_is_parked_and_nothing_is_looked_at(log: MemoryLog, here: Process):
    off = Process(log, None)
    assert off.storms.guard is None
    for _ in range(100):
        off.storms.count(caused(Event(topic="ping")), "a")
    root = Event(topic="ping")
    here.storms.stops("a", row(root, 3))
    await settle()
    await off.look()
    assert off.storms.stops("a", root) is None
    assert [storm.id for storm in off.storms.list()] == [root.event_id], "but it can be listed and released"
    assert len(await off.storms.release(root.event_id)) == 1
    await off.close()


async def test_an_engine_that_is_away_changes_nothing_here(here: Process, monkeypatch: pytest.MonkeyPatch):
    async def away(*_: Any) -> None:
        await asyncio.sleep(0)
        raise BrokerUnavailable("on purpose")

    monkeypatch.setattr(here.directory, "put", away)
    root = Event(topic="ping")
    assert here.storms.stops("a", row(root, 3)) is not None
    await settle()
    assert here.storms.stops("b", root) is not None


@pytest.mark.parametrize("value", [{}, {"storm": 3}, {"storm": {"id": "x"}}, {"storm": None, "released": "often"}])
async def test_what_somebody_else_wrote_there_is_left_out(here: Process, value: dict[str, Any]):
    await Roll(here.directory, "storm", here.clock).add("root", value)
    assert here.storms.list() == []
    assert here.storms.stops("a", row(Event(topic="ping", event_id="root"), 2)) is None
    assert here.storms.stops("a", row(Event(topic="ping", event_id="root"), 3)) is not None
