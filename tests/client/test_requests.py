"""Requests and replies over the router."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pydantic
import pytest

from tests.client.scripted import Peer, line, scripted, until
from wowevent import BrokerUnavailable, Event, EventBus, NoResponders, RequestFailed, RequestTimeout
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

Make = Callable[..., EventRouterClient]


class Reply(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize("name", [None, "responder"])
async def test_what_a_handler_returns_is_the_reply(client: EventRouterClient, router: EventRouter, name: str | None):
    def answer(event: Event) -> Reply:
        return Reply(n=event.payload["n"] + 1)

    async with EventRouterClient(router.url) as other:
        await other.subscribe("ask.*", callback=answer, name=name)
        assert await client.request("ask.x", {"n": 1}, timeout=2.0, priority=8) == {"n": 2}
        assert await client.request(Event(topic="ask.x", payload={"n": 2})) == {"n": 3}


async def test_many_requests_at_a_time_get_each_its_own(client: EventRouterClient):
    async def answer(event: Event) -> int:
        await asyncio.sleep(0.001)
        return int(event.payload["n"])

    await client.subscribe("ask.*", callback=answer, concurrency=20)
    assert await asyncio.gather(*(client.request("ask.x", {"n": n}) for n in range(100))) == list(range(100))


async def test_nobody_there_is_told_at_once(client: EventRouterClient):
    async with asyncio.timeout(1.0):
        with pytest.raises(NoResponders):
            await client.request("ask.x")


async def test_no_answer_is_told_after_the_timeout(client: EventRouterClient):
    gate = asyncio.Event()

    async def answer(event: Event) -> None:
        await gate.wait()

    await client.subscribe("ask.*", callback=answer)
    with pytest.raises(RequestTimeout):
        await client.request("ask.x", timeout=0.2)
    gate.set()


async def test_a_router_that_does_not_answer_is_given_up_a_second_after_the_timeout():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        async with asyncio.timeout(2.0):
            with pytest.raises(RequestTimeout):
                await client.request("ask.x", timeout=0.1)


async def test_an_anonymous_handler_that_raises_fails_the_request_at_once(client: EventRouterClient):
    async def answer(event: Event) -> None:
        raise RuntimeError("boom")

    await client.subscribe("ask.*", callback=answer)
    with pytest.raises(RequestFailed, match="boom"):
        await client.request("ask.x")


async def test_a_named_one_fails_it_with_its_last_attempt(client: EventRouterClient):
    async def answer(event: Event) -> None:
        raise RuntimeError("boom")

    await client.subscribe("ask.*", callback=answer, name="r", max_retries=0)
    with pytest.raises(RequestFailed, match="boom"):
        await client.request("ask.x")


async def test_a_reply_that_is_not_json_or_too_large_fails_the_request(client: EventRouterClient):
    replies = [object(), float("nan"), "x" * 400_000]

    async def answer(event: Event) -> object:
        return replies[event.payload["n"]]

    await client.subscribe("ask.*", callback=answer)
    for n, words in enumerate(("not JSON", "not JSON", "too large")):
        with pytest.raises(RequestFailed, match=words):
            await client.request("ask.x", {"n": n})
    assert client.counters.reconnects == 0


async def test_the_bus_and_a_client_ask_each_other(client: EventRouterClient, bus: EventBus):
    async def of_bus(event: Event) -> str:
        return "bus"

    async def of_client(event: Event) -> str:
        return "client"

    await bus.subscribe("bus.*", of_bus)
    await client.subscribe("client.*", callback=of_client)
    assert await client.request("bus.x") == "bus"
    assert await bus.request("client.x") == "client"


async def test_a_request_while_away_waits_for_the_connection(router: EventRouter, make: Make):
    async def answer(event: Event) -> int:
        return 1

    async with line(router.port) as wire:
        client = make(wire.url)
        await client.connect()
        await client.subscribe("ask.*", callback=answer)
        await wire.cut()
        await until(lambda: not client.connected)
        asking = asyncio.create_task(client.request("ask.x"))
        with pytest.raises(RequestTimeout):
            await client.request("ask.x", timeout=0.05)
        await wire.open()
        assert await asking == 1
        await client.disconnect()


async def test_a_request_whose_connection_breaks_says_so(router: EventRouter, make: Make):
    gate = asyncio.Event()

    async def answer(event: Event) -> None:
        await gate.wait()

    async with line(router.port) as wire, EventRouterClient(router.url) as other:
        await other.subscribe("ask.*", callback=answer)
        client = make(wire.url)
        await client.connect()
        asking = asyncio.create_task(client.request("ask.x"))
        await until(lambda: other.counters.received)
        wire.break_now()
        with pytest.raises(BrokerUnavailable):
            await asking
        gate.set()
        await client.disconnect()


async def test_a_reply_that_is_ready_while_away_is_sent_with_the_next_connection(router: EventRouter, make: Make):
    gate = asyncio.Event()

    async def answer(event: Event) -> int:
        await gate.wait()
        return 7

    async with line(router.port) as wire, EventRouterClient(router.url) as other:
        client = make(wire.url)
        await client.connect()
        await client.subscribe("ask.*", callback=answer)
        asking = asyncio.create_task(other.request("ask.x"))
        await until(lambda: client.counters.received)
        await wire.cut()
        await until(lambda: not client.connected)
        gate.set()
        await until(lambda: client.counters.handled)
        await wire.open()
        assert await asking == 7
        await client.disconnect()
