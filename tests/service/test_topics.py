"""GET /topics: what was published lately, by topic, whoever published it."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import url_of
from wowevent import Event, EventBus
from wowevent.broker import Retention
from wowevent.errors import PositionLost
from wowevent.service import create_app


async def ask(client: httpx.AsyncClient, query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/topics{query}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counts(found: dict[str, Any]) -> dict[str, int]:
    assert [each["topic"] for each in found["topics"]] == sorted(each["topic"] for each in found["topics"])
    assert found["events"] == sum(each["count"] for each in found["topics"])
    return {each["topic"]: each["count"] for each in found["topics"]}


def events(topic: str, count: int, **fields: Any) -> list[Event]:
    return [Event(topic=topic, **fields) for _ in range(count)]


async def test_each_topic_with_its_count_types_and_last_event(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    assert await ask(engine_client) == {"topics": [], "events": 0}
    await engine_bus.publish_many([*events("b.c", 2), *events("a.b", 1, event_type="z"), *events("a.b", 2)])
    last = [each async for each in engine_bus.history()][-1]

    found = await ask(engine_client)
    assert counts(found) == {"a.b": 3, "b.c": 2}
    assert found["topics"][0] == {
        "topic": "a.b", "count": 3, "event_types": ["a.b", "z"],
        "last_position": str(last.position), "last_stored_at": last.stored_at,
    }  # fmt: skip


async def test_of_the_last_places_and_of_those_that_match(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    sent = [*events("a", 7), *events("b.c", 5), *events("b.d", 3)]
    await engine_bus.publish_many(sent)

    def are_last(found: dict[str, int], most: int) -> bool:
        """The last `most` events; fewer where no event lies in some places, and each question makes one more."""
        least = most if engine_bus.capabilities.positions else 0
        return any(found == Counter(each.topic for each in sent[15 - n :]) for n in range(least, most + 1))

    for last in (1, 10, 15):
        assert are_last(counts(await ask(engine_client, f"?last={last}")), last)
    assert counts(await ask(engine_client, "?last=100000")) == {"a": 7, "b.c": 5, "b.d": 3}
    assert counts(await ask(engine_client, "?pattern=b.*")) == {"b.c": 5, "b.d": 3}
    assert are_last(counts(await ask(engine_client, "?pattern=b.*&pattern=a&last=9")), 9)


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_what_another_process_published_is_there(tmp_path: Path, engine: str) -> None:
    url = url_of(engine, tmp_path)
    async with EventBus(url) as here, EventBus(url) as there:
        await there.publish_many(events("a", 3))
        transport = httpx.ASGITransport(create_app(here))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            assert counts(await ask(client)) == {"a": 3}


async def test_what_retention_took_is_not_counted_and_what_it_takes_meanwhile_not_twice() -> None:
    async with EventBus("memory://", retention=Retention(max_count=10)) as bus:
        await bus.publish_many([*events("a", 90), *events("b", 10)])
        left = len([each async for each in bus.history()])
        transport = httpx.ASGITransport(create_app(bus))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            assert counts(await ask(client))["b"] == 10
            assert (await ask(client))["events"] == left
            assert (await ask(client, "?last=99"))["events"] == left


async def test_a_gap_in_the_midst_counts_nothing_twice(
    client: httpx.AsyncClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bus.publish_many(events("a", 20))
    read, once = bus.broker.read, [PositionLost("gone", 1)]

    async def with_a_gap(*given: Any, **named: Any) -> Any:
        async for stored in read(*given, **named):
            if stored.position.offset == 15 and once:
                raise once.pop()
            yield stored

    monkeypatch.setattr(bus.broker, "read", with_a_gap)
    assert counts(await ask(client)) == {"a": 20}
    assert not once


async def test_the_loop_is_not_held_up() -> None:
    async with EventBus("memory://", retention=Retention(max_count=50_000)) as bus:
        for _ in range(20):
            await bus.publish_many([Event(topic=f"a.{n}") if n % 2 else Event(topic="b") for n in range(2000)])
        transport = httpx.ASGITransport(create_app(bus))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            longest, turns, last = 0.0, 0, asyncio.get_running_loop().time()
            asking = asyncio.create_task(ask(client, "?last=40000&pattern=b"))
            while not asking.done():
                await asyncio.sleep(0)
                now = asyncio.get_running_loop().time()
                longest, turns, last = max(longest, now - last), turns + 1, now
            assert (await asking)["events"] == 20_000
    assert turns > 40
    assert longest < 0.5


async def test_the_buses_own_topics_are_nobodys(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.broker.publish([Event(topic="_bus.x"), Event(topic="a")])

    assert counts(await ask(client)) == {"a": 1}
    assert counts(await ask(client, "?pattern=_bus.*")) == {}


@pytest.mark.parametrize(
    "query",
    [*(f"last={last}" for last in ("0", "100001", "-1", "x", "", "9" * 5000, "1.5")), "pattern=a..b", "patern=a"],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/topics?{query}")

    assert answer.status_code == 400
    if query.startswith("last"):
        assert answer.json()["message"].startswith("last: ")
