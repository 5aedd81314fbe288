"""The topic grammar against definitions of it that are slow and plain, in both styles; the trie against a list."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fuzz.rounds import Rounds
from tests.fuzz.test_codec import is_topic
from tests.fuzz.texts import SCALARS, WICKED
from tests.unit.test_access_rights import within
from tests.unit.test_topic import oracle
from wowevent.broker import Filter, Subscription
from wowevent.errors import InvalidTopic
from wowevent.event import Event
from wowevent.routing import Routes
from wowevent.routing import matches as gets
from wowevent.topic import Trie, check_pattern, check_topic, compile_pattern, covers, matches, matches_any, matches_key

ALMOST = st.text("abZ09_-.*#", max_size=12) | st.text("a.", min_size=190, max_size=205) | SCALARS | WICKED
WORD = st.sampled_from(("a", "b", "c", "_r", "task", "low", "high"))
TOPIC = st.lists(WORD, min_size=1, max_size=7).map(".".join)
PATTERN = st.lists(WORD | st.sampled_from(("*", "#")), min_size=1, max_size=7).map(".".join)
LONG = st.lists(st.sampled_from(("a", "*", "#")), min_size=60, max_size=100).map(".".join)


def is_pattern(value: Any) -> bool:
    """Words of a topic, or wildcards that are whole words."""
    if not isinstance(value, str) or len(value) > 200:
        return False
    return all(word in {"*", "#"} or is_topic(word) for word in value.split("."))


def taken(check: Any, value: Any) -> bool:
    """Whether it passes, as it is."""
    try:
        assert check(value) == value
    except InvalidTopic as error:
        said = str(error)
        assert len(said) < 300
        assert said.isprintable()
        return False
    return True


def test_what_is_a_topic_and_what_a_pattern(fuzz: Rounds):
    def judged(value: Any) -> None:
        assert taken(check_topic, value) is is_topic(value)
        assert taken(check_pattern, value) is is_pattern(value)

    fuzz.check(judged, short=200, value=ALMOST)


def test_what_a_pattern_matches(fuzz: Rounds):
    def judged(pattern: str, topic: str, others: list[str]) -> None:
        assert matches(pattern, topic) is oracle(pattern, topic)
        assert matches_key(pattern, topic) is oracle(pattern, topic, amqp=True)
        several = (pattern, *others)
        assert matches_any(several, topic) is any(oracle(each, topic) for each in several)

    fuzz.check(judged, short=200, pattern=PATTERN, topic=TOPIC, others=st.lists(PATTERN, max_size=2))


def test_what_lies_within_a_pattern(fuzz: Rounds):
    short = st.lists(st.sampled_from(("a", "b", "_r", "*", "#")), min_size=1, max_size=3).map(".".join)

    def judged(granted: str, wanted: str) -> None:
        assert covers(granted, wanted) is within(granted, wanted)

    fuzz.check(judged, short=40, granted=short, wanted=short)


def test_nothing_that_lies_within_a_pattern_is_matched_without_it(fuzz: Rounds):
    def judged(granted: str, wanted: str, topics: list[str]) -> None:
        if covers(granted, wanted):
            assert not [each for each in topics if oracle(wanted, each) and not oracle(granted, each)]

    fuzz.check(judged, granted=PATTERN, wanted=PATTERN, topics=st.lists(TOPIC, min_size=5, max_size=20))


def test_no_pattern_keeps_anybody_busy(fuzz: Rounds):
    def judged(pattern: str, other: str) -> None:
        began = time.process_time()
        matches(pattern, "a." * 99 + "b")
        matches_key(pattern, "a." * 99 + "b")
        covers(pattern, other)
        covers(other, pattern)
        assert time.process_time() - began < 5, "what it guards against takes minutes"

    fuzz.check(judged, short=8, pattern=LONG, other=LONG)


class TrieMachine(RuleBasedStateMachine):
    """A trie beside a list of what is in it."""

    def __init__(self, *, amqp: bool) -> None:
        super().__init__()
        self.amqp = amqp
        self.trie: Trie[int] = Trie(amqp=amqp)
        self.known: dict[tuple[tuple[str, ...], int], str] = {}

    @rule(pattern=PATTERN, value=st.integers(0, 4))
    def add(self, pattern: str, value: int) -> None:
        self.trie.add(pattern, value)
        self.known[compile_pattern(pattern, amqp=self.amqp), value] = pattern

    @rule(pattern=PATTERN, value=st.integers(0, 4))
    def remove_any(self, pattern: str, value: int) -> None:
        self.trie.remove(pattern, value)
        self.known.pop((compile_pattern(pattern, amqp=self.amqp), value), None)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove_one(self, data: st.DataObject) -> None:
        words, value = data.draw(st.sampled_from(sorted(self.known)))
        self.trie.remove(self.known.pop((words, value)), value)

    @rule(topic=TOPIC)
    def find(self, topic: str) -> None:
        found = self.trie.match(topic)
        assert len(found) == len(set(found)), "each is found once"
        wanted = {value for (_, value), pattern in self.known.items() if oracle(pattern, topic, amqp=self.amqp)}
        assert set(found) == wanted

    @invariant()
    def an_empty_one_finds_nothing(self) -> None:
        if not self.known:
            assert not self.trie.match("a.b")


@pytest.mark.parametrize("amqp", [False, True])
def test_a_trie_finds_what_a_list_does(fuzz: Rounds, amqp: bool):
    fuzz.walk(partial(TrieMachine, amqp=amqp))


AGENT = st.sampled_from(("", "alice", "bob"))
FILTERS = st.none() | st.builds(
    Filter,
    types=st.none() | st.frozensets(st.sampled_from(("a", "b.c", "task")), max_size=2),
    priorities=st.none() | st.frozensets(st.integers(1, 10), max_size=4),
    sources=st.none() | st.frozensets(AGENT, max_size=2),
)
SUBSCRIPTIONS = st.builds(
    Subscription,
    id=st.sampled_from("qrst"),
    patterns=st.lists(PATTERN, min_size=1, max_size=3).map(tuple),
    agent=AGENT,
    filter=FILTERS,
    keyed=st.booleans(),
)
EVENTS = st.builds(
    lambda **fields: Event(**fields),  # noqa: PLW0108 - of the class itself more is drawn than is named here
    topic=TOPIC,
    event_type=st.none() | TOPIC | st.sampled_from(("a", "b.c", "task")),
    priority=st.integers(1, 10),
    source_agent=AGENT,
    target_agent=st.none() | st.sampled_from(("alice", "bob")),
)
BANDS = {1: "low", 4: "normal", 7: "high", 9: "critical"}


def goes(spec: Subscription, event: Event) -> bool:
    """Whether it gets the event, by the contract: its keys or its topic, whom it is for, and its filters."""
    if event.target_agent not in {None, spec.agent}:
        return False
    if (wish := spec.filter) is not None:
        pairs = ((wish.types, event.event_type), (wish.priorities, event.priority), (wish.sources, event.source_agent))
        if any(wanted is not None and value not in wanted for wanted, value in pairs):
            return False
    if not spec.keyed:
        return any(oracle(pattern, event.topic) for pattern in spec.patterns)
    band = BANDS[max(level for level in BANDS if level <= event.priority)]
    keys = [f"{event.topic}.{band}", *([event.topic] if event.topic != event.event_type else [])]
    return any(oracle(pattern, key, amqp=True) for pattern in spec.patterns for key in keys)


def test_whom_an_event_goes_to(fuzz: Rounds):
    def judged(specs: list[Subscription], gone: set[str], events: list[Event]) -> None:
        routes, known = Routes(), dict[str, Subscription]()
        for spec in specs:
            routes.add(spec)
            known[spec.id] = spec
        for event in events:
            wanted = {id for id, spec in known.items() if goes(spec, event)}
            assert sorted(routes.match(event)) == sorted(wanted)
            assert {id for id, spec in known.items() if gets(spec, event)} == wanted
        for id in gone:
            routes.remove(id)
            known.pop(id, None)
        for event in events:
            assert set(routes.match(event)) == {id for id, spec in known.items() if goes(spec, event)}

    lists = {"specs": st.lists(SUBSCRIPTIONS, max_size=6), "events": st.lists(EVENTS, min_size=1, max_size=4)}
    fuzz.check(judged, short=80, gone=st.frozensets(st.sampled_from("qrst")), **lists)
