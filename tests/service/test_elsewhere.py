"""Replays and redeliveries of another process: seen, steered, and by nobody who may not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually
from tests.processes import address, running
from tests.service.described import Described
from tests.service.guarded import Guarded
from wowevent import Event, EventBus, Reject, directory, errands, pulses
from wowevent.brokers.memory import MemoryBroker, MemoryLog
from wowevent.service import create_app, drain, jobs

SLOW = {"topic": "again", "pattern": "task.*", "speed_multiplier": 1}
BEGUN = 10.0  # seconds for a process to be heard


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_LOOK", 0.02)
    monkeypatch.setattr(pulses, "_ANSWERS", 0.1)
    monkeypatch.setattr(pulses, "PERIOD", 0.05)


@asynccontextmanager
async def asking(bus: EventBus) -> AsyncIterator[httpx.AsyncClient]:
    app, hooks = create_app(bus), {"response": [Described().check]}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://bus", event_hooks=hooks) as client:
        try:
            yield client
        finally:
            await drain(app)


@pytest.fixture
async def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def bus(soon: None, log: MemoryLog) -> AsyncIterator[EventBus]:
    """One process; what is in its log happened a minute apart."""
    async with EventBus(MemoryBroker(log)) as bus:
        await bus.publish_many([Event(topic="task.created", timestamp=f"2030-01-01T12:{n:02}:00Z") for n in range(5)])
        yield bus


@pytest.fixture
async def other(soon: None, log: MemoryLog) -> AsyncIterator[EventBus]:
    """Another one on the same log."""
    async with EventBus(MemoryBroker(log)) as bus:
        yield bus


async def shown(client: httpx.AsyncClient, id: str, kind: str = "replays") -> dict[str, Any]:
    answer = await client.get(f"/{kind}/{id}")
    found: dict[str, Any] = answer.json()
    return found | {"status": answer.status_code}


async def began(client: httpx.AsyncClient, seen_by: httpx.AsyncClient, **order: Any) -> dict[str, Any]:
    """A replay that another process has heard of."""
    answer = await client.post("/replays", json=SLOW | order)
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()

    async def is_seen() -> bool:
        return (await shown(seen_by, found["id"]))["status"] == 200

    await eventually(is_seen, BEGUN)
    return found


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A process of its own: its log, and where it serves."""
    url = f"sqlite:///{tmp_path / 'events.db'}"
    with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL=url):
        yield url, address(tmp_path)


async def test_in_a_process_of_its_own(process: tuple[str, str]) -> None:
    """Nothing is hurried here: it takes as long as it does."""
    url, place = process
    async with (
        httpx.AsyncClient(base_url=place, timeout=15) as there,
        EventBus(url) as bus,
        asking(bus) as here,
    ):
        await bus.publish_many([Event(topic="task.created", timestamp=f"2030-01-01T12:{n:02}:00Z") for n in (1, 2)])
        replay = await began(there, here)
        listed = (await here.get("/replays")).json()
        assert [each["id"] for each in listed["replays"]] == [replay["id"]]
        assert listed["complete"]
        assert listed["replays"][0]["process"] == replay["process"] != bus.attendance.process
        for how, state in (("pause", "paused"), ("resume", "running")):
            answer = await here.post(f"/replays/{replay['id']}/{how}")
            assert (answer.status_code, answer.json()["state"]) == (200, state)
            assert (await shown(there, replay["id"]))["state"] == state
        answer = await here.delete(f"/replays/{replay['id']}")
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
        assert answer.json()["ended_at"]
        assert (await shown(there, replay["id"]))["state"] == "cancelled"


async def test_of_a_redelivery_too(bus: EventBus, other: EventBus) -> None:
    async def refuse(event: Event) -> None:
        raise Reject("never")

    await bus.subscribe("task.*", refuse, "worker", start="first")
    await eventually(lambda: has_letters(bus, 5))
    async with asking(bus) as there, asking(other) as here:
        order = {"subscription": "worker~task.*", "rate": 0.01}
        began = (await there.post("/dead-letters/redeliver", json=order)).json()
        await eventually(lambda: is_seen(here, began["id"]), BEGUN)
        (listed,) = (await here.get("/redeliveries")).json()["redeliveries"]
        assert (listed["id"], listed["total"], listed["process"]) == (began["id"], 5, bus.attendance.process)
        assert (await here.delete(f"/redeliveries/{began['id']}")).json()["state"] == "cancelled"
        assert (await shown(there, began["id"], "redeliveries"))["state"] == "cancelled"


async def has_letters(bus: EventBus, count: int) -> bool:
    return len(await bus.dead_letters.list()) == count


