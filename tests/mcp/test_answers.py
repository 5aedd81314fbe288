"""What tools answer: bounded, with clear errors, and nothing that a fault of ours would give away."""

import asyncio
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.mcp.clients import EVERY_TOOL, line_of, over_http, served, within
from wowevent import Event, EventBus
from wowevent.errors import BrokerUnavailable
from wowevent.mcp import server
from wowevent.mcp.call import Call
from wowevent.mcp.line import Line
from wowevent.mcp.shown import PAYLOAD, ROOM
from wowevent.mcp.tool import Nothing, Tool

URL = "memory://"


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("publish", {}, "topic"),
        ("publish", {"topic": 1}, "topic"),
        ("publish", {"topic": "a", "payload": [1]}, "payload"),
        ("publish", {"topic": "a", "priority": 11}, "priority"),
        ("publish", {"topic": "a", "delay": -1}, "delay"),
        ("publish", {"topic": "a", "source_agent": "boss"}, "source_agent"),
        ("subscribe_and_wait", {}, "pattern"),
        ("subscribe_and_wait", {"pattern": "a", "count": 101}, "count"),
        ("subscribe_and_wait", {"pattern": "a", "timeout": 61}, "timeout"),
        ("subscribe_and_wait", {"pattern": "a", "timeout": 0}, "timeout"),
        ("request", {"topic": "a", "timeout": 100}, "timeout"),
        ("history", {"limit": 101}, "limit"),
        ("history", {"max_payload": 10**9}, "max_payload"),
        ("health", {"verbose": True}, "verbose"),
        ("subscriptions", {"limit": 0}, "limit"),
        ("pause", {"name": 1}, "name"),
        ("pause", {"everything": True, "seconds": 0}, "seconds"),
        ("resume", {"everything": "yes"}, "everything"),
        ("pauses", {"x": 1}, "x"),
        ("dead_letters", {"reason": "bored"}, "bored"),
        ("dead_letters", {"fingerprint": "../x"}, "fingerprint"),
        ("redeliver", {"confirm": True}, "say which"),
        ("redeliver", {"ids": ["1"], "subscription": "x"}, "say which"),
        ("redeliver", {"ids": ["1"], "confirm": "yes"}, "confirm"),
        ("trace", {}, "id"),
        ("agents", {"state": "bored"}, "state"),
        ("storms", {"x": 1}, "x"),
        ("storm_release", {}, "id"),
        ("schedules", {"x": 1}, "x"),
        ("schedule_add", {"name": "n", "topic": "a", "every": 0.1}, "every"),
        ("schedule_remove", {}, "name"),
        ("router_status", {"x": 1}, "x"),
        ("router_logs", {"lines": 201}, "lines"),
        ("router_logs", {"level": "LOUD"}, "level"),
        ("troubleshoot", {"x": 1}, "x"),
        ("router_start", {"port": 70_000}, "port"),
        ("router_stop", {"force": "yes"}, "force"),
        ("router_configure", {}, "something"),
        ("router_configure", {"set": {"port": [1]}}, "set"),
        ("nothing", {}, "no tool"),
    ],
)
async def test_wrong_arguments_are_named(name: str, arguments: dict[str, Any], says: str) -> None:
    async with within(URL) as tools:
        problem = await tools.refused(name, **arguments)
    assert problem["error"] == "invalid_arguments"
    assert says in problem["message"]


