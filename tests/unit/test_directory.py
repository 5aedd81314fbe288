"""The directory: what is said is known to all, whatever happens to the engine, the log, and what lies in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import pytest

from tests.conformance.engines import eventually
from wowevent import BrokerUnavailable, Event, InvalidEvent, InvalidTopic, StorageDamaged, directory
from wowevent.broker import Appended, Broker, Iteration, Position, Query, Stored
from wowevent.brokers import open_broker
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.directory import Directory
from wowevent.errors import BusError, Closed
from wowevent.reading import Reading


class Line:
    """An engine behind a line that can be cut or led to another log, and whose facts can be damaged."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.down = False
        self.damaged: list[BusError] = []
        """Is raised by each read, one behind the other, before what can be read."""
        self.reads = 0
        self.held: asyncio.Event | None = None
        """What a read waits for before it begins."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.broker, name)

    async def publish(self, events: Sequence[Event]) -> Sequence[Appended]:
        if self.down:
            raise BrokerUnavailable("the line is cut")
        return await self.broker.publish(events)

    def read(self, query: Query, *, after: Position | None = None, follow: bool = False) -> Iteration:
        assert not follow
        pages: list[list[Stored | BusError]] = [list(self.damaged)]

        async def turn() -> list[Stored | BusError] | None:
            if not pages:
                return None
            self.reads += 1
            if self.held is not None:
                await self.held.wait()
            if self.down:
                raise BrokerUnavailable("the line is cut")
            return pages.pop() + [stored async for stored in self.broker.read(query, after=after)]

        return Reading(turn, query.limit)


class Told:
    """A watcher that notes what it is told."""

    def __init__(self, directory: Directory, kind: str = "schema") -> None:
        self.changes: list[tuple[str, dict[str, Any] | None]] = []
        directory.watch(kind, lambda key, value: self.changes.append((key, value)))


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
def line(log: MemoryLog) -> Line:
    return Line(MemoryBroker(log))


@pytest.fixture
async def here(line: Line) -> AsyncIterator[Directory]:
    directory = Directory(line)
    yield directory
    await directory.close()


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come a hundred times as often."""
    monkeypatch.setattr(directory, "_LOOK", 0.01)


# --- facts --------------------------------------------------------------------------------------------------------


async def test_what_is_put_is_known_at_once_and_what_is_dropped_is_not(here: Directory):
    assert here.facts("schema") == {}
    await here.put("schema", "task@1", {"version": 1})
    await here.put("schema", "task@2", {"version": 2})
    await here.put("pause", "task@1", {"since": 3.5})
    assert here.facts("schema") == {"task@1": {"version": 1}, "task@2": {"version": 2}}
    assert here.facts("pause") == {"task@1": {"since": 3.5}}
    await here.put("schema", "task@1", {"version": 7})
    await here.drop("schema", "task@2")
    await here.drop("schema", "never there")
    assert here.facts("schema") == {"task@1": {"version": 7}}
    assert here.facts("pause") == {"task@1": {"since": 3.5}}


KEYS = {"empty": "", "odd": "*/#\n\0 ü.日本語", "long": "x" * 10_000, "dots": "a.b.c", "as a topic": "_bus.schema.x"}


@pytest.mark.parametrize("name", KEYS)
async def test_a_key_may_be_any_text(here: Directory, line: Line, name: str):
    await here.put("schema", KEYS[name], {"n": 1})
    other = Directory(line)
    await other.refresh()
    assert other.facts("schema") == {KEYS[name]: {"n": 1}}
    await other.drop("schema", KEYS[name])
    await here.refresh()
    assert here.facts("schema") == {}


@pytest.mark.parametrize("kind", ["", "a.b", "a*", "ä"])
async def test_a_kind_is_one_word(here: Directory, line: Line, kind: str):
    with pytest.raises(InvalidTopic):
        await here.put(kind, "key", {})
    assert (await line.ping()).head.offset == 0


@pytest.mark.parametrize(("key", "value"), [("\ud800", {}), ("key", {"n": float("nan")}), ("key", {"n": object()})])
async def test_what_is_no_json_is_refused_and_not_said(here: Directory, line: Line, key: str, value: dict[str, Any]):
    with pytest.raises(InvalidEvent):
        await here.put("schema", key, value)
    assert (await line.ping()).head.offset == 0


