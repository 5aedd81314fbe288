"""The names of the NATS engine, and its filters, compared with a definition of what a server does with a subject."""

import re
from itertools import permutations, product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec import structs

from wowevent.broker import URGENT, Subscription
from wowevent.brokers.nats.names import LANES, Names, distinct, holds, lane_of, word
from wowevent.event import Event
from wowevent.routing import matches
from wowevent.topic import is_reserved


def fits(wish: list[str], subject: list[str]) -> bool:
    """Whether the server finds a subject by a filter: `*` is one word, `>` as the last is one or more."""
    if not wish or not subject:
        return wish == subject
    if wish == [">"]:
        return True
    return wish[0] in ("*", subject[0]) and fits(wish[1:], subject[1:])


def catches(filters: set[str], subject: str) -> bool:
    return any(fits(each.split("."), subject.split(".")) for each in filters)


names = Names("default")
words = st.sampled_from(["a", "b", "_bus", "low", "normal", "high", "critical"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=5).map(".".join)
declarations = st.builds(
    Subscription,
    id=st.just("s"),
    patterns=st.lists(patterns, min_size=1, max_size=3).map(tuple),
    exclusive=st.booleans(),
    keyed=st.booleans(),
)
events = st.builds(
    lambda **fields: Event(**fields),  # noqa: PLW0108 - its own signature is not that of the struct below, which hypothesis would read
    topic=topics,
    event_type=st.none() | topics,
    priority=st.integers(1, 10),
)


# ------------------------------------------------------------------------------------------------ filters


@settings(max_examples=1000)
@example(Subscription(id="s", patterns=("a.*.#",), keyed=True), Event(topic="a"))
@example(Subscription(id="s", patterns=("a.normal.#.#",), keyed=True), Event(topic="a"))
@example(Subscription(id="s", patterns=("a.#.normal.#",), keyed=True), Event(topic="a"))
@example(Subscription(id="s", patterns=("#.high",), keyed=True), Event(topic="high", event_type="a"))
@example(Subscription(id="s", patterns=("a.*",), keyed=True), Event(topic="a", priority=9))
@example(Subscription(id="s", patterns=("*.*",), exclusive=True), Event(topic="a.b", priority=9))
@example(Subscription(id="s", patterns=("a.#",)), Event(topic="a"))
@example(Subscription(id="s", patterns=("a.#.*",)), Event(topic="a.b"))
@given(declarations, events)
def test_what_is_wanted_is_held_by_the_filters_of_its_lane(subscription: Subscription, event: Event):
    if matches(subscription, event):
        lane = "u" if event.priority >= URGENT and not subscription.exclusive else "n"
        assert catches(names.filters(subscription, lane), names.event(event))


@settings(max_examples=500)
@given(declarations, events)
def test_the_other_lane_holds_nothing_of_it(subscription: Subscription, event: Event):
    subscription = structs.replace(subscription, exclusive=False)
    other = "n" if event.priority >= URGENT else "u"
    assert not catches(names.filters(subscription, other), names.event(event))


@settings(max_examples=500)
@example(Subscription(id="s", patterns=("a.*", "*.b")), Event(topic="b.a"))
@example(Subscription(id="s", patterns=("*", "a.b")), Event(topic="_bus"))
@given(declarations, events)
def test_a_pattern_with_a_hash_at_its_end_alone_catches_nothing_else(subscription: Subscription, event: Event):
    plain = tuple(each for each in subscription.patterns if "#" not in each.removesuffix("#"))
    subscription = structs.replace(subscription, patterns=plain, keyed=False, exclusive=False)
    caught = any(catches(names.filters(subscription, lane), names.event(event)) for lane in LANES)
    assert caught is any(matches(structs.replace(subscription, patterns=(each,)), event) for each in plain)


FILTERS = {
    "*": {"u.>"},
    "#": {"u.>"},
    "a": {"u.a"},
    "a.*": {"u.a.>"},
    "a.#": {"u.a", "u.a.>"},
    "*.b": {"u.*.b"},
    "*.*": {"u.*.>"},
    "a.*.b": {"u.a.*.b"},
    "a.#.b": {"u.a.>"},
    "#.b": {"u.>"},
    "_bus.#": {"U._bus", "U._bus.>"},
    "_reply.*": {"U._reply.>"},
}


@pytest.mark.parametrize("pattern", FILTERS)
def test_the_filters_of_a_pattern(pattern: str):
    found = names.filters(Subscription(id="s", patterns=(pattern,)), "u")
    assert found == {f"wow.default.{each}" for each in FILTERS[pattern]}


def test_an_exclusive_one_has_both_lanes_in_one():
    found = names.filters(Subscription(id="s", patterns=("a", "_bus.x"), exclusive=True), "n")
    assert found == {f"wow.default.{each}" for each in ("u.a", "n.a", "U._bus.x", "N._bus.x")}


# ------------------------------------------------------------------------------------------------ distinct, holds

wishes = st.lists(st.sampled_from(["a", "b", "*"]), max_size=3).flatmap(
    lambda head: st.sampled_from(["a", "b", "*", ">"]).map(lambda last: ".".join((*head, last)))
)
EVERY = [
    list(each) for count in range(1, 6) for each in product("abc", repeat=count)
]  # longer than any of these filters


@settings(max_examples=500)
@given(wishes, wishes)
def test_one_filter_holds_another_if_it_catches_all_that_that_one_does(wide: str, narrow: str):
    expected = all(fits(wide.split("."), each) for each in EVERY if fits(narrow.split("."), each))
    assert holds(wide, narrow) is expected


@settings(max_examples=500)
@given(st.sets(wishes, max_size=6))
def test_distinct_filters_hold_all_and_none_holds_another(subjects: set[str]):
    found = distinct(subjects)
    assert found == sorted(set(found))
    assert set(found) <= subjects
    assert not any(holds(one, other) for one in found for other in found if one != other)
    assert all(any(holds(one, other) for one in found) for other in subjects)


@settings(max_examples=500)
@given(declarations, declarations, st.sampled_from(LANES))
def test_the_filters_of_two_declarations_are_ones_that_the_server_takes(
    one: Subscription, two: Subscription, lane: str
):
    found = distinct(names.filters(one, lane) | names.filters(two, lane))
    assert found or (one.exclusive and two.exclusive)
    for each in found:
        assert re.fullmatch(r"wow\.default\.[unUN](\.([A-Za-z0-9_-]+|\*))*(\.>)?", each)
    assert not any(holds(a, b) for a, b in permutations(found, 2))


# ------------------------------------------------------------------------------------------------ lanes and places


@pytest.mark.parametrize(
    ("topic", "priority", "lane"),
    [("a", 6, "n"), ("a", 7, "u"), ("a", 10, "u"), ("_bus.x", 5, "N"), ("_bus.x", 9, "U"), ("a._bus", 1, "n")],
)
def test_the_lane_of_an_event(topic: str, priority: int, lane: str):
    event = Event(topic=topic, priority=priority)
    assert lane_of(event) == lane
    assert names.event(event) == f"wow.default.{lane}.{topic}"
    assert names.topic(names.event(event)) == topic


def test_a_reply_is_stored_nowhere():
    assert names.event(Event(topic="_reply.x.1", priority=9)) == names.live("_reply.x.1") == "wow.default.p._reply.x.1"


@given(events)
def test_a_reserved_topic_lies_where_a_pattern_of_all_does_not_look(event: Event):
    everything = Subscription(id="s", patterns=("#", "*", "*.#"))
    found = any(catches(names.filters(everything, lane), names.event(event)) for lane in LANES)
    assert found is not is_reserved(event.topic)


# ------------------------------------------------------------------------------------------------ names

LONG = "n" * 128
ODD = [
    "x",
    "x-u",
    "x-a",
    "a.b",
    "a_b",
    "a b",
    "x.",
    "x..",
    "/",
    "@",
    ":",
    "-",
    "_",
    "*",
    ">",
    "$JS",
    "ä",
    "\x00",
    "x\r\nPUB y 0",
]
ODD += ["s", "u", "log", "control", "later", "one.x", "one_x", LONG, LONG[:-1] + "m", "n" * 40, "n" * 41, "\U0001f600"]
ODD += [word("a.b"), word(word("a.b")), word(LONG), word("one.x")]
texts = st.text(min_size=1, max_size=50) | st.sampled_from(ODD)


@settings(max_examples=1000)
@example("a.b", word("a.b"))
@given(texts, texts)
def test_two_names_are_two_words(one: str, other: str):
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,41}", word(one))
    assert (word(one) == word(other)) is (one == other)


