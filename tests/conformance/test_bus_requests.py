"""The bus over each engine: request and reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen
from wowevent import Event, NoResponders, Reject, RequestFailed, RequestTimeout, RetryPolicy
from wowevent.broker import Query, Stored


async def double(event: Event) -> int:
    return event.payload["q"] * 2


@pytest.mark.parametrize("agent", ["worker", None], ids=["named", "live"])
async def test_a_handlers_return_value_is_the_reply(rig: Rig, agent: str | None):
    asker, answerer = await rig.bus(), await rig.bus()
    await answerer.subscribe("agent.ask", double, agent)
    assert await asker.request("agent.ask", {"q": 21}) == 42
    assert await asker.request(Event(topic="agent.ask", payload={"q": 1})) == 2


async def test_a_bus_may_ask_itself_with_any_json_and_sync_handlers(rig: Rig):
    bus = await rig.bus()
    replies: list[Any] = [{"a": [1, None, "é"]}, [1], "text", 0, False]
    await bus.subscribe("agent.ask", lambda event: replies[event.payload["q"]], "worker")
    assert [await bus.request("agent.ask", {"q": n}) for n in range(len(replies))] == replies


async def test_the_first_answer_is_heard_however_long_it_takes_to_listen(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    asker, answerer = await rig.bus(), await rig.bus()
    await answerer.subscribe("agent.ask", double, "worker")
    read = asker.broker.read

    async def late(query: Query, **how: Any) -> AsyncIterator[Stored]:
        await asyncio.sleep(0.3)
        async for stored in read(query, **how):
            yield stored

    monkeypatch.setattr(asker.broker, "read", late)
    replies = await asyncio.gather(*(asker.request("agent.ask", {"q": n}, timeout=4) for n in range(3)))
    assert replies == [0, 2, 4]


async def test_many_requests_at_once_get_their_own_replies(rig: Rig):
    asker, answerer = await rig.bus(), await rig.bus()
    await answerer.subscribe("agent.ask", double, "worker", concurrency=10)
    replies = await asyncio.gather(*(asker.request("agent.ask", {"q": n}) for n in range(100)))
    assert replies == [2 * n for n in range(100)]


async def test_nobody_there_is_said_at_once(rig: Rig):
    bus = await rig.bus()
    with pytest.raises(NoResponders):
        await bus.request("agent.ask", {"q": 1}, timeout=60)
    handle = await bus.subscribe("agent.ask", double, "worker")
    assert await bus.request("agent.ask", {"q": 1}) == 2
    await handle.cancel()
    await rig.advance(2)
    with pytest.raises(NoResponders):
        await bus.request("agent.ask", {"q": 1}, timeout=60)


async def test_a_request_to_a_target_that_is_not_there_is_said_at_once(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("agent.ask", double, "worker")
    with pytest.raises(NoResponders):
        await bus.request("agent.ask", {"q": 1}, target="somebody-else", timeout=60)
    assert await bus.request("agent.ask", {"q": 1}, target="worker") == 2


async def test_no_reply_is_a_timeout(rig: Rig):
    bus, seen = await rig.bus(), Seen()
    await bus.subscribe("agent.ask", seen, "worker")
    with pytest.raises(RequestTimeout):
        await bus.request("agent.ask", {"n": 1}, timeout=0.1)
    with pytest.raises(TimeoutError):
        await bus.request("agent.ask", {"n": 1}, timeout=0.1)
    assert seen.events[0].ttl_seconds == 0.1


@pytest.mark.parametrize("settings", [{"retry": RetryPolicy(max_retries=2, initial=0)}, {"auto_ack": True}], ids=str)
async def test_a_final_failure_is_said_at_once(rig: Rig, settings: dict[str, Any]):
    bus = await rig.bus()

    async def broken(event: Event) -> None:
        raise OSError("the disk is on fire")

    await bus.subscribe("agent.ask", broken, "worker", **settings)
    with pytest.raises(RequestFailed, match="on fire"):
        await bus.request("agent.ask", {"q": 1}, timeout=5)


async def test_a_live_responders_failure_is_said_at_once(rig: Rig):
    bus = await rig.bus()

    async def broken(event: Event) -> None:
        raise Reject("never")

    await bus.subscribe("agent.ask", broken)
    with pytest.raises(RequestFailed, match="never"):
        await bus.request("agent.ask", {"q": 1}, timeout=5)


async def test_a_reply_that_is_not_json_is_a_failure(rig: Rig):
    bus = await rig.bus()

    async def odd(event: Event) -> object:
        return {1, 2} if event.payload["q"] == 0 else float("nan")

    await bus.subscribe("agent.ask", odd, "worker")
    assert sorted(await bus.request("agent.ask", {"q": 0})) == [1, 2]
    with pytest.raises(RequestFailed):
        await bus.request("agent.ask", {"q": 1})


async def test_the_first_reply_wins(rig: Rig):
    bus, gate, answered = await rig.bus(), asyncio.Event(), list[str]()

    async def quick(event: Event) -> str:
        answered.append("quick")
        return "quick"

    async def slow(event: Event) -> str:
        await gate.wait()
        answered.append("slow")
        return "slow"

    await bus.subscribe("agent.ask", slow, "slow")
    await bus.subscribe("agent.ask", quick, "quick")
    assert await bus.request("agent.ask", {}) == "quick"
    gate.set()
    await eventually(lambda: len(answered) == 2)
    assert await bus.request("agent.ask", {}) in {"quick", "slow"}


async def test_a_handler_may_ask_while_it_answers(rig: Rig):
    bus = await rig.bus()

    async def outer(event: Event) -> int:
        return 1 + await bus.request("inner.ask", {"q": event.payload["q"]})

    await bus.subscribe("outer.ask", outer, "outer")
    await bus.subscribe("inner.ask", double, "inner")
    assert await bus.request("outer.ask", {"q": 10}) == 21


async def test_a_failing_attempt_that_is_retried_may_still_answer(rig: Rig):
    bus, tries = await rig.bus(), list[int]()

    async def flaky(event: Event) -> str:
        tries.append(event.retry_count)
        if len(tries) < 3:
            raise OSError("not yet")
        return "done"

    await bus.subscribe("agent.ask", flaky, "worker", retry=RetryPolicy(initial=0))
    assert await bus.request("agent.ask", {}) == "done"
    assert tries == [0, 1, 2]


async def test_replies_are_not_part_of_the_history(rig: Rig):
    bus = await rig.bus()
    await bus.subscribe("agent.ask", double, "worker")
    await bus.request("agent.ask", {"q": 1})
    assert [stored.event.topic async for stored in bus.history()] == ["agent.ask"]


async def test_a_request_carries_on_the_correlation_of_its_handler(rig: Rig):
    bus, found = await rig.bus(), list[str]()

    async def outer(event: Event) -> Any:
        return await bus.request("inner.ask", {})

    async def inner(event: Event) -> str:
        found.append(event.correlation_id)
        return "ok"

    await bus.subscribe("outer.ask", outer, "outer")
    await bus.subscribe("inner.ask", inner, "inner")
    await bus.request(Event(topic="outer.ask", correlation_id="the-whole-story"))
    assert found == ["the-whole-story"]
