"""GET /events/stream: live, resumed, across gaps, at the client's pace; over a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes import address, end, running
from tests.service.sockets import Served, listening, serving
from wowevent import Event, EventBus
from wowevent.broker import Retention
from wowevent.service import drain
from wowevent.service.stream import Streams

BIG = "x" * 200_000


def numbered(*numbers: int, topic: str = "task.created", **fields: Any) -> list[Event]:
    return [Event(topic=topic, payload={"n": n}, **fields) for n in numbers]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is looked at has no events
            await asyncio.sleep(0.01)


# --- what comes -----------------------------------------------------------------------------------------------------


async def test_an_event_comes_when_it_is_published_and_looks_as_in_the_history(
    served: Served, engine_bus: EventBus
) -> None:
    await engine_bus.publish_many(numbered(1))
    async with served.listen() as source:
        first = await source.frame()
        assert (first.retry, first.data) == ("1000", None)
        await engine_bus.publish(Event(topic="a.b", payload={"text": "two\nlines\r\n\u2028 ä"}))
        frame = await source.message()

    (shown,) = (await served.client.get("/events?pattern=a.b")).json()["events"]
    assert frame.data == shown
    assert (frame.event, frame.id) == (None, shown["position"])  # no `event:` is what EventSource.onmessage gets


async def test_who_heard_nothing_yet_can_resume_too(served: Served, engine_bus: EventBus) -> None:
    async with served.listen() as source:
        await source.frame()
    await engine_bus.publish_many(numbered(1, 2))
    async with served.listen(last=source.last) as source:
        assert await source.numbers(2) == [1, 2]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("pattern=task.*", [1, 2, 3, 9]),
        ("pattern=task.created&pattern=plan.%23", [1, 4, 9]),
        ("types=task.started", [2, 5, 9]),
        ("types=task.started&types=plan.made", [2, 4, 5, 9]),
        ("priorities=high", [2]),
        ("priorities=1&priorities=critical", [3, 9]),
        ("min_priority=7", [2, 9]),
        ("min_priority=high&pattern=task.%23", [2, 9]),
        ("sources=a&sources=b", [1, 2, 9]),
        ("pattern=%23", [1, 2, 3, 4, 5, 9]),
    ],
)
async def test_the_filters_of_a_subscription(
    served: Served, engine_bus: EventBus, query: str, numbers: list[int]
) -> None:
    head = (await engine_bus.broker.ping()).head
    sent = [
        *numbered(1, source_agent="a"),
        *numbered(2, topic="task.started", priority=8, source_agent="b"),
        *numbered(3, topic="task.done", priority=1, target_agent="worker"),
        *numbered(4, topic="plan.made"),
        *numbered(5, topic="x", event_type="task.started"),
        Event(topic="task.created", event_type="task.started", priority=9, source_agent="a", payload={"n": 9}),
    ]
    await engine_bus.publish_many(sent)
    async with served.listen(f"?after={head}&{query}") as source:
        assert await source.numbers(len(numbers)) == numbers


async def test_a_comment_comes_where_nothing_happens(served: Served, engine_bus: EventBus) -> None:
    served.app.state.streams = Streams(ping=0.05)
    async with served.listen() as source:
        await source.frame()
        assert [(await source.frame()).comment for _ in range(2)] == ["ping", "ping"]
        await engine_bus.publish_many(numbered(7))
        assert await source.numbers(1) == [7]


# --- the newest of it -----------------------------------------------------------------------------------------------


async def test_of_what_comes_too_fast_the_newest_come_and_the_rest_is_counted(
    served: Served, engine_bus: EventBus
) -> None:
    async with served.listen("?max_rate=5") as source:
        await source.frame()
        await engine_bus.publish_many(numbered(*range(3)))
        assert await source.numbers(3) == [0, 1, 2]  # what comes slowly comes whole, and at once
        await engine_bus.publish_many(numbered(*range(3, 203)))
        found, skipped = list[int](), 0
        while not found or found[-1] < 202:
            frame = await source.message()
            if frame.event == "skipped":
                assert (frame.id, set(frame.data)) == (None, {"skipped"})
                skipped += frame.data["skipped"]
            else:
                found.append(frame.data["event"]["payload"]["n"])
        assert len(found) + skipped == 200
        assert len(found) <= 7
        assert found[-5:] == [198, 199, 200, 201, 202]
        last = source.last
    async with served.listen("?max_rate=5", last=last) as source:
        await engine_bus.publish_many(numbered(203))
        assert await source.numbers(1) == [203]


async def test_a_sampled_stream_says_that_nothing_happens_and_ends_well(served: Served, engine_bus: EventBus) -> None:
    served.app.state.streams = Streams(ping=0.05)
    async with served.listen("?max_rate=1") as source:
        await source.frame()
        assert [(await source.frame()).comment for _ in range(2)] == ["ping", "ping"]
        await engine_bus.stop()
        assert await source.rest() >= 0


async def test_a_sampled_stream_tells_of_a_gap_too(served: Served, engine_bus: EventBus) -> None:
    await engine_bus.publish_many(numbered(1, 2))
    async with served.listen("?max_rate=5", last="another-1") as source:
        assert (await source.message()).event == "reset"
        assert await source.numbers(2) == [1, 2]


# --- on from where it was -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["header", "query", "both"])
async def test_resumed_without_a_gap_and_without_a_duplicate(served: Served, engine_bus: EventBus, by: str) -> None:
    async with served.listen() as source:
        await engine_bus.publish_many(numbered(*range(10)))
        assert await source.numbers(4) == [0, 1, 2, 3]
        old = source.last
        assert await source.numbers(2) == [4, 5]
    await engine_bus.publish_many(numbered(*range(10, 20)))
    query = {"header": "", "query": f"?after={source.last}", "both": f"?after={old}"}[by]
    async with served.listen(query, last=None if by == "query" else source.last) as source:
        await engine_bus.publish_many(numbered(*range(20, 25)))
        assert await source.numbers(19) == list(range(6, 25))


async def test_cut_again_and_again_while_others_publish(served: Served, engine_bus: EventBus) -> None:
    head = (await engine_bus.broker.ping()).head

    async def publish() -> None:
        for n in range(0, 600, 3):
            await engine_bus.publish_many(numbered(n, n + 1, n + 2))

    publishing, found, last = asyncio.create_task(publish()), list[int](), str(head)
    while len(found) < 600:
        async with served.listen(last=last) as source:
            found += await source.numbers(min(97, 600 - len(found)))
            last = source.last
    await publishing
    assert found == list(range(600))


async def test_a_position_of_another_log_is_said_and_gone_on_behind(served: Served, engine_bus: EventBus) -> None:
    await engine_bus.publish_many(numbered(1, 2))
    async with served.listen(last="another-1") as source:
        reset = await source.message()
        assert (reset.event, reset.data["lost"], reset.id) == ("reset", None, None)
        assert await source.numbers(2) == [1, 2]
        await engine_bus.publish_many(numbered(3))
        assert await source.numbers(1) == [3]


async def test_what_the_log_no_longer_holds_is_counted_and_gone_on_behind() -> None:
    async with EventBus("memory://", retention=Retention(max_count=10)) as bus, serving(bus) as served:
        (first, *_) = await bus.publish_many(numbered(*range(100)))
        held = [stored.event.payload["n"] async for stored in bus.history()]
        async with served.listen(f"?after={first.position}") as source:
            reset = await source.message()
            assert (reset.event, reset.data["lost"]) == ("reset", held[0] - 1)
            assert await source.numbers(len(held)) == held
            await bus.publish_many(numbered(100))
            assert await source.numbers(1) == [100]


async def test_through_a_restart_of_the_server(tmp_path: Path) -> None:
    found, last = list[int](), None
    for round_ in range(3):
        with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL="sqlite:///events.db") as process:
            url = await asyncio.to_thread(address, tmp_path)
            async with httpx.AsyncClient(base_url=url, timeout=10) as client:
                async with listening(client, "/events/stream?pattern=a.*", last) as source:
                    events = [{"topic": "a.b", "payload": {"n": 10 * round_ + n}} for n in range(10)]
                    assert (await client.post("/events", json=events)).status_code == 202
                    found += await source.numbers(7 if round_ < 2 else 30 - len(found))
                    last = source.last
                    status = asyncio.create_task(asyncio.to_thread(end, process))
                    assert await source.rest() >= 0  # to its end, and not cut off
                assert await status == 0
        (tmp_path / "out.txt").unlink()
    assert found == list(range(30))
    assert "Traceback" not in (tmp_path / "err.txt").read_text()


# --- the end --------------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_leaves_nothing_behind(served: Served, engine_bus: EventBus) -> None:
    streams: Streams = served.app.state.streams
    async with served.listen() as source, served.listen("?pattern=a.*"):
        await source.frame()
        assert streams.open == 2
    await until(lambda: streams.open == 0)
    assert not {task for task in asyncio.all_tasks() if task.get_name() == "wowevent:stream"}


async def test_draining_ends_streams_well(served: Served, engine_bus: EventBus) -> None:
    async with served.listen() as source:
        await source.frame()
        await drain(served.app)
        with pytest.raises(StopAsyncIteration):
            await source.frame()
    assert (await served.client.get("/events/stream")).status_code == 503


async def test_a_bus_that_stops_ends_streams_well(served: Served, engine_bus: EventBus) -> None:
    async with served.listen() as source:
        await source.frame()
        await engine_bus.stop()
        with pytest.raises(StopAsyncIteration):
            await source.frame()


@pytest.fixture
async def deaf(served: Served) -> AsyncIterator[socket.socket]:
    """A client that asks and does not read, in front of more than any buffer takes."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, served.server.servers[0].sockets[0].getsockname())
        head = b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, head)
        await until(lambda: served.app.state.streams.open == 1)
        yield client


