"""The Python of the pages that is part of a program: run among what it leaves undefined, and seen to do its work."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from websockets.asyncio.client import connect

import wowevent
from tests.conformance.engines import eventually, shared_redis
from tests.documents.pages import blocks, read, run
from tests.keys import Keys
from tests.processes import wowevent as command
from tests.servers import certificate
from wowevent import Event, EventBus, RetryPolicy, ValidationError
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

PAGES = ("agents", "conversations", "engines", "pauses", "schedules", "schemas", "storms", "websocket")
FOUND = {page: blocks(f"docs/{page}.md", "python") for page in PAGES}
RUNS = [block for found in FOUND.values() for block in found]
LOCAL_REDIS = "redis://localhost:6379"


@pytest.fixture
def names() -> dict[str, Any]:
    """What a reader has imported."""
    return {name: getattr(wowevent, name) for name in wowevent.__all__}


@pytest.fixture
async def bus(names: dict[str, Any]) -> AsyncIterator[EventBus]:
    """The one that the pages call so."""
    async with EventBus("memory://") as bus:
        names["bus"] = bus
        yield bus


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


async def test_agents(names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roll, deliveries, lost, died = FOUND["agents"]
    url = f"sqlite:///{tmp_path}/events.db"
    async with EventBus(url) as before:
        await before.subscribe("task.*", print, "worker")

    await run(roll.with_({LOCAL_REDIS: url}), names)
    assert lines(capsys) == ["planner online ()", "worker offline ()", "waits for somebody to serve ('worker~task.*',)"]

    async def fail(event: Event) -> None:
        raise ConnectionError("no answer")

    async with EventBus(url, name="planner") as bus:
        names["bus"], names["event"] = bus, Event(topic="mail.sent", payload={})
        await bus.subscribe("mail.*", fail, "postman", retry=RetryPolicy(max_retries=1, initial=0.01))
        await run(lost, names)
        told: list[Event] = []
        names["died"] = told.append
        await run(died, names)

        await bus.publish(names["event"])
        await bus.join(timeout=10)
        await run(deliveries, names)
        said = lines(capsys)
        assert [re.sub(r"\b\d{10}\.\d+", "AT", line) for line in said] == [
            "postman~mail.* AT 1 retried ConnectionError: no answer",
            "postman~mail.* AT 2 dead ConnectionError: no answer",
        ]
        event = names["event"]
        await eventually(lambda: told)
        assert told[0].payload["event_id"] == event.event_id

        alone = Event(topic="task.asked", target_agent="nobody", source_agent="planner")
        await bus.publish(alone)
        await eventually(lambda: "nobody takes" in (text := capsys.readouterr().out) and alone.event_id in text)


async def test_conversations(names: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page's own example: a plan, of whose two tasks one fails."""
    (code,) = FOUND["conversations"]
    url = f"sqlite:///{tmp_path}/events.db"

    async def plan(_: Event) -> None:
        for n in (1, 2):
            await log.publish(Event(topic="task.made", payload={"n": n}, source_agent="planner"))

    async def work(event: Event) -> None:
        if event.payload["n"] == 2:
            raise ConnectionError("no answer")
        await log.publish(Event(topic="task.done", source_agent="worker", target_agent="boss"))

    async with EventBus(url) as log:
        names["bus"], names["event"] = log, Event(topic="plan.made", source_agent="boss")
        await log.subscribe("plan.made", plan, "planner")
        await log.subscribe("task.made", work, "worker", retry=RetryPolicy(max_retries=5, initial=0.01))
        await log.publish(names["event"])
        await log.join(timeout=10)
        await run(code, names)
        assert [re.sub(r"(?<= )(\d+:\d\d:\d\d\.?\d*|[\d.e-]+)(?= \[)", "LATER", line) for line in lines(capsys)] == [
            " plan.made boss None []",
            "   task.made planner LATER []",
            "     task.done worker LATER []",
            "   task.made planner LATER ['ConnectionError: no answer']",
        ]

    shown = next(each for each in blocks("docs/conversations.md") if "$ wowevent trace" in each.text)
    done = await asyncio.to_thread(command, tmp_path, "trace", names["event"].event_id, "--url", url)
    assert masked(done.stdout.decode()) == masked(shown.text.partition("\n")[2])


def masked(text: str) -> str:
    """Without what differs from run to run: ids, moments, durations."""
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+", "MOMENT", text)
    return re.sub(r"[\d.]+ m?s\b", "DURATION", text)


