"""Which subscriptions an event goes to, compared with asking each of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent import topic
from wowevent.broker import Filter, Subscription
from wowevent.errors import InvalidTopic
from wowevent.event import Event
from wowevent.routing import Routes, matches, wants


def declare(id: str = "s", *patterns: str, **settings) -> Subscription:
    return Subscription(id=id, patterns=patterns or ("#",), **settings)


def ids(routes: Routes, event: Event) -> set[str]:
    return set(routes.match(event))


# ------------------------------------------------------------------------------------------------ filters and targets

EVENT = Event(topic="task.created", event_type="made", source_agent="planner", priority=8)
TARGETED = Event(topic="task.created", target_agent="worker")

WANTS = {
    "no filter": (EVENT, None, "", True),
    "an empty filter": (EVENT, Filter(), "", True),
    "its type": (EVENT, Filter(types=frozenset({"made", "other"})), "", True),
    "the topic is not the type": (EVENT, Filter(types=frozenset({"task.created"})), "", False),
    "no type at all": (EVENT, Filter(types=frozenset()), "", False),
    "its priority": (EVENT, Filter(priorities=frozenset({7, 8})), "", True),
    "another priority": (EVENT, Filter(priorities=frozenset({1})), "", False),
    "its source": (EVENT, Filter(sources=frozenset({"planner"})), "", True),
    "another source": (EVENT, Filter(sources=frozenset({"worker"})), "", False),
    "all three": (
        EVENT,
        Filter(types=frozenset({"made"}), priorities=frozenset({8}), sources=frozenset({"x"})),
        "",
        False,
    ),
    "meant for it": (TARGETED, None, "worker", True),
    "meant for another": (TARGETED, None, "planner", False),
    "meant for somebody, and it is nobody": (TARGETED, None, "", False),
    "meant for it, but not wanted": (TARGETED, Filter(priorities=frozenset({9})), "worker", False),
}


@pytest.mark.parametrize(("event", "wish", "agent", "expected"), WANTS.values(), ids=WANTS.keys())
def test_target_and_filters(event: Event, wish: Filter | None, agent: str, expected: bool):
    subscription = declare("s", "task.*", filter=wish, agent=agent)
    routes = Routes()
    routes.add(subscription)
    assert wants(subscription, event) is expected
    assert matches(subscription, event) is expected
    assert routes.match(event) == (("s",) if expected else ())


# ------------------------------------------------------------------------------------------------ routing keys

KEYED = {
    "topic and band": ({"topic": "task.created"}, "task.*.normal", True),
    "another band": ({"topic": "task.created", "priority": 9}, "task.*.normal", False),
    "the topic alone is no key": ({"topic": "task.created"}, "task.*", False),
    "unless the publisher gave a key": ({"topic": "custom.key", "event_type": "task.created"}, "custom.*", True),
    "which has a band all the same": ({"topic": "custom.key", "event_type": "task.created"}, "custom.*.normal", True),
    "the type is not matched": ({"topic": "custom.key", "event_type": "task.created"}, "task.#", False),
    "nor is what is the bus's own": ({"topic": "_bus.x"}, "#", False),
}


@pytest.mark.parametrize(("fields", "pattern", "expected"), KEYED.values(), ids=KEYED.keys())
def test_a_keyed_subscription_matches_the_routing_key(fields: dict, pattern: str, expected: bool):
    subscription = declare("s", pattern, keyed=True)
    routes = Routes()
    routes.add(subscription)
    assert routes.match(Event(**fields)) == (("s",) if expected else ())
    assert matches(subscription, Event(**fields)) is expected


# ------------------------------------------------------------------------------------------------ the whole

words = st.sampled_from(["a", "b", "_c", "high"])
topics = st.lists(words, min_size=1, max_size=4).map(".".join)
patterns = st.lists(words | st.sampled_from(["*", "#"]), min_size=1, max_size=4).map(".".join)
agents = st.sampled_from(["", "planner", "worker"])


def sets(*values: object) -> st.SearchStrategy:
    return st.none() | st.frozensets(st.sampled_from(values))


filters = st.none() | st.builds(Filter, types=sets("a", "b"), priorities=sets(5, 8), sources=sets("", "planner"))
declarations = st.builds(
    Subscription,
    id=st.sampled_from(["one", "two", "three", "four"]),
    patterns=st.lists(patterns, max_size=3).map(tuple),
    agent=agents,
    filter=filters,
    keyed=st.booleans(),
)
events = st.builds(
    lambda **fields: Event(**fields),  # noqa: PLW0108 - its own signature is not that of the struct below, which hypothesis would read
    topic=topics,
    event_type=st.none() | topics,
    source_agent=st.sampled_from(["", "planner"]),
    target_agent=st.none() | st.sampled_from(["planner", "worker"]),
    priority=st.sampled_from([5, 8]),
)


def asked(subscription: Subscription, event: Event) -> bool:
    """Every pattern on every name, one by one."""
    if not wants(subscription, event):
        return False
    if not subscription.keyed:
        return any(topic.matches(pattern, event.topic) for pattern in subscription.patterns)
    keys = [event.routing_key] + [event.topic] * (event.topic != event.kind)
    return any(topic.matches_key(pattern, key) for pattern in subscription.patterns for key in keys)


@given(
    st.lists(declarations, max_size=10),
    st.lists(st.sampled_from(["one", "two"]), max_size=2),
    st.lists(events, max_size=5),
)
def test_routes_find_those_who_would_say_yes_if_each_were_asked(declared, removed, published):
    routes = Routes()
    known: dict[str, Subscription] = {}
    for subscription in declared:
        routes.add(subscription)
        known.pop(subscription.id, None)
        known[subscription.id] = subscription
        for event in published:  # with what was cached before the next declaration
            routes.match(event)
    for id in removed:
        routes.remove(id)
        known.pop(id, None)

    assert routes.all() == list(known.values())
    for event in published:
        found = routes.match(event)
        assert len(found) == len(set(found))
        assert set(found) == {id for id, subscription in known.items() if asked(subscription, event)}
        assert set(found) == {id for id, subscription in known.items() if matches(subscription, event)}


def test_the_newest_declaration_of_an_id_replaces_the_one_before():
    routes = Routes()
    routes.add(declare("s", "a.*", "b.*"))
    routes.add(declare("s", "b.*", keyed=True))
    routes.add(declare("s", "c.*"))
    assert [ids(routes, Event(topic=name)) for name in ("a.x", "b.x", "c.x")] == [set(), set(), {"s"}]


def test_a_declaration_is_found_by_its_id_until_it_is_removed():
    routes, subscription = Routes(), declare("s")
    assert "s" not in routes
    assert routes.get("s") is None
    routes.add(subscription)
    assert "s" in routes
    assert routes.get("s") is subscription
    routes.remove("s")
    routes.remove("s")
    assert "s" not in routes
    assert routes.match(EVENT) == ()


def test_a_declaration_with_a_bad_pattern_changes_nothing():
    routes, before = Routes(), declare("s", "task.*")
    routes.add(before)
    with pytest.raises(InvalidTopic):
        routes.add(declare("s", "agent.*", "task*"))
    assert routes.all() == [before]
    assert [ids(routes, Event(topic=name)) for name in ("agent.x", "task.x")] == [set(), {"s"}]


def test_topics_that_carry_an_id_do_not_make_it_forget_or_grow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("wowevent.routing._CACHE", 3)
    routes = Routes()
    routes.add(declare("s", "task.*"))
    for _ in range(2):
        assert all(ids(routes, Event(topic=f"task.{number}")) == {"s"} for number in range(10))
    assert len(routes._cache) <= 3  # noqa: SLF001 - its bound is the promise
