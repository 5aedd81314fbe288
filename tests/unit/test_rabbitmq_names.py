"""The names of the RabbitMQ engine, and its bindings, compared with a definition of what RabbitMQ does with a key."""

import re

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from msgspec import structs
from pamqp.commands import Basic, Exchange, Queue

from wowevent.broker import URGENT, Filter, Subscription
from wowevent.brokers.rabbitmq.names import _HASHES as FEW
from wowevent.brokers.rabbitmq.names import Binding, Names
from wowevent.event import Event
from wowevent.routing import matches
from wowevent.topic import compile_pattern

# ------------------------------------------------------------------------------------------------ bindings


def fits(key: list[str], words: list[str]) -> bool:
    """Whether a topic exchange routes `words` by a binding `key`: `*` is one word, `#` is any number of them."""
    if not key:
        return not words
    if key[0] == "#":
        return fits(key[1:], words) or bool(words and fits(key, words[1:]))
    return bool(words) and key[0] in ("*", words[0]) and fits(key[1:], words[1:])


def catches(bindings: set[Binding], exchange: str, key: str) -> bool:
    """Whether a queue with these bindings gets what is published there with that key."""
    return any(to == exchange and fits(bound.split("."), key.split(".")) for to, bound in bindings)


names = Names("default")
words = st.sampled_from(["a", "b", "_bus", "low", "normal", "high", "critical"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=4).map(".".join)
wishes = st.none() | st.builds(Filter, priorities=st.none() | st.frozensets(st.integers(1, 10)))
declarations = st.builds(
    Subscription,
    id=st.just("s"),
    patterns=st.lists(patterns, min_size=1, max_size=3).map(tuple),
    filter=wishes,
    exclusive=st.booleans(),
    keyed=st.booleans(),
)
events = st.builds(
    lambda **fields: Event(**fields),  # noqa: PLW0108 - its own signature is not that of the struct below, which hypothesis would read
    topic=topics,
    event_type=st.none() | topics,
    priority=st.integers(1, 10),
)


def lanes_of(subscription: Subscription, event: Event) -> tuple[bool, bool]:
    """Whether the plain queue gets it, and the urgent one."""
    plain, urgent = names.bindings(subscription)
    exchange, key = names.exchange(event.topic), event.routing_key
    return catches(plain, exchange, key), catches(urgent, exchange, key)


@settings(max_examples=500)
@example(Subscription(id="s", patterns=("a.#.*",)), Event(topic="a.b"))
@example(Subscription(id="s", patterns=("#.high",), keyed=True), Event(topic="high", event_type="a"))
@example(Subscription(id="s", patterns=("a.*",), keyed=True), Event(topic="a", priority=9))
@example(Subscription(id="s", patterns=("a.*.#.#",), keyed=True), Event(topic="a", priority=9))
@example(Subscription(id="s", patterns=("*.*",), exclusive=True), Event(topic="a", event_type="b", priority=9))
@given(declarations, events)
def test_what_is_wanted_gets_into_the_right_lane_and_into_no_other(subscription: Subscription, event: Event):
    plain, urgent = lanes_of(subscription, event)
    assert not (plain and urgent)
    if matches(subscription, event):
        wanted = event.priority >= URGENT and not subscription.exclusive
        assert (plain, urgent) == (not wanted, wanted)


@settings(max_examples=500)
@example(Subscription(id="s", patterns=("#",)), Event(topic="_bus.x"))
@example(Subscription(id="s", patterns=("*.x",)), Event(topic="_bus.x"))
@example(Subscription(id="s", patterns=("#.normal",)), Event(topic="a"))
@example(Subscription(id="s", patterns=("a.*",)), Event(topic="a", priority=8))
@given(declarations, events)
def test_without_keys_and_filters_nothing_else_is_caught(subscription: Subscription, event: Event):
    subscription = structs.replace(subscription, keyed=False, filter=None)
    assume(all(compile_pattern(pattern).count("#") <= FEW for pattern in subscription.patterns))
    assert any(lanes_of(subscription, event)) is matches(subscription, event)


@pytest.mark.parametrize("keyed", [False, True])
def test_a_pattern_that_would_cost_the_server_much_is_bound_wider(keyed: bool):
    subscription = Subscription(id="s", patterns=("a." + "#." * 90 + "b",), keyed=keyed)
    assert {key.count("#") for _, key in set.union(*names.bindings(subscription))} == {1}
    assert lanes_of(subscription, Event(topic="a.c.b", event_type="x")) == (True, False)
    assert lanes_of(subscription, Event(topic="b")) == (False, False)


@given(events, st.frozensets(st.integers(1, 10)))
def test_bands_that_nobody_wishes_are_not_bound(event: Event, levels: frozenset[int]):
    bands = ({1, 2, 3}, {4, 5, 6}, {7, 8}, {9, 10})
    subscription = Subscription(id="s", patterns=("#",), filter=Filter(priorities=levels))
    assert sum(map(len, names.bindings(subscription))) == sum(bool(band & levels) for band in bands)


@pytest.mark.parametrize("topic", ["_bus.schema.a", "_reply.x", "_bus", "_"])
@pytest.mark.parametrize("keyed", [False, True])
def test_a_reserved_topic_is_caught_by_who_names_its_first_word_alone(topic: str, keyed: bool):
    event = Event(topic=topic)
    for pattern in ("#", "*", "*.#", "#.*", "#.#", "#.a", "*.schema.#", "#.normal"):
        subscription = Subscription(id="s", patterns=(pattern,), keyed=keyed)
        assert lanes_of(subscription, event) == (False, False)
    first = topic.partition(".")[0]
    subscription = Subscription(id="s", patterns=("task.*", f"{first}.#"), keyed=keyed)
    assert lanes_of(subscription, event) == (True, False)


# ------------------------------------------------------------------------------------------------ names

NAME = re.compile(r"[a-zA-Z0-9-_.:@#,/+ ]*\Z")  # what the driver takes
LONG = "n" * 128
ODD_IDS = [
    "x",
    "dlq.x",
    "dlq.dlq.x",
    "+dlq.x",
    "amq.x",
    "amq.gen-x",
    "+amq.x",
    "x#urgent",
    "x#suspect",
    "x+23urgent",
    "urgent",
    "suspect",
    "history",
    "control",
    "later",
    "reserved",
    "live",
    "agent_events",
    "agent_events#history",
    "agent_events#later",
    "agent_events#lock.one.x",
    "agent_events_dlx",
    "lock.one.x",
    "one.x",
    "declare.x",
    "x.",
    "x..",
    "/",
    "@",
    ":",
    "-",
    "_",
    "x~a.*",
    "x~a.#",
    "x~a.*,b.#",
    "x~a.*.b.#",
    "x+7Ea.+2A",
    LONG,
    LONG[:-1] + "m",
    f"{LONG}~" + ",".join(f"topic.{n}.*" for n in range(9)),
    f"{LONG}~" + ",".join(f"topic.{n}.#" for n in range(9)),
    "~" * 128,
    "#" * 500,
    "#" * 501,
    "\u0123",
    "\x123",
    "ä",
    "\U0001f600",
    "x y",
    "x\n",
]
NAMESPACES = ["default", "x", "dlq.x", "amq.x", "agent_events", "dlx", "x.live", "urgent", "a.b", "@", "/", ":", LONG]
NAMESPACES += [LONG[:-1] + "m"]


def queues_of(here: Names, id: str) -> list[str]:
    return [here.plain(id), here.urgent(id), here.suspects(id), here.dead(id)]


def own(here: Names) -> list[str]:
    """The queues of a namespace that belong to no subscription."""
    return [here.history, here.control, here.later, here.mailbox("0123456789ab")]


def exchanges(here: Names) -> list[str]:
    return [here.events, here.dead_letters, here.reserved, here.live]


def test_no_name_stands_for_two_things_in_all_namespaces():
    found: dict[str, object] = {}
    for namespace in NAMESPACES:
        here = Names(namespace)
        for name in own(here):
            assert found.setdefault(name, namespace) == namespace
        for id in ODD_IDS:
            locks = [here.lock(what) for what in (f"one.{id}", f"declare.{id}", here.dead(id))]
            for kind, name in enumerate([*queues_of(here, id), *locks]):
                assert found.setdefault(name, (namespace, id, kind)) == (namespace, id, kind)
    assert len(found) == len(NAMESPACES) * (4 + 7 * len(ODD_IDS))
    named = [name for namespace in NAMESPACES for name in exchanges(Names(namespace))]
    assert len(named) == len(set(named))


ids = st.text(st.sampled_from("ax.+~*#,2AE3/\n\u0123é\U0001f600"), min_size=1, max_size=6) | st.sampled_from(ODD_IDS)
namespaces = (
    st.just("default") | st.sampled_from(NAMESPACES) | st.text(st.sampled_from("ax./@:-_"), min_size=1, max_size=4)
)


@settings(max_examples=1000)
@example("default", "x", "x", "urgent")
@example("default", "agent_events#history", "agent_events", "history")
@given(namespaces, ids, namespaces, ids)
def test_two_subscriptions_share_no_queue(namespace: str, id: str, other_namespace: str, other: str):
    here, there = Names(namespace), Names(other_namespace)
    if (namespace, id) != (other_namespace, other):
        assert not set(queues_of(here, id)) & set(queues_of(there, other))
    assert not set(queues_of(here, id)) & set(own(there))


@settings(max_examples=1000)
@example(LONG, LONG)
@example(LONG, "#" * 500)
@example("default", "é" * 200)
@given(namespaces, ids)
def test_every_name_is_one_that_the_driver_and_the_server_take(namespace: str, id: str):
    here = Names(namespace)
    locks = [here.lock(what) for what in (f"one.{id}", f"declare.{id}", here.dead(id))]
    for queue in [*own(here), *queues_of(here, id), *locks]:
        assert NAME.match(queue)
        assert 0 < len(queue) <= 255
        assert not queue.startswith("amq.")  # the server's own
        Queue.Declare(queue=queue).marshal()
    for exchange in exchanges(here):
        assert not exchange.startswith("amq.")
        Exchange.Declare(exchange=exchange).marshal()


def test_a_key_of_the_longest_pattern_fits_into_a_frame():
    subscription = Subscription(id=LONG, patterns=("a." * 98 + "a.*",))
    for exchange, key in set.union(*names.bindings(subscription)):
        Queue.Bind(queue=names.urgent(LONG), exchange=exchange, routing_key=key).marshal()
    Basic.Publish(exchange=names.events, routing_key=Event(topic="a" * 200, priority=9).routing_key).marshal()


def test_a_plain_name_is_the_name_of_its_queue():
    for id in ("worker", "agent-1.b_c:d@e/f", LONG):
        assert names.plain(id) == id
        assert names.urgent(id) == f"{id}#urgent"
        assert names.dead(id) == f"dlq.{id}"
    assert (names.events, names.dead_letters) == ("agent_events", "agent_events_dlx")
    assert Names("other").events == "agent_events.other"
