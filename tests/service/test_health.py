"""GET /health and /ready tell the truth in every state of the bus."""

from typing import Any

import httpx
import pytest

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