async def test_what_was_given_can_be_changed_and_changes_nothing(here: Directory):
    given = {"n": 1}
    await here.put("schema", "key", given)
    given["n"] = 2
    before = here.facts("schema")
    assert before == {"key": {"n": 1}}
    await here.put("schema", "key", {"n": 3})
    assert before == {"key": {"n": 1}}


async def test_of_two_that_change_a_key_the_logs_order_decides(here: Directory, line: Line):
    there = Directory(line)
    await asyncio.gather(*((here, there)[n % 2].put("schema", "key", {"n": n}) for n in range(20)))
    await asyncio.gather(here.refresh(), there.refresh())
    last = [stored async for stored in line.read(Query(patterns=("_bus.#",)))][-1].event.payload["value"]
    assert here.facts("schema") == there.facts("schema") == {"key": last}


async def test_many_calls_share_a_look_that_began_after_them(here: Directory, line: Line):
    line.held = asyncio.Event()
    first = asyncio.create_task(here.refresh())
    await eventually(lambda: line.reads == 1)
    puts = [asyncio.create_task(here.put("schema", f"{n}", {"n": n})) for n in range(50)]
    await asyncio.sleep(0.01)
    line.held.set()
    await asyncio.gather(first, *puts)
    assert len(here.facts("schema")) == 50
    assert line.reads == 2


async def test_a_caller_that_leaves_takes_nobodys_look_away(here: Directory, line: Line):
    line.held = asyncio.Event()
    leaving, staying = asyncio.create_task(here.put("schema", "a", {})), asyncio.create_task(here.refresh())
    await eventually(lambda: line.reads == 1)
    leaving.cancel()
    line.held.set()
    await staying
    await here.refresh()
    assert here.facts("schema") == {"a": {}}


# --- watching -----------------------------------------------------------------------------------------------------


async def test_a_watcher_is_told_what_is_there_and_what_changes(here: Directory):
    early = Told(here)
    await here.put("schema", "a", {"n": 1})
    await here.put("schema", "b", {"n": 2})
    late = Told(here)
    await here.put("pause", "a", {"n": 3})
    await here.put("schema", "a", {"n": 4})
    await here.put("schema", "a", {"n": 4})  # the same again is no change
    await here.drop("schema", "b")
    await here.drop("schema", "b")
    assert early.changes == [("a", {"n": 1}), ("b", {"n": 2}), ("a", {"n": 4}), ("b", None)]
    assert late.changes == early.changes


async def test_changes_of_one_look_come_in_the_order_of_the_log(here: Directory, line: Line):
    other, told = Directory(line), Told(here)
    for n in (3, 1, 2, 1):
        await other.put("schema", f"{n}", {"n": n})
    await here.refresh()
    assert [key for key, _ in told.changes] == ["3", "2", "1"]


async def test_a_watcher_that_fails_keeps_nobody_from_knowing(here: Directory, caplog: pytest.LogCaptureFixture):
    def fails(_key: str, _value: dict[str, Any] | None) -> None:
        raise ZeroDivisionError

    here.watch("schema", fails)
    told = Told(here)
    await here.put("schema", "a", {})
    assert told.changes == [("a", {})]
    assert caplog.text.count("what watches shared facts failed") == 1


async def test_a_watcher_may_look_and_watch_while_it_is_told(here: Directory):
    seen: list[Any] = []
    here.watch("schema", lambda *_: here.watch("schema", lambda key, _: seen.append((key, dict(here.facts("schema"))))))
    await here.put("schema", "a", {})
    assert seen == [("a", {"a": {}})]


# --- what others wrote --------------------------------------------------------------------------------------------

