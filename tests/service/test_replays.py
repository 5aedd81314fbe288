"""/replays: a range of the log into a topic, in the background; bounded, held, cancelled, drained."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from wowevent import Event, EventBus, Position, ReplayConfig
from wowevent.service import jobs, replays
from wowevent.service.replays import ReplayOrder

SLOW = {"topic": "again", "pattern": "task.*", "speed_multiplier": 1}


async def published(bus: EventBus, count: int = 4) -> list[Event]:
    """Events of which each happened a minute after the one before, two of each correlation."""
    events = [
        Event(
            topic="task.created", event_type="order.placed", payload={"n": n}, event_id=f"e-{n}",
            correlation_id=f"c-{n % 2}", timestamp=f"2030-01-01T12:{n:02}:00Z", source_agent="shop", priority=8,
        )
        for n in range(count)
    ]  # fmt: skip
    await bus.publish_many([*events, Event(topic="plan.made", timestamp="2030-01-01T12:30:00Z", payload={"n": 99})])
    return events


async def order(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/replays", json={"topic": "again", **fields})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/replays/{found['id']}"
    return found


async def until(client: httpx.AsyncClient, id: str, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while not wanted(found := (await client.get(f"/replays/{id}")).json()):  # noqa: ASYNC110 - as seen from outside
            await asyncio.sleep(0.01)
    return found


def ended(replay: dict[str, Any]) -> bool:
    return replay["state"] not in {"running", "paused"}


async def copies(bus: EventBus, topic: str = "again") -> list[Event]:
    return [stored.event async for stored in bus.history(topic)]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, [0, 1, 2, 3, 99]),
        ({"pattern": "task.*"}, [0, 1, 2, 3]),
        ({"pattern": ["plan.*", "x"]}, [99]),
        ({"start_time": "2030-01-01T12:01:00", "end_time": "2030-01-01T12:02:00+00:00"}, [1, 2]),
        ({"correlation_id": "c-1"}, [1, 3]),
        ({"event_ids": ["e-3", "e-0", "e-x"]}, [0, 3]),
        ({"event_ids": []}, []),
        ({"max_events": 2}, [0, 1]),
        ({"max_events": 0}, []),
        ({"pattern": None, "start_time": None, "max_events": 1}, [0]),
    ],
)
async def test_a_range_into_a_topic(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, fields: dict[str, Any], found: list[int]
) -> None:
    await published(engine_bus)
    began = await order(engine_client, **fields)
    replay = await until(engine_client, began["id"], ended)

    assert (replay["state"], replay["replayed"], replay["failure"]) == ("done", len(found), None)
    assert replay["ended_at"] >= replay["started_at"]
    assert [event.payload["n"] for event in await copies(engine_bus)] == found
    positions = {stored.event.event_id: str(stored.position) async for stored in engine_bus.history()}
    assert replay["position"] == (positions[(await copies(engine_bus))[-1].replay_of or ""] if found else None)
    if engine_bus.capabilities.positions:
        assert replay["end"].endswith("-5")
    else:  # places where no event lies, too
        assert all(Position.parse(replay["end"]).covers(Position.parse(positions[f"e-{n}"])) for n in range(4))


async def test_it_ends_where_the_log_ended_when_it_began(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    """Into a topic that it reads: it would never end."""
    await engine_bus.publish_many([Event(topic="again", payload={"n": n}) for n in range(250)])
    for count in (250, 500):
        replay = await until(engine_client, (await order(engine_client, pattern="again"))["id"], ended)
        assert (replay["state"], replay["replayed"]) == ("done", count)
    assert len(await copies(engine_bus)) == 1000


async def test_one_at_its_own_pace_is_cancelled(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await published(engine_bus)
    began = await order(engine_client, **SLOW)
    running = await until(engine_client, began["id"], lambda replay: replay["replayed"] == 1)
    assert (running["state"], running["ended_at"]) == ("running", None)
    answer = await engine_client.delete(f"/replays/{began['id']}")

    assert (answer.status_code, answer.json()["state"], answer.json()["replayed"]) == (200, "cancelled", 1)
    assert (await engine_client.get(f"/replays/{began['id']}")).json() == answer.json()
    assert (await engine_client.delete(f"/replays/{began['id']}")).json() == answer.json()
    assert len(await copies(engine_bus)) == 1


async def steer(client: httpx.AsyncClient, id: str, how: str) -> dict[str, Any]:
    answer = await client.post(f"/replays/{id}/{how}")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_one_is_held_and_goes_on(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    """Its events lie 0.6 s apart at this speed; held, none comes."""
    await published(engine_bus)
    began = await order(engine_client, **SLOW | {"speed_multiplier": 100})
    await until(engine_client, began["id"], lambda replay: replay["replayed"])
    for _ in range(2):
        held = await steer(engine_client, began["id"], "pause")
        assert (held["state"], held["ended_at"]) == ("paused", None)
    await asyncio.sleep(0.2)  # a step that was under way is finished
    count = len(await copies(engine_bus))
    assert count < 4
    await asyncio.sleep(0.8)
    found = (await engine_client.get(f"/replays/{began['id']}")).json()
    assert (found["state"], found["replayed"], len(await copies(engine_bus))) == ("paused", count, count)
    for _ in range(2):
        assert (await steer(engine_client, began["id"], "resume"))["state"] == "running"
    done = await until(engine_client, began["id"], ended)
    assert (done["state"], done["replayed"]) == ("done", 4)
    for how in ("pause", "resume"):
        assert await steer(engine_client, began["id"], how) == done  # one that has ended stays as it is


async def test_one_that_is_held_is_cancelled(client: httpx.AsyncClient, bus: EventBus) -> None:
    await published(bus)
    began = await order(client, **SLOW)
    await until(client, began["id"], lambda replay: replay["replayed"] == 1)
    await steer(client, began["id"], "pause")
    cancelled = (await client.delete(f"/replays/{began['id']}")).json()
    assert (cancelled["state"], cancelled["replayed"]) == ("cancelled", 1)


async def test_one_is_held_before_its_first_event(client: httpx.AsyncClient, bus: EventBus) -> None:
    await published(bus)
    app = client._transport.app  # type: ignore[attr-defined]  # noqa: SLF001 - the application
    config = ReplayConfig(speed_multiplier=0)
    shown = replays.begin(app.state.replays, bus, ReplayOrder(topic="again"), config, (await bus.broker.ping()).head)
    assert (
        await app.state.replays.steer(shown.id, "pause", None)
    ).state == "paused"  # in the same turn: it has not begun
    await asyncio.sleep(0.05)
    assert await copies(bus) == []
    await steer(client, shown.id, "resume")
    assert (await until(client, shown.id, ended))["replayed"] == 5


async def test_what_a_cancelled_one_says_is_what_was_published(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    await engine_bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(3000)])
    began = await order(engine_client, pattern="task.*")
    await until(engine_client, began["id"], lambda replay: replay["replayed"] > 0)
    cancelled = (await engine_client.delete(f"/replays/{began['id']}")).json()

    assert 0 < cancelled["replayed"] == len(await copies(engine_bus))
    assert cancelled["state"] in {"cancelled", "done"}


async def test_so_many_at_a_time_and_no_more(client: httpx.AsyncClient, bus: EventBus) -> None:
    await published(bus)
    began = [await order(client, **SLOW) for _ in range(jobs.RUNNING)]
    await steer(client, began[1]["id"], "pause")  # it is under way nevertheless
    answer = await client.post("/replays", json=SLOW)
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_replays")
    assert "retry-after" in answer.headers
    await client.delete(f"/replays/{began[0]['id']}")
    began.append(await order(client, **SLOW))
    listed = (await client.get("/replays")).json()["replays"]
    assert [replay["id"] for replay in listed] == [replay["id"] for replay in reversed(began)]


async def test_the_ended_ones_are_forgotten_in_time(
    client: httpx.AsyncClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "KEPT", 3)
    await published(bus)
    slow = await order(client, **SLOW)
    for _ in range(6):
        await until(client, (await order(client, event_ids=[]))["id"], ended)
    ids = [replay["id"] for replay in (await client.get("/replays")).json()["replays"]]
    assert len(ids) == 5  # three that ended, the one that came last, the one that runs
    assert slow["id"] in ids


async def test_one_that_fails_says_why(client: httpx.AsyncClient, bus: EventBus) -> None:
    """The engine ends under it."""
    await published(bus)
    began = await order(client, topic="again", pattern="task.*", speed_multiplier=100_000)
    await bus.stop()
    bus_is_there = client._transport.app.state  # type: ignore[attr-defined]  # noqa: SLF001 - the application
    failed = await until_ended(await bus_is_there.replays.get(began["id"], None))
    assert (failed.state, failed.failure.error) == ("failed", "closed")


async def until_ended(replay: Any) -> Any:
    async with asyncio.timeout(10):
        while replay.state == "running":  # noqa: ASYNC110 - it has no events
            await asyncio.sleep(0.01)
    return replay


async def test_draining_cancels_it(client: httpx.AsyncClient, bus: EventBus) -> None:
    from wowevent.service import drain

    await published(bus)
    app = client._transport.app  # type: ignore[attr-defined]  # noqa: SLF001 - the application
    began = await order(client, **SLOW)
    await drain(app)
    assert (await app.state.replays.get(began["id"], None)).state == "cancelled"
    assert (await client.post("/replays", json=SLOW)).status_code == 503


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "invalid_event"),
        ({"topic": "a.*"}, "invalid_topic"),
        ({"topic": "_bus.x"}, "invalid_topic"),
        ({"topic": ""}, "invalid_topic"),
        ({"topic": None}, "invalid_event"),
        ({"topic": "a", "pattern": "a**"}, "invalid_topic"),
        ({"topic": "a", "pattern": []}, None),
        ({"topic": "a", "pattern": 1}, "invalid_event"),
        ({"topic": "a", "start_time": "yesterday"}, "invalid_event"),
        ({"topic": "a", "start_time": 5}, "invalid_event"),
        ({"topic": "a", "speed_multiplier": -1}, "invalid_event"),
        ({"topic": "a", "speed_multiplier": "fast"}, "invalid_event"),
        ({"topic": "a", "max_events": -1}, "invalid_event"),
        ({"topic": "a", "max_events": 2**64}, "invalid_event"),
        ({"topic": "a", "max_events": 1.5}, "invalid_event"),
        ({"topic": "a", "correlation_id": "a b"}, "invalid_event"),
        ({"topic": "a", "event_ids": ["a b"]}, "invalid_event"),
        ({"topic": "a", "event_ids": "e-1"}, "invalid_event"),
        ({"topic": "a", "patern": "a"}, "invalid_event"),
        (["a"], "invalid_event"),
    ],
    ids=str,
)
async def test_what_cannot_be_replayed_is_refused(client: httpx.AsyncClient, body: Any, error: str | None) -> None:
    answer = await client.post("/replays", json=body)

    if error is None:
        assert answer.status_code == 202
        return
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert (await client.get("/replays")).json() == {"replays": [], "complete": True}


async def test_a_form_may_not_replay(client: httpx.AsyncClient) -> None:
    for media in ("application/x-www-form-urlencoded", "text/plain", ""):
        answer = await client.post("/replays", content=b'{"topic":"a"}', headers={"content-type": media})
        assert answer.status_code == 415
    answer = await client.post("/replays", json={"topic": "a"}, headers={"origin": "https://evil.example"})
    assert answer.status_code == 403


async def test_a_replay_that_is_not_there(client: httpx.AsyncClient) -> None:
    steered = [await client.post(f"/replays/x/{how}") for how in ("pause", "resume")]
    for answer in (await client.get("/replays/x"), await client.delete("/replays/x"), *steered):
        assert (answer.status_code, answer.json()["error"]) == (404, "replay_not_found")
