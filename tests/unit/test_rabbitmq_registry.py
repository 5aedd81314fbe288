"""The fold of the RabbitMQ engine's control log: with snapshots or without them, it says the same."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from wowevent.broker import Filter, Subscription
from wowevent.brokers.rabbitmq import registry as module
from wowevent.brokers.rabbitmq.registry import (
    Begun,
    Cancelled,
    Declared,
    Entry,
    Held,
    Joined,
    Lapsed,
    Left,
    Made,
    Mark,
    Parted,
    Registry,
    Removed,
    Returned,
    Served,
    Snapshot,
    Stopped,
    pack,
    unpack,
)
from wowevent.errors import StorageDamaged
from wowevent.event import Event
from wowevent.routing import spec_of


def declared(id: str = "s", *patterns: str, at: float = 0.0, **settings: Any) -> Declared:
    return Declared(id, spec_of(Subscription(id=id, patterns=patterns or ("#",), **settings)), at)


def folded(*entries: Entry, onto: Registry | None = None) -> Registry:
    registry = onto or Registry()
    for entry in entries:
        registry.fold(registry.offset + 1, entry)
    return registry


IDS, MESSAGES, EVENTS, TOPICS = ("s", "t"), ("m/", "m/c", "m\n/"), ("e", "f"), ("a", "b", "c")
SHOWN = [Event(topic=topic, event_id="x", priority=priority) for topic in TOPICS for priority in (5, 8)]


def state(registry: Registry) -> dict[str, Any]:
    """All that it says."""
    seen = range(-1, registry.offset + 1)
    return {
        "epoch": registry.epoch,
        "instances": registry.instances,
        "known": {id: (each.specs, each.at, each.made, each.lapsed) for id, each in registry.known.items()},
        "specs": {id: registry.spec(id) for id in IDS},
        "routes": [set(registry.routes.match(event)) for event in SHOWN],
        "wants": [
            (id, event.topic, at) for id in IDS for event in SHOWN for at in seen if registry.wants(id, event, at)
        ],
        "facts": list(registry.facts.items()),
        "returns": {(id, message): registry.returns(id, message) for id in IDS for message in MESSAGES},
        "stops": {id: [registry.stops(id, at) for at in seen] for id in IDS},
        "delayed": {event: registry.delayed(event) for event in EVENTS},
        "offset": registry.offset,
    }


# ------------------------------------------------------------------------------------------------ snapshots

subscriptions = st.builds(
    Subscription,
    id=st.sampled_from(IDS),
    patterns=st.sampled_from([("a",), ("b", "c"), ("#",)]),
    filter=st.none() | st.just(Filter(priorities=frozenset({8}))),
)
ids, times = st.sampled_from(IDS), st.integers(0, 3).map(float)
entries = st.one_of(
    st.builds(Begun, st.sampled_from(["1", "2"]), st.sampled_from(["", "1"])),
    st.builds(Joined, ids),
    st.builds(Parted, ids),
    st.builds(lambda each, at: Declared(each.id, spec_of(each), at), subscriptions, times),
    st.builds(Removed, ids),
    st.builds(Made, ids, st.sampled_from(["suspects", "dead"])),
    st.builds(Served, ids, times),
    st.builds(Lapsed, ids),
    st.builds(Returned, ids, st.lists(st.sampled_from(MESSAGES), max_size=3).map(tuple)),
    st.builds(Stopped, ids, times, st.integers(1, 3)),
    st.builds(Held, st.sampled_from(EVENTS)),
    st.builds(Left, st.sampled_from(EVENTS)),
    st.builds(Cancelled, st.sampled_from(EVENTS)),
    st.just(Mark()),
)
facts = st.tuples(st.sampled_from(TOPICS), times, st.sampled_from([b"1", b"2"]))
readers = st.integers(0, 2)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), entries | facts),
        st.tuples(st.just("read"), readers, st.integers(1, 9)),
        st.tuples(st.just("snapshot"), readers),
    ),
    max_size=40,
)


class Reader:
    """An instance that has read a log up to somewhere, from somewhere on."""

    def __init__(self, log: list[Any], first: int = 0) -> None:
        self.registry = Registry()
        self.results: list[Any] = []
        self._log = log
        self._at = first

    def read(self, count: int | None = None, *, blind: bool = False) -> "Reader":
        """Fold so many more, or all; a blind one knows no snapshots."""
        upto = len(self._log) if count is None else self._at + count
        for offset, item in enumerate(self._log[self._at : upto], self._at):
            if isinstance(item, tuple):
                self.registry.fold_fact(offset, *item)
            else:
                entry = Mark() if blind and isinstance(item, Snapshot) else item
                self.results.append(self.registry.fold(offset, unpack(pack(entry))))
            self._at = offset + 1
        return self


@settings(max_examples=250)
@example([("append", Joined("s")), ("read", 0, 1), ("snapshot", 0), ("snapshot", 1)])  # who wrote the second one lags
@example([("append", ("a", 1.0, b"1")), ("read", 0, 1), ("append", ("b", 1.0, b"1")), ("snapshot", 0), ("snapshot", 1)])
@example([("append", Held("e")), ("append", Left("e")), ("read", 0, 1), ("snapshot", 0), ("append", Left("e"))])
@given(steps)
def test_with_snapshots_of_who_lags_it_says_what_it_says_without(steps: list[tuple[Any, ...]]):
    log: list[Any] = []
    readers = [Reader(log) for _ in range(3)]
    for step in steps:
        if step[0] == "append":
            log.append(step[1])
        elif step[0] == "read":
            readers[step[1]].read(step[2])
        else:
            log.append(readers[step[1]].registry.snapshot())
    alone = Reader(log).read(blind=True)
    for reader in readers:
        reader.read()
        assert state(reader.registry) == state(alone.registry)
        assert reader.results == alone.results
    last = max((item.through for item in log if isinstance(item, Snapshot)), default=-1)
    newcomer = Reader(log, last + 1).read()  # what lies before it may be forgotten by then
    assert state(newcomer.registry) == state(alone.registry)


@given(st.lists(entries | facts, max_size=30), st.integers(2, 4))
def test_the_same_snapshot_again_does_no_harm(items: list[Any], copies: int):
    log, snapshot = list(items), Reader(items).read().registry.snapshot()
    log += [snapshot] * copies
    log += [Joined("t"), ("a", 9.0, b"9"), snapshot, Returned("s", ("m/",)), snapshot]
    assert state(Reader(log).read().registry) == state(Reader(log).read(blind=True).registry)
    first = len(items)
    assert state(Reader(log, first).read().registry) == state(Reader(log).read(blind=True).registry)


def test_a_snapshot_counts_as_what_was_written_since():
    registry = folded(*[Joined(f"{n}") for n in range(100)])
    registry.bytes = 10_000
    snapshot = registry.snapshot()
    folded(snapshot, onto=registry)
    assert registry.bytes == len(snapshot.state)


# ------------------------------------------------------------------------------------------------ what it says


@given(entries)
def test_an_entry_is_what_was_written(entry: Entry):
    assert unpack(pack(entry)) == entry


NO_ENTRIES = {
    "nothing": b"",
    "no msgpack": b"\xc1",
    "text": msgspec.msgpack.encode("joined"),
    "a newer kind": msgspec.msgpack.encode({"type": "newer", "id": "s"}),
    "a field is missing": msgspec.msgpack.encode({"type": "declared", "id": "s"}),
    "a field is of another kind": msgspec.msgpack.encode({"type": "joined", "instance": 5}),
    "a byte that is no text": pack(Joined("\U0001f600")).replace(b"\xf0", b"\xff"),
    "deep": b"\x82\xa4type\xa6joined\xa1x" + b"\x91" * 100_000,
    "an event": b'{"v":1,"topic":"_bus.x"}',
}


@pytest.mark.parametrize("data", NO_ENTRIES.values(), ids=NO_ENTRIES.keys())
def test_what_is_no_entry_is_said(data: bytes):
    with pytest.raises(StorageDamaged):
        unpack(data)


def test_a_declaration_that_cannot_be_read_changes_nothing_now_or_later():
    registry = folded(declared("s", "a"))
    snapshot = registry.snapshot()
    before = state(registry)
    with pytest.raises(StorageDamaged):
        registry.fold(1, Declared("t", '{"patterns":["a..b"]}', 1.0))
    registry.offset = 0
    assert state(registry) == before
    folded(Mark(), Joined("after"), snapshot, onto=registry)  # the snapshot's writer had not read that far
    assert registry.instances == {"after"}
    assert registry.routes.match(Event(topic="a")) == ("s",)


BROKEN = {
    "no msgpack": b"\xc1",
    "another shape": msgspec.msgpack.encode({"epoch": 1}),
    "a declaration that is none": folded(declared("s", "a")).snapshot().state.replace(b'["a"]', b'["."]'),
    "a text that is none": folded(Begun("\U0001f600")).snapshot().state.replace(b"\xf0", b"\xff"),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN.keys())
def test_a_snapshot_that_cannot_be_read_changes_nothing(data: bytes):
    registry = folded(Begun("1"), declared("s", "a"), Joined("i"), Held("e"))
    before = state(registry)
    with pytest.raises(StorageDamaged):
        registry.fold(4, Snapshot(3, data))
    registry.offset = 3
    assert state(registry) == before


def test_the_first_to_begin_a_log_names_it():
    registry = folded(Begun("1"), Begun("2"))
    assert registry.epoch == "1"
    folded(Begun("3", after="1"), Begun("4", after="1"), onto=registry)
    assert registry.epoch == "3"


def test_an_event_is_wanted_by_the_declaration_that_it_was_routed_by_or_a_later_one():
    registry = folded(Mark(), declared("s", "a"), Mark(), declared("s", "b"), Mark(), declared("s", "c"))
    a, b, c = (Event(topic=topic) for topic in "abc")
    assert [registry.wants("s", a, seen) for seen in range(-1, 6)] == [True, True, True, True, False, False, False]
    assert [registry.wants("s", b, seen) for seen in range(-1, 6)] == [True] * 6 + [False]
    assert all(registry.wants("s", c, seen) for seen in range(-1, 7))
    assert not registry.wants("s", Event(topic="d"), -1)
    assert not registry.wants("other", a, -1)
    folded(Removed("s"), declared("s", "b"), onto=registry)
    assert not registry.wants("s", a, 2)  # it was another one
    assert registry.wants("s", b, 2)


def test_declaring_the_same_again_is_no_new_declaration():
    registry = folded(*[declared("s", "a", at=float(n)) for n in range(50)])
    assert len(registry.known["s"].specs) == 1
    assert registry.known["s"].at == 49.0
    folded(*[declared("s", f"n.{n}") for n in range(50)], onto=registry)
    kept = [n for n in range(50) if registry.wants("s", Event(topic=f"n.{n}"), -1)]
    assert kept == list(range(42, 50))
    assert len(registry.known["s"].specs) == 8


def test_what_was_given_back_is_counted_for_each_message(monkeypatch: pytest.MonkeyPatch):
    registry = folded(declared("s"), declared("t"), Returned("s", ("m/", "n/")), Returned("s", ("m/", "m/c")))
    found = [registry.returns(*each) for each in (("s", "m/"), ("s", "n/"), ("s", "m/c"), ("t", "m/"), ("no", "m/"))]
    assert found == [2, 1, 1, 0, 0]
    folded(Returned("no", ("m/",)), onto=registry)
    assert registry.returns("no", "m/") == 0  # nobody knows it
    monkeypatch.setattr(module, "_RETURNED", 2)
    folded(Returned("s", ("n/", "o/")), onto=registry)
    assert [registry.returns("s", message) for message in ("m/", "m/c", "n/", "o/")] == [0, 0, 2, 1]


VERDICTS: dict[str, tuple[tuple[Entry, ...], list[Any], str]] = {
    "it leaves": ((Held("e"), Left("e")), ["", "held"], "left"),
    "cancelled before it leaves": ((Held("e"), Cancelled("e"), Left("e")), ["", "held", "cancelled"], "cancelled"),
    "cancelled when it has left": ((Held("e"), Left("e"), Cancelled("e")), ["", "held", "left"], "left"),
    "cancelled twice": ((Held("e"), Cancelled("e"), Cancelled("e")), ["", "held", "cancelled"], "cancelled"),
    "left twice": ((Held("e"), Left("e"), Left("e")), ["", "held", "left"], "left"),
    "held twice": ((Held("e"), Held("e"), Left("e")), ["", "held", "held"], "left"),
    "held again when it has left": ((Held("e"), Left("e"), Held("e")), ["", "held", "left"], "left"),
    "cancelled, and never held": ((Cancelled("e"), Held("e")), ["", ""], "held"),
    "left before that it is held is known": ((Left("e"), Held("e"), Cancelled("e")), ["", "left", "left"], "left"),
}


@pytest.mark.parametrize(("entries", "said", "after"), VERDICTS.values(), ids=VERDICTS.keys())
def test_the_first_who_cancels_or_lets_leave_decides(entries: tuple[Entry, ...], said: list[Any], after: str):
    registry = Registry()
    assert [registry.fold(offset, entry) for offset, entry in enumerate(entries)] == said
    assert registry.delayed("e") == after
    assert registry.delayed("f") == ""


def test_only_so_many_that_are_gone_are_remembered(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_GONE", 2)
    registry = folded(*[step for n in range(4) for step in (Held(f"{n}"), Left(f"{n}"))], Held("there"))
    assert [registry.delayed(f"{n}") for n in range(4)] == ["", "", "left", "left"]
    assert registry.delayed("there") == "held"


def test_who_lets_a_subscription_lapse_is_one():
    registry = folded(declared("s", at=5.0), Made("s", "dead"))
    assert [registry.fold(offset, Lapsed("s")) for offset in (2, 3)] == [True, False]
    assert registry.known["s"].lapsed
    folded(Served("s", 3.0), onto=registry)
    assert (registry.known["s"].lapsed, registry.known["s"].at) == (False, 5.0)
    assert registry.fold(5, Lapsed("s")) is True
    assert registry.fold(6, Lapsed("no")) is None
    assert registry.known["s"].made == {"dead"}


def test_what_is_removed_is_forgotten_with_all_that_was_said_of_it():
    registry = folded(declared("s", "a"), Made("s", "dead"), Removed("s"), Made("s", "suspects"), Served("s", 1.0))
    assert registry.known == {}
    assert registry.spec("s") is None
    assert registry.routes.match(Event(topic="a")) == ()
    folded(declared("s", "b"), Removed("no"), onto=registry)
    assert registry.known["s"].made == set()


def test_the_newest_fact_of_a_topic_is_the_last_of_all():
    registry = Registry()
    for offset, (topic, body) in enumerate([("a", b"1"), ("b", b"2"), ("a", b"3")]):
        registry.fold_fact(offset, topic, float(offset), body)
    assert list(registry.facts.items()) == [("b", (1, 1.0, b"2")), ("a", (2, 2.0, b"3"))]
    assert registry.offset == 2


@pytest.mark.parametrize(
    ("entries", "stands"),
    [
        ([], False),
        ([declared(at=5.0)], True),
        ([declared("t", at=5.0)], False),
        ([declared("s", "a", at=5.0)], False),
        ([declared("s", "a", at=5.0), declared(at=6.0)], True),
        ([declared(at=5.0), declared("s", "a", at=6.0)], False),
        ([declared(at=4.0)], False),  # nobody is known to have used it since
        ([declared(at=4.0), Served("s", 5.0)], True),
        ([declared(at=5.0), Lapsed("s")], False),
        ([declared(at=5.0), Lapsed("s"), Served("s", 6.0)], True),
        ([declared(at=5.0), Removed("s")], False),
    ],
)
def test_a_declaration_that_stands_is_not_made_again(entries: list[Entry], stands: bool) -> None:
    assert folded(*entries).stands("s", declared().spec, since=5.0) is stands


def test_consumers_that_ended_behind_a_place_of_the_log_are_counted():
    registry = folded(declared("s"), declared("t"), Stopped("s", 6.0, 1), Stopped("t", 6.0, 9), Stopped("s", 7.0, 2))
    assert [registry.stops("s", seen) for seen in range(5)] == [3, 3, 2, 2, 0]
    assert registry.stops("s", -1) == 0, "who published it has not read the log"
    assert registry.stops("no", 0) == 0
    assert registry.known["s"].at == 7.0
    for _ in range(100):
        folded(Stopped("s", 8.0, 1), onto=registry)
    assert registry.stops("s", 0) == 64