async def is_seen(client: httpx.AsyncClient, id: str) -> bool:
    return (await shown(client, id, "redeliveries"))["status"] == 200


async def test_one_that_does_not_answer_says_where_it_runs(
    bus: EventBus, other: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands, "_PATIENCE", 0.3)
    async with asking(bus) as there, asking(other) as here:
        replay = await began(there, here)
        bus.errands._closed = True  # noqa: SLF001 - it carries nothing out any more
        answer = await here.delete(f"/replays/{replay['id']}")
        assert (answer.status_code, answer.json()["error"]) == (409, "replay_elsewhere")
        assert bus.attendance.process in answer.json()["message"]
        assert bus.pulses.host in answer.json()["message"]
        assert (await shown(there, replay["id"]))["state"] == "running"


async def test_what_no_process_has_is_not_found(bus: EventBus, other: EventBus) -> None:
    async with asking(bus), asking(other) as here:
        for answer in (
            await here.get("/replays/x"),
            await here.post("/replays/x/pause"),
            await here.delete("/replays/x"),
        ):
            assert (answer.status_code, answer.json()["error"]) == (404, "replay_not_found")


async def test_it_is_its_owners_in_every_process(bus: EventBus, other: EventBus, tmp_path: Path) -> None:
    there, here = Guarded(bus, tmp_path / "there.json"), Guarded(other, tmp_path / "here.json")
    rights = {"replay": ["#"], "publish": ["#"]}
    async with there.having("owner", **rights) as owner, here.having("boss", replay=["#"], admin=["#"]) as boss:
        replay = await began(owner, boss)
        async with here.having("stranger", **rights) as stranger:
            for method, path in (("GET", ""), ("POST", "/pause"), ("POST", "/resume"), ("DELETE", "")):
                assert (await stranger.request(method, f"/replays/{replay['id']}{path}")).status_code == 404
            assert (await stranger.get("/replays")).json()["replays"] == []
        async with here.having("owner", **rights) as again:
            assert (await again.delete(f"/replays/{replay['id']}")).json()["state"] == "cancelled"
    await drain(there.app)
    await drain(here.app)


async def test_the_last_that_ended_are_told_and_an_order_in_short(bus: EventBus, other: EventBus) -> None:
    async with asking(bus) as there, asking(other) as here:
        await began(there, here)
        many = [f"e-{n}" for n in range(1_000)]
        for n in range(jobs.TOLD + 2):
            assert (await there.post("/replays", json={"topic": "again", "event_ids": many})).status_code == 202
            await eventually(partial(ended, there, n + 1), BEGUN)
        await eventually(lambda: ended(here, jobs.TOLD), BEGUN)
        listed = (await here.get("/replays")).json()["replays"]
        assert sum(each["state"] == "running" for each in listed) == 1
        assert {len(each["order"]["event_ids"] or ()) for each in listed} == {0, 20}


async def ended(client: httpx.AsyncClient, count: int) -> bool:
    listed = (await client.get("/replays")).json()["replays"]
    return sum(each["state"] == "done" for each in listed) == count


async def test_what_is_none_of_ours_is_left_out(
    bus: EventBus, other: EventBus, caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(bus) as there, asking(other) as here:
        await began(there, here)
        strange = {"process": "p", "jobs": [{"kind": "replay", "id": "x", "owner": None, "shown": {"id": 5}}]}
        await other.broker.publish([Event(topic=pulses.TOPIC, payload=strange)])
        await eventually(lambda: here_is_one(here, caplog), BEGUN)
        assert (await here.get("/replays/x")).status_code == 404
        await other.errands._roll.add("o1", {"kind": 5})  # noqa: SLF001 - as a stranger would
        await eventually(lambda: "an order that is none of ours" in caplog.text, BEGUN)


async def here_is_one(client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture) -> bool:
    listed = (await client.get("/replays")).json()["replays"]
    return len(listed) == 1 and "of another process is left out" in caplog.text


async def test_while_others_cannot_be_heard_it_says_so(
    bus: EventBus, other: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asking(bus) as there, asking(other) as here:
        await began(there, here)
        for each in (bus, other):
            monkeypatch.setattr(each.broker, "publish", partial(without_pulses, each.broker.publish))
        await eventually(lambda: is_incomplete(here), BEGUN)


async def without_pulses(publish: Callable[[Any], Awaitable[Any]], events: Sequence[Event]) -> Any:
    return await publish([event for event in events if event.topic != pulses.TOPIC])


async def is_incomplete(client: httpx.AsyncClient) -> bool:
    return not (await client.get("/replays")).json()["complete"]