@pytest.mark.parametrize("name", ["worker", "Agent_1-b", "n" * 40, "0190c5a7-6e1e-7c3a-9a3b-0123456789ab"])
def test_a_plain_name_is_its_own_word(name: str):
    assert word(name) == name


def places(here: Names, id: str) -> list[str]:
    """Where something of a subscription lies, or waits, or is known."""
    once = [here.once_more(id, lane) for lane in "sun"]
    return [*once, here.retries(id), here.letters(id), here.subscription(id), here.lock(f"one.{id}")]


def test_no_name_stands_for_two_things():
    found: dict[str, object] = {}
    for namespace in ("default", "x", "x-log", "log", "a.b", "a_b", LONG):
        here = Names(namespace)
        streams = (here.log, here.again, here.later, here.dead, here.control)
        for kind, name in enumerate((*streams, here.lock("later"))):
            assert found.setdefault(name, (namespace, kind)) == (namespace, kind)
        for id in ODD:
            consumers = [f"{here.log} {here.consumer(id, source)}" for source in ("u", "n", "s", "au", "an")]
            for kind, name in enumerate([*places(here, id), *consumers, here.held(id)]):
                assert found.setdefault(name, (namespace, id, kind)) == (namespace, id, kind)
    assert len(found) == 7 * (6 + 13 * len(ODD))


@settings(max_examples=500)
@given(st.sampled_from(["default", "a.b", LONG, "@/:"]), texts)
def test_every_name_is_one_that_the_server_takes(namespace: str, id: str):
    here = Names(namespace)
    for stream in (here.log, here.again, here.later, here.dead, here.control, here.consumer(id, "au")):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,60}", stream)
    for subject in (*places(here, id), here.held(id), here.fact("_bus.x"), here.live("_reply.x")):
        assert re.fullmatch(r"wow(\.[A-Za-z0-9_-]{1,41})+", subject)