async def test_engines(names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line opens the engine under whose heading it stands; the ones for this machine are used."""
    monkeypatch.chdir(tmp_path)
    authority, _ = certificate(tmp_path)
    client = Redis.from_url(shared_redis.emptied())
    files = ("/etc/ssl/redis-ca.pem", "/etc/ssl/rabbit-ca.pem", "/etc/ssl/nats-ca.pem")
    for block, engine in zip(FOUND["engines"], ("sqlite", "redis", "rabbitmq", "nats"), strict=True):
        for line in block.text.splitlines():
            (one,) = read(block.page, f"```python\n{line}\n```")
            for file in files:
                one = one._replace(text=one.text.replace(file, str(authority)))
            one = one._replace(text=one.text.replace(LOCAL_REDIS, shared_redis.url()))
            await run(one, names | {"client": client} if "client" in line else names)
            bus = names["bus"]
            assert bus.capabilities.name == ("memory" if "memory:" in line else engine), line
    await client.aclose()


async def test_pauses(names: dict[str, Any], bus: EventBus) -> None:
    words, quota = FOUND["pauses"]
    await run(words, names)
    assert {each.scope for each in await bus.pauses()} == {"agent", "topic", "conversation"}
    for each in await bus.pauses():
        which: dict[str, Any] = {"correlation_id" if each.scope == "conversation" else each.scope: each.name}
        await bus.resume(**which)

    class Limited(Exception):
        resets_at = 60.0

    class Model:
        async def ask(self, payload: object) -> None:
            raise Limited

    names |= {"model": Model(), "RateLimited": Limited}
    await run(quota, names)
    await bus.subscribe("question.*", names["ask_model"], "asker")
    await bus.publish(Event(topic="question.asked"))

    async def paused() -> bool:
        return any(each.reason == "quota of the model" for each in await bus.pauses())

    await eventually(paused)


async def test_schedules(names: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = FOUND["schedules"]
    await run(code.with_({LOCAL_REDIS: shared_redis.emptied()}), names)
    nightly, sweep = lines(capsys)
    assert re.fullmatch(r"nightly \d{4}-\d\d-\d\d \d\d:30:00\+00:00 None", nightly)
    assert re.fullmatch(r"sweep \d{4}-.*\+00:00 None", sweep)


async def test_schemas(names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = FOUND["schemas"]
    with pytest.raises(ValidationError) as raised:
        await run(code, names)
    assert f"# ValidationError: {raised.value}\n" in code.text


async def test_storms(names: dict[str, Any]) -> None:
    (code,) = FOUND["storms"]
    made, asked = code.text.split("\n\n")
    names["url"] = "memory://"
    await run(code._replace(text=made), names)
    async with EventBus("memory://", storms=wowevent.StormPolicy(max_visits=2)) as bus:

        async def again(event: Event) -> None:
            await bus.publish(Event(topic="turn.taken"))

        await bus.subscribe("turn.*", again, "ann")
        await bus.publish(Event(topic="turn.taken", correlation_id="order-7"))
        await eventually(bus.storms.list)
        (storm,) = bus.storms.list()
        words = re.findall(r" \.(\w+)", asked.partition("#")[2].partition("\n")[0])
        assert len(words) == 8
        assert all(hasattr(storm, word) for word in words)
        await run(code._replace(text=asked), names | {"bus": bus})
        assert not bus.storms.list()


async def test_the_client_with_a_token(names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = FOUND["websocket"]
    keys = Keys(tmp_path)
    monkeypatch.chdir(tmp_path)
    authority, _ = certificate(tmp_path)
    (tmp_path / "ca.pem").write_bytes(authority.read_bytes())
    asked: list[str] = []

    def new_jwt() -> str:
        asked.append("asked")
        return keys.jwt()

    async with EventBus("memory://") as bus, EventRouter(port=0, bus=bus, keyring=keys.ring()) as router:
        names |= {"EventRouterClient": EventRouterClient, "url": router.url, "new_jwt": new_jwt}
        names["secret"] = keys.all_of("worker-1")
        await run(code, names)
        async with names["client"] as client:
            await client.publish("task.created", {})
    assert asked


# --- frames that pages show -------------------------------------------------------------------------------------------


async def test_the_readmes_frames_of_wscat(tmp_path: Path) -> None:
    """What its reader types is sent by another client of WebSocket."""
    (block,) = [each for each in blocks("README.md", "text") if each.text.startswith("wscat")]
    _, *typed = block.text.splitlines()
    assert len(typed) == 2
    async with EventBus("memory://") as bus, EventRouter(port=0, bus=bus) as router, connect(router.url) as socket:
        for line in typed:
            await socket.send(line.removeprefix("> "))
        async with asyncio.timeout(10):
            said = [await socket.recv() for _ in range(4)]
    assert sum('"event"' in str(each) and "task.created" in str(each) for each in said) == 1
