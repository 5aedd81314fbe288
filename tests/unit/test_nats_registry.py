"""What all instances of the NATS engine know of subscriptions: the fold of its control stream, and what it says."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs

from wowevent.broker import URGENT, Filter, Subscription
from wowevent.brokers.nats.consumers import unread
from wowevent.brokers.nats.registry import (
    SPECS,
    Known,
    Log,
    Registry,
    Spec,
    declared,
    pack,
    read_known,
    read_log,
    remade,
    renewed,
)
from wowevent.errors import StorageDamaged
from wowevent.event import Event
from wowevent.routing import matches, spec_of


def subscription(*patterns: str, **settings: Any) -> Subscription:
    return Subscription(id="s", patterns=patterns or ("#",), **settings)


def spec(behind: int, *patterns: str, **settings: Any) -> Spec:
    return Spec(behind, spec_of(subscription(*patterns, **settings)))


def known(*specs: Spec, **fields: Any) -> Known:
    return Known("s", **{"begins": 1, "specs": specs or (spec(0),), **fields})


def folded(*entries: Known) -> Registry:
    registry = Registry()
    for offset, each in enumerate(entries, 1):
        registry.fold(offset, read_known(pack(each)))
    return registry


# ------------------------------------------------------------------------------------------------ entries


@given(
    st.builds(
        Known,
        id=st.text(min_size=1, max_size=5),
        begins=st.integers(1, 99),
        done=st.integers(0, 99),
        since=st.floats(0, 1e10),
        specs=st.lists(st.builds(Spec, st.integers(0, 99), st.text(max_size=5)), max_size=3).map(tuple),
        made=st.dictionaries(st.sampled_from(["u", "n", "s"]), st.integers(0, 9)),
        lapsed=st.booleans(),
        removed=st.booleans(),
    )
)
def test_what_is_written_is_read(entry: Known):
    assert read_known(pack(entry)) == entry


def test_which_log_it_is_is_written_and_read():
    assert read_log(pack(Log("e", "then"))) == Log("e", "then")


@pytest.mark.parametrize("body", [b"", b"x", b"[]", b"{}", b"\xff", b'{"id":1}', b'{"id":' + b"[" * 50_000])
def test_what_cannot_be_an_entry_is_damaged(body: bytes):
    for read in (read_known, read_log):
        with pytest.raises(StorageDamaged):
            read(body)


# ------------------------------------------------------------------------------------------------ fold


def test_the_newest_entry_of_each_is_known():
    registry = folded(known(spec(0, "a.*")), known(spec(0, "a.*"), spec(5, "b.*"), lapsed=True))
    assert registry.known["s"].lapsed
    assert registry.spec("s") == subscription("b.*")
    assert registry.specs("s") == [subscription("a.*"), subscription("b.*")]
    assert registry.routes.match(Event(topic="a.x")) == ()
    assert registry.routes.match(Event(topic="b.x")) == ("s",)
    assert registry.revisions == {"s": 2}


def test_what_was_removed_is_not_known_but_that_it_was():
    registry = folded(known(), structs.replace(known(), removed=True))
    assert (registry.known, registry.spec("s"), registry.specs("s")) == ({}, None, [])
    assert registry.routes.match(Event(topic="a")) == ()
    assert registry.revisions == {"s": 2}
    registry.fold(3, known(spec(0, "b")))
    assert registry.spec("s") == subscription("b")


@pytest.mark.parametrize(
    "damaged", [known(specs=()), known(Spec(0, "no")), known(spec(0), Spec(1, '{"patterns":["a b"]}'))]
)
def test_an_entry_that_cannot_be_one_changes_nothing(damaged: Known):
    registry = folded(known(spec(0, "a")))
    with pytest.raises(StorageDamaged):
        registry.fold(2, damaged)
    assert registry.known["s"] == known(spec(0, "a"))
    assert registry.specs("s") == [subscription("a")]
    assert registry.routes.match(Event(topic="a")) == ("s",)
    assert registry.revisions == {"s": 1}
    assert registry.wants("s", Event(topic="a"), 1, "n")


def test_an_entry_of_a_removed_one_needs_no_declaration():
    assert folded(known(), known(specs=(), removed=True)).known == {}


def test_an_id_that_nobody_knows_wants_nothing():
    registry = folded()
    assert (registry.spec("s"), registry.specs("s"), registry.held_then("s", 1)) == (None, [], None)
    assert not registry.wants("s", Event(topic="a"), 1, "n")
    registry.forget("s")


# ------------------------------------------------------------------------------------------------ declared


def test_a_declaration_holds_behind_the_end_of_the_log():
    found = declared(known(spec(0, "a")), subscription("b"), head=7, unread=3, now=9.0)
    assert found.specs == (spec(0, "a"), spec(7, "b"))
    assert (found.at, found.done) == (9.0, 2)


def test_the_same_declaration_again_is_none():
    before = known(spec(0, "a"), at=5.0)
    assert declared(before, subscription("a"), head=7, unread=1, now=4.0) == before


def test_declarations_that_are_read_are_forgotten():
    before = known(spec(0, "a"), spec(4, "b"), spec(9, "c"))
    for unread_from, left in ((1, 4), (4, 4), (5, 3), (9, 3), (10, 2), (20, 2), (21, 1)):
        found = declared(before, subscription("d"), head=20, unread=unread_from, now=1.0)
        assert len(found.specs) == left
        assert found.specs[-1] == spec(20, "d")
        assert found.done == unread_from - 1


def test_what_was_settled_stays_so():
    before = known(spec(0, "a"), done=30)
    assert declared(before, subscription("b"), head=40, unread=5, now=1.0).done == 30


def test_no_more_declarations_are_kept_than_may_be():
    found = known(spec(0, "a"))
    for n in range(1, 40):
        found = declared(found, subscription(f"t{n}"), head=n, unread=1, now=1.0)
    assert len(found.specs) == SPECS
    assert found.specs[-1] == spec(39, "t39")


steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "#"]), st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=8
)


@given(steps)
@example([("a", 3, 0.0), ("b", 3, 0.5), ("a", 0, 1.0)])
def test_what_is_unread_is_wanted_by_the_declaration_that_it_was_published_under(
    steps: list[tuple[str, int, float]],
):
    """A log that grows, a reader that settles some of it, declarations between."""
    entry: Known | None = None
    log: list[tuple[str, Subscription]] = []
    read_to, topics = 0, ("a", "b")
    for pattern, count, share in steps:
        head = len(log)
        wish = subscription(pattern)
        entry = (
            known(spec(head, pattern), begins=head + 1)
            if entry is None
            else declared(entry, wish, head, read_to + 1, 1.0)
        )
        log += [(topics[(head + n) % 2], wish) for n in range(count)]
        registry = folded(entry)
        for offset, (topic, declared_then) in enumerate(log, 1):
            event = Event(topic=topic)
            wanted = registry.wants("s", event, offset, "n")
            if offset > max(read_to, entry.begins - 1):
                assert wanted == matches(declared_then, event)
            if offset <= entry.done or offset < entry.begins:
                assert not wanted
        read_to += int(share * (len(log) - read_to))


def test_a_log_that_was_made_anew_is_wanted_from_its_beginning():
    before = known(spec(3, "a"), spec(40, "b"), begins=4, done=50, since=7.0, until=3, lost=2, again=True, log="then")
    found = renewed(before, "now")
    assert found.specs == (spec(0, "b"),)
    assert (found.begins, found.done, found.since, found.until, found.log) == (1, 0, 0.0, 0, "now")
    assert (found.lost, found.untold, found.again) == (2, True, True)
    assert found.made == {"u": 1, "n": 1}
    assert folded(found).wants("s", Event(topic="b"), 1, "n")


def test_consumers_that_were_made_anew_are_counted():
    assert remade(remade(known(), ["n", "s"]), ["n"]).made == {"n": 2, "s": 1}


# ------------------------------------------------------------------------------------------------ held_then, wants


def test_which_declaration_held_at_a_place():
    registry = folded(known(spec(3, "a"), spec(7, "b"), spec(7, "c"), spec(9, "d")))
    found = [registry.held_then("s", offset) for offset in range(1, 12)]
    names = ["a", "a", "a", "a", "a", "a", "a", "c", "c", "d", "d"]
    assert found == [subscription(name) for name in names]


@pytest.mark.parametrize("priority", [1, URGENT - 1, URGENT, 10])
@pytest.mark.parametrize("exclusive", [False, True])
def test_an_event_is_wanted_by_one_lane(priority: int, exclusive: bool):
    registry = folded(known(spec(0, exclusive=exclusive)))
    event = Event(topic="a", priority=priority)
    urgent = priority >= URGENT and not exclusive
    assert registry.wants("s", event, 5, "u") is urgent
    assert registry.wants("s", event, 5, "n") is not urgent


def test_where_exclusive_was_switched_the_lane_is_that_of_then():
    registry = folded(known(spec(0), spec(5, exclusive=True), spec(9)))
    event = Event(topic="a", priority=9)
    assert [lane for offset in (5, 6, 9, 10) for lane in "un" if registry.wants("s", event, offset, lane)] == list(
        "unnu"
    )


def test_what_was_settled_or_lies_before_its_beginning_is_not_wanted():
    registry = folded(known(spec(3), begins=4, done=8))
    assert [offset for offset in range(1, 12) if registry.wants("s", Event(topic="a"), offset, "n")] == [9, 10, 11]
    registry = folded(known(spec(3), begins=4))
    assert [offset for offset in range(1, 7) if registry.wants("s", Event(topic="a"), offset, "n")] == [4, 5, 6]


def test_of_what_was_there_it_wants_what_came_since_a_moment():
    registry = folded(known(spec(0), since=1_000.0, until=5))
    old, new = (Event(topic="a", timestamp=datetime.fromtimestamp(at, UTC)) for at in (999, 1_000))
    assert [registry.wants("s", event, offset, "n") for offset in (5, 6) for event in (old, new)] == [
        False,
        True,
        True,
        True,
    ]


@pytest.mark.parametrize("keyed", [False, True])
def test_filters_targets_and_patterns_decide(keyed: bool):
    pattern = "a.*.#" if keyed else "a.*"
    wish = subscription(pattern, keyed=keyed, agent="me", filter=Filter(sources=frozenset({"x"})))
    registry = folded(known(Spec(0, spec_of(wish))))
    events = [
        Event(topic="a.b", source_agent="x"),
        Event(topic="a.b", source_agent="y"),
        Event(topic="a.b", source_agent="x", target_agent="me"),
        Event(topic="a.b", source_agent="x", target_agent="you"),
        Event(topic="b.a", source_agent="x"),
        Event(topic="a", source_agent="x"),
    ]
    found = [registry.wants("s", event, 1, "n") for event in events]
    assert found == [matches(wish, event) for event in events]
    assert found == [True, False, True, False, False, keyed]


# ------------------------------------------------------------------------------------------------ unread


@pytest.mark.parametrize(
    ("state", "first"),
    [
        ({}, 4),  # it is not there: nothing is known
        ({"num_pending": 0, "num_ack_pending": 0, "ack_floor": {"stream_seq": 7}}, 21),
        ({"num_pending": 1, "num_ack_pending": 0, "ack_floor": {"stream_seq": 7}}, 8),
        ({"num_pending": 0, "num_ack_pending": 2, "ack_floor": {"stream_seq": 0}}, 4),
    ],
)
def test_the_first_that_may_not_be_settled(state: dict[str, Any], first: int):
    assert unread(state, known(begins=4), 20) == first
    assert unread(state, known(begins=1, done=3), 20) == first
