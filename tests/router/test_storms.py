"""Storms among WebSocket clients: they are stopped at the router, which is where their events are handed out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.engines import eventually
from tests.router.conftest import Join
from wowevent import Event, EventBus, FailureReason, StormPolicy
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

POLICY = StormPolicy(max_hops=30, max_visits=4, max_events=40)


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://", storms=POLICY) as bus:
        yield bus


@pytest.fixture
async def guarded(bus: EventBus) -> AsyncIterator[EventRouter]:
    async with EventRouter(port=0, bus=bus) as router:
        yield router


@pytest.fixture
async def clients(guarded: EventRouter) -> AsyncIterator[list[EventRouterClient]]:
    async with EventRouterClient(guarded.url) as one, EventRouterClient(guarded.url) as two:
        yield [one, two]


class Agent:
    """Answers every event with one on another topic."""

    def __init__(self, client: EventRouterClient, topic: str, **fields: Any) -> None:
        self.handled = 0
        self._client = client
        self._topic = topic
        self._fields = fields

    async def __call__(self, event: Event) -> None:
        self.handled += 1
        await self._client.publish(self._topic, {"n": self.handled}, **self._fields)


@pytest.mark.parametrize("fields", [{}, {"correlation_id": "own", "headers": {"wowevent-lineage": "mine"}, "hops": 0}])
async def test_two_named_ones_that_answer_each_other_are_stopped(
    bus: EventBus, clients: list[EventRouterClient], fields: dict[str, Any]
):
    agents = [Agent(clients[0], "b.go", **fields), Agent(clients[1], "a.go", **fields)]
    await clients[0].subscribe("a.*", callback=agents[0], name="one")
    await clients[1].subscribe("b.*", callback=agents[1], subscription="two")
    await clients[0].publish("a.go")
    await eventually(bus.storms.list)
    assert [agent.handled for agent in agents] == [4, 4]
    await eventually(bus.dead_letters.list)
    (letter,) = await bus.dead_letters.list()
    assert (letter.subscription, letter.reason) == ("one~a.*", FailureReason.LOOP_DETECTED)
    assert letter.error.endswith("one~a.* (a.go) x4 -> two (b.go) x4")


async def test_two_anonymous_ones_are_too_and_others_are_served(bus: EventBus, clients: list[EventRouterClient]):
    agents = [Agent(clients[0], "b.go"), Agent(clients[1], "a.go")]
    others: list[Event] = []
    await clients[0].subscribe("a.*", callback=agents[0])
    await clients[1].subscribe("b.*", callback=agents[1])
    await clients[1].subscribe("other.*", callback=others.append)
    await clients[0].publish("a.go")
    await eventually(bus.storms.list)
    await clients[0].publish("other.thing")
    await eventually(lambda: len(others) == 1)
    await asyncio.sleep(0.05)
    assert [agent.handled for agent in agents] == [4, 4]
    assert await bus.dead_letters.list() == []


async def test_one_that_doubles_its_output_is_stopped(bus: EventBus, clients: list[EventRouterClient]):
    bus.storms.policy = StormPolicy(max_visits=None, max_events=40)
    handled: list[str] = []

    async def double(event: Event) -> None:
        handled.append(event.event_id)
        await asyncio.gather(clients[0].publish("b.go"), clients[0].publish("b.go"))

    await clients[0].subscribe("b.*", callback=double, name="doubler", concurrency=2)
    await clients[1].publish("b.go")
    await eventually(bus.storms.list)
    assert [storm.limit for storm in bus.storms.list()] == ["max_events"]
    await eventually(lambda: everything_parked(bus))
    assert len(handled) < 120, "what the client held when it was parked is handled, and causes nothing more"


async def everything_parked(bus: EventBus) -> bool:
    info = await bus.info("doubler")
    return info is not None and not info.ready and not info.leased


async def test_who_connects_again_does_not_catch_up_on_what_is_parked(bus: EventBus, guarded: EventRouter):
    async with EventRouterClient(guarded.url) as client:
        agent = Agent(client, "a.go")
        await client.subscribe("a.*", callback=agent)
        await client.publish("a.go")
        await eventually(bus.storms.list)
    seen: list[Event] = []
    async with EventRouterClient(guarded.url) as client:
        start = f"{(await bus.broker.ping()).head.epoch}-0"
        await client.subscribe(["a.*", "other.*"], callback=seen.append, start=start)
        await client.publish("other.thing")
        await eventually(lambda: seen)
    assert [event.topic for event in seen] == ["other.thing"]


async def test_a_client_of_another_make_takes_part_if_it_hands_on_what_it_got(
    bus: EventBus, guarded: EventRouter, join: Join
):
    """It copies `hops`, one more, and the headers; who does not is not seen to answer anything (docs/storms.md)."""
    talker = await join(guarded)
    await talker.subscribe("a.*")
    await talker.say("publish", event={"topic": "a.go"})
    for _ in range(31):
        got = (await talker.hear("event"))["event"]
        handed_on = {"hops": got.get("hops", 0) + 1, "headers": got.get("headers", {})}
        await talker.say("publish", event={"topic": "a.go", **handed_on})
    await eventually(bus.storms.list)
    assert [storm.limit for storm in bus.storms.list()] == ["max_hops"]