TOPIC = f"_bus.schema.{blake2b(b'c', digest_size=16).hexdigest()}"  # of the key "c"
FOREIGN: dict[str, Event] = {
    "no such shape of topic": Event(topic="_bus.note", payload={"key": "c", "value": {}}),
    "a longer topic": Event(topic="_bus.schema.a.b", payload={"key": "c", "value": {}}),
    "another key's topic": Event(topic=TOPIC, payload={"key": "d", "value": {}}),
    "an empty one": Event(topic=TOPIC, payload={}),
    "no text for a key": Event(topic=TOPIC, payload={"key": 5, "value": {}}),
    "no object for a value": Event(topic=TOPIC, payload={"key": "c", "value": [1]}),
    "null for a value": Event(topic=TOPIC, payload={"key": "c", "value": None}),
}


@pytest.mark.parametrize("name", FOREIGN)
async def test_a_foreign_fact_is_left_out_and_said_once(
    here: Directory, line: Line, name: str, caplog: pytest.LogCaptureFixture
):
    await here.put("schema", "a", {"n": 1})
    await line.publish([FOREIGN[name]])
    await here.put("schema", "b", {"n": 2})
    await here.refresh()
    assert here.facts("schema") == {"a": {"n": 1}, "b": {"n": 2}}
    assert caplog.text.count("none of ours") == 1


async def test_where_somebody_else_wrote_over_a_fact_it_is_gone_for_all(here: Directory, line: Line):
    told = Told(here)
    await here.put("schema", "a", {"n": 1})
    (fact,) = [stored async for stored in line.read(Query(patterns=("_bus.#",)))]
    await line.publish([Event(topic=fact.event.topic, payload={"value": {"n": 2}})])
    late = Directory(line)
    await asyncio.gather(here.refresh(), late.refresh())
    assert here.facts("schema") == late.facts("schema") == {}
    assert told.changes == [("a", {"n": 1}), ("a", None)]


async def test_damaged_facts_are_left_out_and_said_once(here: Directory, line: Line, caplog: pytest.LogCaptureFixture):
    line.damaged = [StorageDamaged("position 2"), StorageDamaged("position 3")]
    for n in range(3):
        await here.put("schema", f"{n}", {"n": n})
    assert len(here.facts("schema")) == 3
    assert caplog.text.count("position 2") == caplog.text.count("position 3") == 1
    line.damaged = []
    await here.refresh()
    line.damaged = [StorageDamaged("position 2")]
    await here.refresh()
    assert caplog.text.count("position 2") == 2


async def test_a_log_that_cannot_be_read_at_all_is_an_error_and_not_an_endless_look(here: Directory, line: Line):
    await here.put("schema", "a", {})
    line.damaged = [StorageDamaged("the tree is damaged")] * 5_000
    with pytest.raises(StorageDamaged):
        await here.refresh()
    assert here.facts("schema") == {"a": {}}


# --- trouble ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("often")
async def test_trouble_of_the_engine_is_waited_out_and_said_once(
    here: Directory, line: Line, log: MemoryLog, caplog: pytest.LogCaptureFixture
):
    await here.put("schema", "a", {"n": 1})
    await here.start()
    for times in (1, 2):
        line.down = True
        caplog.clear()
        before = line.reads
        await eventually(lambda before=before: line.reads > before + 3)  # type: ignore[misc]  # bound now
        with pytest.raises(BrokerUnavailable):
            await here.refresh()
        with pytest.raises(BrokerUnavailable):
            await here.put("schema", "a", {"n": 9})
        assert caplog.text.count("the line is cut") == 1
        assert "a" in here.facts("schema")
        line.down = False
        await _say(log, "b", {"n": times})
        await eventually(lambda times=times: here.facts("schema").get("b") == {"n": times})  # type: ignore[misc]  # as above


async def _say(log: MemoryLog, key: str, value: dict[str, Any]) -> None:
    """Somebody else says it."""
    other = Directory(MemoryBroker(log))
    await other.put("schema", key, value)
    await other.close()


async def test_a_start_that_failed_can_be_made_again(here: Directory, line: Line):
    line.down = True
    with pytest.raises(BrokerUnavailable):
        await here.start()
    assert _pollers() == 0
    line.down = False
    await asyncio.gather(here.start(), here.start())
    await here.start()
    assert _pollers() == 1


