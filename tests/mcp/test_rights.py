"""What is refused: changes where they are not allowed, and over HTTP what a token does not grant."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.keys import Keys
from tests.mcp.clients import EVERY_TOOL, Tools, over_http, served, until, within
from tests.mcp.every import agents
from tests.processes import end, running, wowevent
from tests.processes import until as wait_for
from wowevent import Event
from wowevent.access.address import is_loopback
from wowevent.errors import NotPermitted
from wowevent.mcp import http
from wowevent.settings import Settings

NAMES = {tool.name for tool in EVERY_TOOL}
CHANGES = {tool.name for tool in EVERY_TOOL if tool.changes}
HERE = {tool.name for tool in EVERY_TOOL if tool.here}


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def audited(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("audit")]


async def test_what_changes_something_is_neither_listed_nor_done() -> None:
    async with within("memory://", allow_changes=False) as tools:
        assert not await tools.names() & CHANGES
        for name in sorted(CHANGES):
            assert (await tools.refused(name, topic="a"))["error"] == "not_permitted"
        assert (await tools("history"))["events"] == []


def test_what_changes_something_is_known() -> None:
    known = "publish request pause resume redeliver storm_release schedule_add schedule_remove"
    assert {*known.split(), "router_start", "router_stop", "router_configure"} == CHANGES
    assert {*HERE} == {name for name in NAMES if name.startswith("router_")} | {"troubleshoot"}


async def test_by_http_this_machine_is_for_who_shows_a_token(tmp_path: Path) -> None:
    async with served(f"memory://{tmp_path.name}") as at, over_http(at) as tools:
        assert await tools.names() == {tool.name for tool in EVERY_TOOL} - HERE
        for name in sorted(HERE):
            assert (await tools.refused(name))["error"] == "not_permitted"


async def test_a_token_is_told_of_what_it_may_do(keys: Keys, tmp_path: Path) -> None:
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at:
        async with over_http(at, keys.token("p", publish=["task.*"])) as tools:
            assert await tools.names() == {
                "publish",
                "request",
                "health",
                "schedules",
                "schedule_add",
                "schedule_remove",
            }
            for name in ("history", "dead_letters", "redeliver", "pause", "router_stop", "troubleshoot"):
                assert (await tools.refused(name))["error"] == "not_permitted"
        async with over_http(at, keys.token("ops", admin=["#"])) as tools:
            assert {"pause", "router_start", "troubleshoot"} <= await tools.names()


async def test_a_token_publishes_as_itself_and_where_it_may(keys: Keys, tmp_path: Path) -> None:
    secret = keys.token("planner", publish=["task.*"], replay=["task.*"], limits={"events": "1/s"})
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at, over_http(at, secret) as tools:
        assert (await tools.refused("publish", topic="pay.out"))["error"] == "not_permitted"
        await tools("publish", topic="task.a")
        assert (await tools.refused("publish", topic="task.b"))["error"] == "rate_limited"
        (stored,) = (await tools("history", pattern="task.*"))["events"]
        assert stored["event"]["source_agent"] == "planner"


async def test_a_token_sees_its_topics_and_its_own_mail(keys: Keys, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    secret = keys.token("me", subscribe=["task.*"], replay=["task.*"], dead_letters=["task.*"])
    async with agents(url) as bus, served(url, keyring=keys.ring()) as at, over_http(at, secret) as tools:
        await bus.publish(Event(topic="task.a", payload={"n": 1}))
        await bus.publish(Event(topic="task.a", payload={"n": 2}, target_agent="other"))
        await bus.publish(Event(topic="task.a", payload={"n": 3}, target_agent="me"))
        await bus.publish(Event(topic="bad.a"))

        seen = (await tools("history", pattern="task.*"))["events"]
        assert [each["event"]["payload"]["n"] for each in seen] == [1, 3]
        hidden = await bus.publish(Event(topic="task.a", target_agent="other"))
        assert (await tools.refused("trace", id=hidden.event_id))["error"] == "conversation_not_found"
        refused = await tools.refused("history")
        assert refused["error"] == "not_permitted"
        assert (await tools.refused("subscribe_and_wait", pattern="*"))["error"] == "not_permitted"
        assert (await tools.refused("history", pattern="bad.*"))["error"] == "not_permitted"
        await until(bus.dead_letters.list)
        assert (await tools("dead_letters"))["count"] == 0
        assert (await tools.refused("dead_letters", subscription="fails"))["error"] == "subscription_not_found"
        assert (await tools("subscriptions"))["subscriptions"] == []
        assert "failer" not in {each["name"] for each in (await tools("agents"))["agents"]}


async def test_a_token_without_a_right_to_letters_sends_none_again(keys: Keys, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    secret = keys.token("me", dead_letters=["task.*"])
    async with agents(url) as bus, served(url, keyring=keys.ring()) as at, over_http(at, secret) as tools:
        await bus.publish(Event(topic="bad.a"))
        (letter,) = await until(bus.dead_letters.list)

        assert (await tools.refused("redeliver", ids=[letter.id], confirm=True))["error"] == "dead_letter_not_found"
        assert (await tools("redeliver", reason="rejected", confirm=True))["redelivered"] == 0


async def test_who_reads_behind_a_place_needs_replay(keys: Keys, tmp_path: Path) -> None:
    secret = keys.token("me", subscribe=["task.*"])
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at, over_http(at, secret) as tools:
        position = (await tools("subscribe_and_wait", pattern="task.*", timeout=0.05))["position"]
        refused = await tools.refused("subscribe_and_wait", pattern="task.*", after=position)
        assert refused["error"] == "not_permitted"


async def test_a_storm_is_seen_by_who_may_see_its_letters(keys: Keys, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}"
    one, other = keys.token("one", dead_letters=["echo.*"]), keys.token("other", dead_letters=["task.*"])
    async with agents(url) as bus, served(url, keyring=keys.ring()) as at:
        await bus.publish(Event(topic="echo.first"))
        async with over_http(at, one) as tools:
            await until(lambda: _parked(tools))
            assert (await tools.refused("storm_release", id="x"))["error"] == "not_permitted"
        async with over_http(at, other) as tools:
            assert await _parked(tools) == []


async def _parked(tools: Tools) -> Any:
    return (await tools("storms"))["storms"]


async def test_a_schedule_is_its_owners(keys: Keys, tmp_path: Path) -> None:
    mine, other = keys.token("me", publish=["task.*"]), keys.token("other", publish=["task.*"])
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at:
        async with over_http(at, mine) as tools:
            await tools("schedule_add", name="tick", topic="task.tick", every=3600)
            assert (await tools.refused("schedule_add", name="x", topic="pay.out", every=9))["error"] == "not_permitted"
        async with over_http(at, other) as tools:
            assert (await tools("schedules"))["schedules"] == []
            assert (await tools.refused("schedule_remove", name="tick"))["error"] == "schedule_not_found"
            refused = await tools.refused("schedule_add", name="tick", topic="task.tick", every=9)
            assert refused["error"] == "not_permitted"


async def test_a_wait_ends_with_its_token(keys: Keys, tmp_path: Path) -> None:
    secret = keys.token("me", subscribe=["#"])
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at, over_http(at, secret) as tools:
        began = time.monotonic()
        waiting = asyncio.create_task(tools.refused("subscribe_and_wait", pattern="#", timeout=30))
        await asyncio.sleep(0.2)
        keys.revoke(secret)
        assert (await waiting)["error"] == "unauthenticated"
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wow_000000000000_x"}, {"authorization": "x"}])
async def test_without_a_good_token_nothing_is_said(headers: dict[str, str], keys: Keys, tmp_path: Path) -> None:
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at, httpx2.AsyncClient() as client:
        answer = await client.post(at, json=LIST, headers=ACCEPT | headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"accept": "application/json, text/event-stream"}


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "evil.example"}])
async def test_pages_elsewhere_may_not_ask(headers: dict[str, str], tmp_path: Path) -> None:
    async with served(f"memory://{tmp_path.name}") as at, httpx2.AsyncClient() as client:
        assert (await client.post(at, json=LIST, headers=ACCEPT | headers)).status_code == 403
        assert (await client.post(at, json=LIST, headers=ACCEPT)).status_code != 403


async def test_nobody_is_a_caller_where_tokens_are_asked_for(keys: Keys) -> None:
    """Should the door ever be left open, the room is not."""
    from starlette.requests import Request

    stranger = Request({"type": "http", "headers": [], "state": {}})
    with pytest.raises(NotPermitted):
        http.callers(keys.ring())(stranger)


def test_another_address_than_loopback_takes_tokens(keys: Keys) -> None:
    assert not is_loopback("0.0.0.0")
    with pytest.raises(NotPermitted, match=r"tokens \(--tokens, WOWEVENT_TOKENS\)$"):  # and by no other means
        http.take("0.0.0.0", 0, Settings(allow_anonymous=True), None)
    listening = http.take("0.0.0.0", 0, Settings(), keys.ring())
    listening.socket.close()


async def test_what_is_changed_and_refused_is_written_down(
    keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wowevent")
    secret = keys.token("planner", publish=["task.*"])
    async with served(f"memory://{tmp_path.name}", keyring=keys.ring()) as at, over_http(at, secret) as tools:
        await tools("publish", topic="task.a", payload={"secret": "of mine"})
        await tools.refused("publish", topic="pay.out")
    done, refused = audited(caplog)
    assert "action=publish who=planner" in done
    assert "topic=task.a" in done
    assert "outcome=refused" in refused
    assert "of mine" not in caplog.text


async def test_over_stdio_it_is_the_user(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "wowevent")
    async with within("memory://") as tools:
        await tools("publish", topic="task.a")
    (line,) = audited(caplog)
    assert "who=nobody" not in line


def test_the_command_serves_over_http_until_it_is_told(home: Path) -> None:
    with running(home, "wowevent", "mcp", "--http", "127.0.0.1:0") as process:
        said = wait_for((home / "out.txt").read_text, "where it is")
        assert said.startswith("mcp server: http://127.0.0.1:")
        assert said.endswith("/mcp\n")
        assert end(process) == 0


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        (("--http", "0.0.0.0:0"), 77, "not_permitted"),
        (("--http", "nowhere"), 2, "usage"),
        (("--tokens", "tokens.json"), 2, "usage"),
        (("--name", "a b"), 65, "invalid_event"),
    ],
)
def test_the_command_refuses(options: tuple[str, ...], status: int, code: str, home: Path) -> None:
    done = wowevent(home, "mcp", *options, WOWEVENT_ALLOW_ANONYMOUS="true")
    assert (done.returncode, done.stdout) == (status, b"")
    assert f"error[{code}]".encode() in done.stderr
