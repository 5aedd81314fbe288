"""Every tool, driven once by the official client beside agents that work on the same log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.mcp.clients import Tools, until
from wowevent import Event, EventBus, Reject, StormPolicy


@asynccontextmanager
async def agents(url: str) -> AsyncIterator[EventBus]:
    """One that answers `ask.*`, one that cannot handle `bad.*`, and one that talks to itself, on a bus of their own."""

    async def answer(event: Event) -> dict[str, Any]:
        return {"heard": event.payload}

    async def fail(event: Event) -> None:
        raise Reject(f"no room for {event.event_id}, attempt 7 of 'x'")

    async def echo(event: Event) -> None:
        await bus.publish(Event(topic="echo.again"))

    async with EventBus(url, name="beside", storms=StormPolicy(max_visits=4)) as bus:
        await bus.subscribe("echo.*", echo, "echo", subscription="echoes")
        await bus.subscribe("ask.*", answer, "answerer", subscription="answers")
        await bus.subscribe("bad.*", fail, "failer", subscription="fails")
        yield bus


async def drive_bus(tools: Tools) -> set[str]:
    """Every tool that needs a bus; the names of what was driven."""
    now = await tools("subscribe_and_wait", pattern="task.*", timeout=0.05)
    assert (now["events"], now["timed_out"]) == ([], True)
    sent = await tools("publish", topic="task.created", payload={"n": 1}, priority=7)
    assert sent["matched"] == 0
    waited = await tools("subscribe_and_wait", pattern="task.*", after=now["position"], timeout=20)
    assert [each["event"]["payload"] for each in waited["events"]] == [{"n": 1}]
    assert sent["position"] in {waited["position"], None}
    assert (await tools("request", topic="ask.me", payload={"q": 2}, timeout=30))["reply"] == {"heard": {"q": 2}}
    page = await tools("history", pattern="task.*")
    assert [each["event"]["event_id"] for each in page["events"]] == [sent["event_id"]]
    told = await tools("trace", id=sent["event_id"])
    assert [(step["event_id"], step["depth"]) for step in told["steps"]] == [(sent["event_id"], 0)]
    assert (await tools("health"))["status"] == "healthy"
    for number in range(3):
        await tools("publish", topic="bad.thing", payload={"n": number})
    (group,) = await until(lambda: _dead(tools, 3))
    assert (group["subscriptions"], group["reason"]) == ({"fails": 3}, "rejected")
    (failer,) = (await tools("agents", name="failer"))["agents"]
    assert (failer["state"], [each["id"] for each in failer["subscriptions"]]) == ("online", ["fails"])
    (troubled,) = (await tools("subscriptions", troubled=True))["subscriptions"]
    assert (troubled["id"], troubled["dead"]) == ("fails", 3)
    await drive_letters(tools, group["fingerprint"])
    await tools("publish", topic="echo.first")
    made = await tools("pause", name="fails", reason="its disk is full", seconds=60)
    assert [(each["scope"], each["name"]) for each in made["paused"]] == [("subscription", "fails")]
    assert (await tools("pauses"))["pauses"] == made["paused"]
    assert (await tools("subscriptions", name="fails"))["subscriptions"][0]["paused"]
    assert [each["name"] for each in (await tools("resume", name="fails"))["resumed"]] == ["fails"]
    for scope in ({"agent": "failer"}, {"topic": "no.*"}, {"correlation_id": "c"}, {"everything": True}):
        assert len((await tools("pause", **scope))["paused"]) == 1
        assert len((await tools("resume", **scope))["resumed"]) == 1
    assert (await tools("pauses"))["pauses"] == []
    (storm,) = await until(lambda: _parked(tools))
    assert storm["limit"] == "max_visits"
    assert await tools("storm_release", id=storm["correlation_id"]) == {"released": [storm["id"]]}
    tick = await tools("schedule_add", name="tick", topic="tick.tock", every=3600)
    assert (await tools("schedules"))["schedules"] == [tick]
    assert await tools("schedule_remove", name="tick") == {"removed": "tick"}
    return {
        "publish", "subscribe_and_wait", "request", "history", "trace",
        "health", "subscriptions", "agents", "dead_letters", "redeliver",
        "pause", "resume", "pauses", "storms", "storm_release", "schedules", "schedule_add", "schedule_remove",
    }  # fmt: skip


async def drive_letters(tools: Tools, fingerprint: str) -> None:
    """A dry run changes nothing; then it is done, and they die again."""
    before = await tools("dead_letters")
    tried = await tools("redeliver", fingerprint=fingerprint)
    assert (tried["dry_run"], tried["would_redeliver"], tried["groups"][0]["count"]) == (True, 3, 3)
    await asyncio.sleep(0.2)
    assert await tools("dead_letters") == before
    done = await tools("redeliver", fingerprint=fingerprint, limit=2, confirm=True)
    assert done == {"dry_run": False, "redelivered": 2, "gone": 0, "more": True}
    await until(lambda: _dead(tools, 3))


async def drive_router(tools: Tools) -> set[str]:
    """Every tool about the service of this machine, which is started and ended."""
    assert (await tools("router_status"))["state"] == "not_running"
    assert (await tools.refused("router_logs"))["error"] == "io_error"
    changed = await tools("router_configure", set={"log_level": "DEBUG"})
    assert changed["file"].endswith("config.toml")
    assert (await tools("router_status"))["configuration"]["settings"]["log_level"] == "DEBUG"
    started = await tools("router_start", port=0, http_port=0)
    assert started["state"] == "started"
    assert (await tools("router_start"))["state"] == "running"
    found = await tools("router_status")
    assert (found["state"], found["pid"]) == ("running", started["pid"])
    assert (await tools("router_logs", level="DEBUG"))["lines"] is not None
    looked = await tools("troubleshoot")
    assert looked["service"]["state"] == "running"
    assert all(each["verdict"] != "ok" and each["change"] for each in looked["findings"])
    assert (await tools("router_stop"))["state"] == "stopped"
    assert (await tools("router_stop"))["state"] == "not_running"
    return {
        "router_status", "router_logs", "router_configure", "router_start", "troubleshoot", "router_stop",
    }  # fmt: skip


async def _parked(tools: Tools) -> Any:
    """The storms, once there is one."""
    return (await tools("storms"))["storms"]


async def _dead(tools: Tools, count: int) -> Any:
    """The groups, once there are so many dead letters."""
    found = await tools("dead_letters")
    return found["groups"] if found["count"] == count else None
