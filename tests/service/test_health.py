"""GET /health and /ready tell the truth in every state of the bus and of its engine."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually, url_of
from tests.processes import address, end, running, until
from tests.servers import Server, redis_server
from wowevent import EventBus
from wowevent.service import create_app
from wowevent.service import events as events_module
from wowevent.service.health import look


async def ask(app: Any, path: str) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bus") as client:
        answer = await client.get(path)
        return answer.status_code, answer.json()


async def test_through_the_life_of_a_bus() -> None:
    bus = EventBus("memory://")
    app = create_app(bus)

    assert (await ask(app, "/ready"))[0] == 503
    assert (await ask(app, "/health"))[0] == 503
    await bus.start()
    status, health = await ask(app, "/health")
    assert status == 200
    assert (health["status"], health["memory"], health["event_bus"]) == ("healthy", "connected", "running")
    assert await ask(app, "/ready") == (200, {"ready": True})
    app.state.draining = True
    assert await ask(app, "/ready") == (503, {"ready": False, "reason": "draining"})
    assert (await ask(app, "/health"))[0] == 200
    assert (await ask(app, "/events"))[0] == 503
    app.state.draining = False
    await bus.stop()
    status, health = await ask(app, "/health")
    assert (status, health["status"]) == (503, "unhealthy")
    assert (await ask(app, "/ready"))[0] == 503


async def test_each_engine_answers_by_its_own_name(broker_name: str, tmp_path: Path) -> None:
    bus = EventBus(url_of(broker_name, tmp_path))
    app = create_app(bus)
    assert await ask(app, "/ready") == (503, {"ready": False, "reason": "the event bus is not started"})
    status, health = await ask(app, "/health")
    assert (status, health["status"], health["event_bus"]) == (503, "unhealthy", "not started")
    await bus.start()

    status, health = await ask(app, "/health")
    details = health.pop("details")
    assert (status, health) == (200, {"status": "healthy", broker_name: "connected", "event_bus": "running"})
    assert list(health) == ["status", broker_name, "event_bus"]
    assert details["promise"]
    assert await ask(app, "/ready") == (200, {"ready": True})
    app.state.draining = True
    assert await ask(app, "/ready") == (503, {"ready": False, "reason": "draining"})
    await bus.stop()


async def test_an_engine_that_dies_and_comes_back(tmp_path: Path) -> None:
    server = await asyncio.to_thread(_started, tmp_path)
    try:
        async with EventBus(f"redis://127.0.0.1:{server.port}") as bus:
            app = create_app(bus)
            assert (await ask(app, "/health"))[0] == 200
            await asyncio.to_thread(server.kill)

            status, health = await ask(app, "/health")
            assert "error" in health.pop("details")
            assert (status, health) == (503, {"status": "unhealthy", "redis": "unreachable", "event_bus": "running"})
            assert await ask(app, "/ready") == (503, {"ready": False, "reason": "redis is unreachable"})
            app.state.draining = True
            assert await ask(app, "/ready") == (503, {"ready": False, "reason": "draining"})
            app.state.draining = False
            await asyncio.to_thread(server.start)

            async def well() -> bool:
                return (await ask(app, "/health"))[0] == 200

            await eventually(well)
            assert await ask(app, "/ready") == (200, {"ready": True})
    finally:
        await asyncio.to_thread(server.kill)


def _started(folder: Path) -> Server:
    server = redis_server(folder / "redis")
    server.start()
    return server


def test_a_process_that_is_told_nothing_but_its_redis(tmp_path: Path) -> None:
    """As the runbook has it: REDIS_URL and a port, an engine that comes late, dies and comes back."""
    server = redis_server(tmp_path / "redis")
    with running(tmp_path, "wowevent.service", PORT="0", REDIS_URL=f"redis://127.0.0.1:{server.port}") as process:
        url = address(tmp_path)
        try:
            away = httpx.get(f"{url}/health")
            assert (away.status_code, away.json()["status"], away.json()["redis"]) == (503, "unhealthy", "unreachable")
            assert httpx.get(f"{url}/ready").status_code == 503
            server.start()
            until(lambda: httpx.get(f"{url}/ready").status_code == 200, "readiness")
            health = httpx.get(f"{url}/health").json()
            del health["details"]
            assert health == {"status": "healthy", "redis": "connected", "event_bus": "running"}
            server.kill()
            assert httpx.get(f"{url}/health").status_code == httpx.get(f"{url}/ready").status_code == 503
            server.start()
            until(lambda: httpx.get(f"{url}/ready").status_code == 200, "readiness again")
            assert httpx.post(f"{url}/events", json={"topic": "a"}).status_code == 202
            assert end(process) == 0
        finally:
            server.kill()


async def test_switched_off() -> None:
    app = create_app(None)

    assert await ask(app, "/health") == (200, await look(None))
    assert await ask(app, "/ready") == (503, {"ready": False, "reason": "the event bus is disabled"})
    status, problem = await ask(app, "/events")
    assert (status, problem["error"], problem["type"]) == (503, "closed", "urn:wowevent:error:closed")
    assert problem["message"] == problem["detail"] == "the event bus is disabled (EVENT_BUS_ENABLED)"
    assert (await ask(app, "/openapi.json"))[0] == 200


async def test_a_fault_of_ours_is_logged_and_not_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_stored: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(events_module, "shown_stored", fail)
    async with EventBus("memory://") as bus:
        await bus.publish_many([])
        transport = httpx.ASGITransport(create_app(bus), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            await client.post("/events", json={"topic": "a"})
            answer = await client.get("/events")

    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert "request failed by an internal error" in caplog.text
