"""/storms: the conversations that are parked, and their release."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tests.conformance.engines import eventually
from tests.service.guarded import Guarded
from wowevent import Event, EventBus, StormPolicy


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://", storms=StormPolicy(max_visits=3)) as bus:
        yield bus


async def stormy(bus: EventBus, topic: str = "loop.it", correlation_id: str = "c") -> Event:
    """A conversation that is parked; the event that it began with."""

    async def loop(event: Event) -> None:
        await bus.publish(Event(topic=event.topic))

    await bus.subscribe(topic, loop, subscription=f"looper/{topic}")
    first = Event(topic=topic, correlation_id=correlation_id)
    await bus.publish(first)
    await bus.join(5)
    return first


async def test_what_is_parked_is_listed_and_released(client: httpx.AsyncClient, bus: EventBus) -> None:
    assert (await client.get("/storms")).json() == {"storms": []}
    first = await stormy(bus)
    (storm,) = (await client.get("/storms")).json()["storms"]
    assert (storm["id"], storm["correlation_id"], storm["limit"], storm["most"], storm["who"]) == (
        first.event_id, "c", "max_visits", 3, "looper/loop.it",
    )  # fmt: skip
    assert storm["path"] == [{"subscription": "looper/loop.it", "topic": "loop.it", "visits": 3}]
    assert storm["why"].startswith("storm: ")
    answer = await client.post(f"/storms/{first.event_id}/release")
    assert (answer.status_code, answer.json()) == (200, {"released": [storm]})
    assert (await client.get("/storms")).json() == {"storms": []}


async def test_by_correlation_too_whatever_is_in_it(client: httpx.AsyncClient, bus: EventBus) -> None:
    await stormy(bus, correlation_id="order/7:a@b")
    assert (await client.post("/storms/order%2F7%3Aa%40b/release")).status_code == 200
    assert bus.storms.list() == []


async def test_what_is_not_parked_is_not_found(client: httpx.AsyncClient) -> None:
    answer = await client.post("/storms/nobody/release")
    assert (answer.status_code, answer.json()["error"]) == (404, "storm_not_found")


async def test_who_may_see_all_dead_letters_of_the_path_sees_it_and_who_administers_releases_it(
    bus: EventBus, guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await stormy(bus)
    for grants, count in (
        ({"dead_letters": ("loop.*",)}, 1),
        ({"dead_letters": ("other.*",)}, 0),
        ({"admin": ("#",)}, 1),
    ):
        async with guarded.having("looker", **grants) as client:
            assert len((await client.get("/storms")).json()["storms"]) == count
    async with guarded.having("looker", dead_letters=("#",)) as client:
        assert (await client.post("/storms/c/release")).status_code == 403
    async with guarded.having("boss", admin=("#",)) as client:
        assert (await client.post("/storms/c/release")).status_code == 200
    assert any("release" in line.getMessage() and "boss" in line.getMessage() for line in caplog.records)


async def test_they_are_counted_for_prometheus(client: httpx.AsyncClient, bus: EventBus) -> None:
    await stormy(bus)
    await stormy(bus, "again.it", "d")
    await bus.storms.release("d")
    text = (await client.get("/metrics", headers={"accept": "text/plain"})).text
    assert "wowevent_storms_total 2.0" in text
    assert "wowevent_parked_conversations 1.0" in text


async def test_what_it_says_of_itself_is_the_same_at_every_process(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with EventBus(url, storms=StormPolicy(max_visits=3)) as one, EventBus(url) as two:
        await stormy(one)
        await eventually(two.storms.list, 5)
        assert two.storms.list() == one.storms.list()