async def test_a_log_that_is_another_one_is_told_what_it_does_not_decide(
    here: Directory, line: Line, caplog: pytest.LogCaptureFixture
):
    told = Told(here)
    for n, key in enumerate("abc"):
        await here.put("schema", key, {"n": n})
    line.broker = MemoryBroker(other := MemoryLog())
    for key, n in (("d", 3), ("c", 2), ("b", 9)):
        await _say(other, key, {"n": n})
    told.changes.clear()
    await here.refresh()
    assert here.facts("schema") == {"d": {"n": 3}, "c": {"n": 2}, "b": {"n": 9}, "a": {"n": 0}}
    assert told.changes == [("d", {"n": 3}), ("b", {"n": 9})]
    assert caplog.text.count("the log is another one") == 1
    assert await _known_in(other) == here.facts("schema")
    await here.put("schema", "e", {"n": 5})
    assert len(here.facts("schema")) == 5


async def test_a_log_that_was_emptied_is_told_again_what_was_known(
    here: Directory, line: Line, caplog: pytest.LogCaptureFixture
):
    told = Told(here)
    for key in "ab":
        await here.put("schema", key, {})
    await here.drop("schema", "b")
    line.broker = MemoryBroker(other := MemoryLog())
    await here.refresh()
    await here.refresh()
    assert here.facts("schema") == await _known_in(other) == {"a": {}}
    assert told.changes == [("a", {}), ("b", {}), ("b", None)]
    assert caplog.text.count("the log is another one") == 1
    await here.drop("schema", "a")
    assert here.facts("schema") == await _known_in(other) == {}


async def test_what_was_removed_in_the_other_log_is_not_said_there_again(here: Directory, line: Line):
    await here.put("schema", "a", {})
    line.broker = MemoryBroker(other := MemoryLog())
    there = Directory(MemoryBroker(other))
    await there.put("schema", "a", {})
    await there.drop("schema", "a")
    await there.close()
    await here.refresh()
    assert here.facts("schema") == await _known_in(other) == {}


async def _known_in(log: MemoryLog) -> Mapping[str, dict[str, Any]]:
    """What somebody who comes to that log now knows."""
    other = Directory(MemoryBroker(log))
    await other.refresh()
    await other.close()
    return other.facts("schema")


# --- looking ------------------------------------------------------------------------------------------------------


def _pollers() -> int:
    return sum(task.get_name() == "wowevent:directory" for task in asyncio.all_tasks())


async def test_two_on_a_named_memory_log_hear_of_each_other_within_a_second(request: pytest.FixtureRequest):
    brokers = [open_broker(f"memory://{request.node.name}") for _ in range(2)]
    here, there = (Directory(broker) for broker in brokers)
    await asyncio.gather(here.start(), there.start())
    assert _pollers() == 2
    told = Told(there)
    await here.put("schema", "a", {"n": 1})
    await asyncio.sleep(1.1)
    assert told.changes == [("a", {"n": 1})]
    await asyncio.gather(here.close(), there.close(), *(broker.close() for broker in brokers))


async def test_where_nobody_else_has_the_log_nobody_looks(caplog: pytest.LogCaptureFixture):
    broker = open_broker("memory://")
    here = Directory(broker)
    await here.start()
    await here.put("schema", "a", {})
    assert here.facts("schema") == {"a": {}}
    assert _pollers() == 0
    await here.close()
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("often")
async def test_looking_ends_with_the_engine(here: Directory, line: Line, caplog: pytest.LogCaptureFixture):
    await here.start()
    await line.close()
    await eventually(lambda: _pollers() == 0)
    assert caplog.text == ""


async def test_closing_ends_what_waits(here: Directory, line: Line):
    await here.put("schema", "a", {})
    await here.start()
    line.held = asyncio.Event()
    waiting = [asyncio.create_task(here.refresh()) for _ in range(2)]
    await eventually(lambda: line.reads == 3)
    waiting.append(asyncio.create_task(here.put("schema", "b", {})))
    await asyncio.sleep(0.01)
    await here.close()
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [Closed, Closed, Closed]
    assert here.facts("schema") == {"a": {}}
    await here.close()
    head = (await line.ping()).head
    for call in (here.start, here.refresh, partial(here.put, "schema", "c", {})):
        with pytest.raises(Closed):
            await call()
    assert (await line.ping()).head == head