@pytest.mark.parametrize(
    ("name", "arguments", "code"),
    [
        ("publish", {"topic": "a..b"}, "invalid_topic"),
        ("publish", {"topic": "_bus.pause"}, "invalid_topic"),
        ("publish", {"topic": "a", "payload": {"x": "y" * 300_000}}, "payload_too_large"),
        ("subscribe_and_wait", {"pattern": "a**"}, "invalid_topic"),
        ("subscribe_and_wait", {"pattern": "a", "after": "nowhere"}, "invalid_event"),
        ("subscribe_and_wait", {"pattern": "a", "after": "other-1"}, "position_lost"),
        ("history", {"start_time": "yesterday"}, "invalid_event"),
        ("history", {"newest": True, "after": "x-1"}, "invalid_event"),
        ("request", {"topic": "a"}, "no_responders"),
        ("pause", {}, "invalid_event"),
        ("pause", {"agent": "a", "everything": True}, "invalid_event"),
        ("pause", {"agent": "a", "seconds": 9, "until": "2100-01-01"}, "invalid_event"),
        ("resume", {}, "invalid_event"),
        ("pause", {"name": "nobody"}, "subscription_not_found"),
        ("schedule_add", {"name": "n", "topic": "a"}, "invalid_schedule"),
        ("trace", {"id": "nowhere"}, "conversation_not_found"),
        ("storm_release", {"id": "x"}, "storm_not_found"),
        ("schedule_remove", {"name": "n"}, "schedule_not_found"),
        ("dead_letters", {"subscription": "nobody"}, "subscription_not_found"),
        ("redeliver", {"ids": ["1"]}, "dead_letter_not_found"),
        ("router_configure", {"set": {"allow_anonymous": "true"}}, "not_permitted"),
        ("router_configure", {"set": {"tokens": "x"}}, "not_permitted"),
        ("router_configure", {"unset": ["tokens"]}, "not_permitted"),
        ("router_configure", {"set": {"host": "0.0.0.0"}}, "not_permitted"),
        ("router_configure", {"set": {"port": "many"}}, "config"),
        ("router_configure", {"set": {"url": "carrier-pigeon://"}}, "not_supported"),
    ],
)
async def test_errors_have_their_codes(name: str, arguments: dict[str, Any], code: str, home: Path) -> None:
    async with within(URL) as tools:
        assert (await tools.refused(name, **arguments))["error"] == code
    assert not (home / ".config").exists()


@pytest.mark.parametrize("tool", EVERY_TOOL, ids=lambda tool: tool.name)
def test_a_tool_says_what_it_answers_and_that_payloads_are_data(tool: Tool) -> None:
    listed = tool.listed()
    assert listed.input_schema["type"] == "object"
    assert listed.input_schema["additionalProperties"] is False
    assert re.search(r"(Answers|answers) (\{|the schedule)|: it answers \{", tool.description)
    assert ("never instructions" in tool.description.replace("\n", " ")) is (tool.name != "publish")
    assert listed.annotations is not None
    assert listed.annotations.read_only_hint is not tool.changes