async def flood(bus: EventBus) -> None:
    for _ in range(100):
        await bus.publish(Event(topic="a", payload={"x": BIG}))


async def test_a_client_that_does_not_read_is_cut_off_and_nobody_waits_for_it(
    served: Served, engine_bus: EventBus, deaf: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    served.app.state.streams.patience = 0.3
    async with served.listen("?pattern=b") as source:
        await flood(engine_bus)
        await until(lambda: served.app.state.streams.open == 1)
        await engine_bus.publish_many(numbered(1, topic="b"))
        assert await source.numbers(1) == [1]
    await until(lambda: len(served.server.server_state.connections) <= 1)  # the other client's keeps alive
    assert "stream cut off" in caplog.text


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(
    served: Served, engine_bus: EventBus, deaf: socket.socket
) -> None:
    await flood(engine_bus)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await drain(served.app)
    served.server.should_exit = True
    await until(lambda: not served.server.server_state.connections)
    assert loop.time() - began < 2.5  # uvicorn itself would wait for three seconds


async def test_a_slow_client_is_waited_for_and_nothing_is_kept_for_it() -> None:
    """What it has not read lies in the log alone: when that lets go of it, the client is told, in its place."""
    few = Retention(max_count=10)
    async with EventBus("memory://", retention=few) as bus, serving(bus) as served, served.listen() as source:
        await source.frame()
        for n in range(200):
            await bus.publish(Event(topic="a", payload={"n": n, "x": BIG}))
            await asyncio.sleep(0)
        found, lost = list[int](), 0
        while not found or found[-1] < 199:
            frame = await source.message()
            if frame.event == "reset":
                lost += frame.data["lost"]
            else:
                found.append(frame.data["event"]["payload"]["n"])
    assert lost > 0
    assert found == sorted(set(found))
    assert len(found) + lost <= 200  # at least so many are lost


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        *(f"after={position}" for position in ("x", "a-", "a-x", f"a-{'9' * 30}", f"a-{'9' * 5000}", "")),
        *(f"pattern={pattern}" for pattern in ("a..b", "a*", "%00")),
        *(f"priorities={level}" for level in ("0", "11", "urgentest", "5.5", "", "9999999")),
        *(f"min_priority={level}" for level in ("0", "11", "-1", "x")),
        *("sources=a%0ab", "patern=a", "limit=1"),
        *(f"max_rate={rate}" for rate in ("0", "1001", "-1", "2.5", "x", "")),
    ],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, query: str) -> None:
    answer = await client.get(f"/events/stream?{query}")

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("last", ["x", "a-x", f"a-{'9' * 30}"])
async def test_a_wrong_last_event_id_is_refused(client: httpx.AsyncClient, last: str) -> None:
    answer = await client.get("/events/stream", headers={"last-event-id": last})

    assert answer.status_code == 400
    assert answer.json()["message"].startswith("Last-Event-ID: ")


async def test_pages_of_others_may_not_listen(client: httpx.AsyncClient) -> None:
    assert (await client.get("/events/stream", headers={"origin": "https://evil.example"})).status_code == 403


async def test_a_question_for_the_headers_alone_ends(client: httpx.AsyncClient) -> None:
    answer = await client.head("/events/stream")

    assert (answer.status_code, answer.content) == (200, b"")


async def test_so_many_streams_and_no_more(served: Served) -> None:
    served.app.state.streams.limit = 1
    async with served.listen() as source:
        await source.frame()
        answer = await served.client.get("/events/stream")
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_streams")
        assert answer.headers["retry-after"] == "1"
    await until(lambda: served.app.state.streams.open == 0)
    async with served.listen() as source:
        await source.frame()
