"""Who is there, by what was heard and when: a table, and what leaves."""

from __future__ import annotations

import pytest

from wowevent import roster
from wowevent.broker import Subscription, SubscriptionInfo
from wowevent.roster import AgentInfo, Beat, Roster, Source, state_of

TIME = 1_000_000.0  # Unix seconds at monotonic 0


def named(agent: str, pattern: str = "task.*", consumers: int = 0, **fields: object) -> SubscriptionInfo:
    spec = Subscription(id=f"{agent}~{pattern}", patterns=(pattern,), agent=agent)
    return SubscriptionInfo(subscription=spec, consumers=consumers, **fields)  # type: ignore[arg-type]


def beat(process: str = "p1", *agents: str, **fields: object) -> Beat:
    return Beat(process, "host", 7, agents=agents, **fields)  # type: ignore[arg-type]


def seen(known: Roster, now: float, *infos: SubscriptionInfo) -> dict[str, AgentInfo]:
    return {info.name: info for info in known.agents(infos, now, TIME + now)}


@pytest.mark.parametrize(
    ("age", "state"),
    [(0, "online"), (7.49, "online"), (7.5, "suspect"), (14.99, "suspect"), (15, "offline"), (86_400, "offline")],
)
def test_what_silence_means(age: float, state: str) -> None:
    assert state_of(age) == state
    known = Roster()
    known.hear(beat("p1", "planner"), 100)
    found = seen(known, 100 + age)["planner"]
    assert (found.state, found.last_seen) == (state, TIME + 100)


def test_a_process_says_who_is_here_what_it_serves_and_who_publishes() -> None:
    known = Roster()
    sources = (Source("planner", ("plan.made", "plan.dropped")), Source("tool", ("tool.done",)))
    known.hear(beat("p1", "planner", serves=("planner~task.*", "planner~gone.*"), publishes=sources), 0)
    found = seen(known, 1, named("planner", ready=3, dead=1, consumers=1), named("planner", "log.*"))
    assert list(found) == ["planner", "tool"]
    planner = found["planner"]
    (process,) = planner.processes
    assert (process.id, process.host, process.pid, process.state) == ("p1", "host", 7, "online")
    assert process.serves == ("planner~task.*",)
    assert [(each.id, each.ready, each.dead, each.consumers) for each in planner.subscriptions] == [
        ("planner~log.*", 0, 0, 0),
        ("planner~task.*", 3, 1, 1),
    ]
    assert planner.publishes == ("plan.dropped", "plan.made")
    assert (found["tool"].state, found["tool"].publishes) == ("online", ("tool.done",))


def test_of_several_processes_the_newest_word_counts() -> None:
    known = Roster()
    known.hear(beat("p1", "planner"), 0)
    known.hear(beat("p2", "planner"), 10)
    found = seen(known, 16)["planner"]
    assert (found.state, found.last_seen) == ("online", TIME + 10)
    assert [(each.id, each.state) for each in found.processes] == [("p1", "offline"), ("p2", "online")]


def test_the_registry_alone_makes_it_offline_and_a_server_that_says_nothing_suspect() -> None:
    known = Roster()
    found = seen(known, 0, named("idle"), named("mute", consumers=1))
    assert (found["idle"].state, found["idle"].last_seen) == ("offline", None)
    assert (found["mute"].state, found["mute"].last_seen) == ("suspect", None)


def test_a_goodbye_is_heard_at_once_also_while_the_engine_counts_on() -> None:
    known = Roster()
    known.hear(beat("p1", "planner"), 0)
    known.hear(Beat("p1", gone=True), 3)
    found = seen(known, 4, named("planner", consumers=1))["planner"]
    assert (found.state, found.last_seen, found.processes) == ("offline", TIME + 3, ())


def test_one_process_says_goodbye_and_the_other_stays() -> None:
    known = Roster()
    known.hear(beat("p1", "planner"), 0)
    known.hear(beat("p2", "planner"), 0)
    known.hear(Beat("p1", gone=True), 1)
    found = seen(known, 2)["planner"]
    assert (found.state, [each.id for each in found.processes]) == ("online", ["p2"])


def test_who_is_named_no_longer_has_left() -> None:
    known = Roster()
    known.hear(beat("p1", "planner", "client"), 0)
    known.hear(beat("p1", "planner"), 2)
    found = seen(known, 3)
    assert {name: info.state for name, info in found.items()} == {"client": "offline", "planner": "online"}
    assert found["client"].last_seen == TIME + 2


def test_who_comes_back_is_online() -> None:
    known = Roster()
    known.hear(beat("p1", "planner"), 0)
    known.hear(Beat("p1", gone=True), 1)
    known.hear(beat("p2", "planner"), 2)
    assert seen(known, 3)["planner"].state == "online"


def test_where_a_process_publishes_for_others_the_time_of_that_counts() -> None:
    known = Roster()
    known.hear(beat("p1", "here", publishes=(Source("client", ("a.b",), ago=9), Source("here", ("c.d",), ago=60))), 0)
    found = seen(known, 0)
    assert (found["client"].state, found["client"].last_seen) == ("suspect", TIME - 9)
    assert (found["here"].state, found["here"].publishes) == ("online", ("c.d",))
    assert seen(known, 6)["client"].state == "offline"


def test_a_subscription_without_an_agent_stands_for_itself_and_a_live_one_for_nobody() -> None:
    known = Roster()
    queue = SubscriptionInfo(subscription=Subscription(id="queue", patterns=("#",)))
    live = SubscriptionInfo(subscription=Subscription(id="live~1", patterns=("#",), durable=False), consumers=1)
    assert list(seen(known, 0, queue, live)) == ["queue"]


def test_the_silent_are_forgotten_as_processes_and_remembered_as_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roster, "_MOST_GONE", 2)
    known = Roster()
    known.hear(beat("p1", "a", "b", "c"), 0)
    assert len(seen(known, 3600)) == 3
    found = seen(known, 3601)
    assert {name: info.processes for name, info in found.items()} == {"b": (), "c": ()}
    assert found["c"].last_seen == TIME