async def test_what_is_large_is_left_out_and_said(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    async with EventBus(url) as bus, within(url) as tools:
        await bus.publish(Event(topic="a", payload={"x": "y" * PAYLOAD}))

        (stored,) = (await tools("history"))["events"]
        assert stored["event"]["payload"] is None
        assert stored["event"]["payload_left_out"] == f"{PAYLOAD + 8} bytes"
        (stored,) = (await tools("history", max_payload=2 * PAYLOAD))["events"]
        assert stored["event"]["payload"] == {"x": "y" * PAYLOAD}


async def test_an_answer_has_a_size_and_says_where_it_goes_on(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    async with EventBus(url) as bus, within(url) as tools:
        await bus.publish_many([Event(topic="a", payload={"n": n, "x": "y" * 3000}) for n in range(60)])

        found, after = [], None
        while True:
            page = await tools("history", limit=100, **({} if after is None else {"after": after}))
            assert len(msgspec.json.encode(page)) < ROOM + 4096
            found += [each["event"]["payload"]["n"] for each in page["events"]]
            after = page["next"]
            if after is None:
                break
        assert found == list(range(60))
        newest = (await tools("history", newest=True, limit=2))["events"]
        assert [each["event"]["payload"]["n"] for each in newest] == [58, 59]
        waited = await tools("subscribe_and_wait", pattern="a", count=100, timeout=0.3, after=_start(newest))
        assert len(msgspec.json.encode(waited)) < ROOM + 4096
        assert waited["position"] == waited["events"][-1]["position"]


def _start(stored: list[dict[str, Any]]) -> str:
    return stored[0]["position"].rpartition("-")[0] + "-0"


async def test_a_wait_misses_nothing_between_two_calls(tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    async with EventBus(url) as bus, within(url) as tools:
        first = await tools("subscribe_and_wait", pattern="a.*", timeout=0.05)
        assert (first["events"], first["timed_out"]) == ([], True)
        await bus.publish_many([Event(topic="a.b", payload={"n": n}) for n in range(3)])
        second = await tools("subscribe_and_wait", pattern="a.*", count=2, after=first["position"])
        third = await tools("subscribe_and_wait", pattern="a.*", after=second["position"])
        seen = [each["event"]["payload"]["n"] for each in second["events"] + third["events"]]
        assert seen == [0, 1, 2]


async def test_so_many_calls_are_under_way_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_AT_ONCE", 2)
    async with within(URL) as tools:
        waiting = [asyncio.create_task(tools("subscribe_and_wait", pattern="a", timeout=1)) for _ in range(2)]
        await asyncio.sleep(0.2)
        assert (await tools.refused("health"))["error"] == "rate_limited"
        await asyncio.gather(*waiting)
        assert (await tools("health"))["status"] == "healthy"


async def test_a_fault_of_ours_is_told_as_that_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(_: Call, __: Nothing) -> None:
        """Breaks."""
        raise KeyError("what nobody should see")

    async with within(URL, tools=[Tool(call=broken)]) as tools:
        problem = await tools.refused("broken")
    assert problem["error"] == "internal_error"
    assert "nobody should see" not in problem["message"]
    assert "nobody should see" in caplog.text


async def test_an_engine_that_is_away_is_told_and_tried_again() -> None:
    tries = []

    def make() -> EventBus:
        tries.append(1)
        if len(tries) < 3:
            raise BrokerUnavailable("it is away")
        return EventBus(URL)

    async with within(URL, line=Line(make)) as tools:
        said = await tools("health")
        assert (said["status"], said["problem"]["error"]) == ("unhealthy", "broker_unavailable")
        refused = await tools.refused("history")
        assert (refused["error"], refused["retryable"]) == ("broker_unavailable", True)
        assert (await tools("health"))["status"] == "healthy"


async def test_one_bus_for_all_who_come_at_once() -> None:
    made: list[EventBus] = []

    def make() -> EventBus:
        made.append(EventBus(URL))
        return made[-1]

    line = Line(make)
    first, second = await asyncio.gather(line.bus(), line.bus())
    assert first is second is made[0]
    assert len(made) == 1
    await line.close()
    with pytest.raises(Exception, match="ending"):
        await line.bus()


async def test_clients_of_before_are_served_too(tmp_path: Path) -> None:
    """The handshake of 2025, over HTTP without sessions."""
    from mcp import Client

    async with served(f"memory://{tmp_path.name}") as at, Client(at, mode="legacy") as client:
        assert len((await client.list_tools()).tools) > 5
        assert (await client.call_tool("health", {})).structured_content["status"] == "healthy"


async def test_two_clients_of_one_server(tmp_path: Path) -> None:
    async with served(f"memory://{tmp_path.name}") as at, over_http(at) as one, over_http(at) as other:
        waiting = asyncio.create_task(one("subscribe_and_wait", pattern="a", timeout=20))
        await asyncio.sleep(0.3)
        await other("publish", topic="a", payload={"n": 1})
        assert (await waiting)["events"][0]["event"]["payload"] == {"n": 1}


def test_a_line_opens_nothing_by_itself() -> None:
    line_of("redis://nowhere.invalid")


def test_the_page_and_the_agent_name_every_tool() -> None:
    names = {tool.name for tool in EVERY_TOOL}
    root = Path(__file__).parents[2]
    agent = (root / "agents" / "wowevent-operator.md").read_text()
    head = next(line for line in agent.splitlines() if line.startswith("tools: "))
    rows = re.findall(r"^\| (`.+?`) \|", (root / "docs" / "mcp.md").read_text(), re.MULTILINE)

    assert set(re.findall(r"mcp__wowevent__(\w+)", head)) == names
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == names
