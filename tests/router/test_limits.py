"""What a router refuses and whom it cuts: limits, pages, hosts, silence."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import connect

from tests.router.conftest import (
    Join,
    Serve,
    Talker,
    bus_of,
    connections_of,
    desk_of,
    event,
    events,
    eventually,
    numbers,
    talking,
)
from wowevent.errors import NotPermitted, NotSupported
from wowevent.router import EventRouter, desk
from wowevent.router.wire import MARGIN, MAX_SUBSCRIPTIONS


async def refused(router: EventRouter, **settings: Any) -> int:
    """The HTTP status of a handshake that fails."""
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(router.url, **{"compression": None, "proxy": None, **settings})
    return caught.value.response.status_code


async def test_a_client_has_so_many_subscriptions(client: Talker):
    for n in range(MAX_SUBSCRIPTIONS):
        await client.say("subscribe", subscription={"topics": [f"t.{n}"]}, ref=n)
    refs = {(await client.hear("subscribed"))["ref"] for _ in range(MAX_SUBSCRIPTIONS)}
    assert refs == set(range(MAX_SUBSCRIPTIONS))
    assert (await client.ask("subscribe", subscription={}))["error"] == "not_supported"
    await client.ask("unsubscribe", subscription_id="sub-1")
    await client.subscribe()


async def test_one_client_too_many_is_told_to_come_later(serve: Serve):
    router = await serve(max_clients=2)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(talking(router))
        await stack.enter_async_context(talking(router))
        assert await refused(router) == 503
        await first.socket.close()
        await eventually(lambda: len(connections_of(router)) == 1)
        await stack.enter_async_context(talking(router))


@pytest.mark.parametrize("fragments", [1, 7])
async def test_a_frame_that_is_too_large_ends_the_connection(router: EventRouter, join: Join, fragments: int):
    client, other = await join(router), await join(router)
    part = "x" * ((bus_of(router).max_payload + MARGIN) // fragments + 1)
    if fragments == 1:
        await client.text(part)
    else:
        await client.socket.send([part] * fragments, text=True)
    code, reason = await client.closed()
    assert code == 1009
    assert reason
    await other.publish()


async def test_the_largest_payload_passes_whole_and_in_fragments(router: EventRouter, join: Join):
    client = await join(router)
    await client.subscribe()
    payload = {"n": 1, "text": "x" * (bus_of(router).max_payload - 30)}
    text = json.dumps({"type": "publish", "event": event(payload=payload)})
    await client.text(text)
    await client.socket.send([text[start : start + 1000] for start in range(0, len(text), 1000)], text=True)
    for _ in range(2):
        assert (await client.event())["event"]["payload"] == payload


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "http://127.0.0.1:{port}"}, True),
        ({"Origin": "https://page.example"}, True),
        ({"Origin": "https://page.example:443"}, False),
        ({"Origin": "https://page.example.evil.com"}, False),
        ({"Origin": "https://evil.com"}, False),
        ({"Origin": "HTTPS://PAGE.EXAMPLE"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": ""}, False),
        ({"Origin": "http://localhost"}, False),
        ({"Host": "localhost:{port}"}, True),
        ({"Host": "[::1]:{port}"}, True),
        ({"Host": "evil.com"}, False),
        ({"Host": "localhost.evil.com:{port}"}, False),
        ({"Host": "127.0.0.1.nip.io"}, False),
        ({"Host": "evil.com", "Origin": "http://evil.com"}, False),
        ({"Host": ""}, False),
        ({"Host": "["}, False),
    ],
)
async def test_pages_and_hosts_that_may_ask(serve: Serve, headers: dict[str, str], allowed: bool):
    router = await serve(origins=["https://page.example"])
    port = router.port
    lines = {"Host": f"127.0.0.1:{port}"} | {name: value.format(port=port) for name, value in headers.items()}
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(f"GET / HTTP/1.1\r\n{head}{upgrade}{key}\r\n".encode())
    async with asyncio.timeout(5):
        status = (await reader.readline()).split()[1]
    assert status == (b"101" if allowed else b"403")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
async def test_others_are_let_in_only_if_that_is_said(host: str, quiet: None):
    router = EventRouter(host=host, port=0)
    with pytest.raises(NotPermitted):
        await router.open()
    await router.stop()


async def test_who_lets_others_in_is_known_by_any_name(serve: Serve):
    router = await serve(host="0.0.0.0", allow_anonymous=True)
    url = f"ws://127.0.0.1:{router.port}"
    async with connect(url, compression=None, proxy=None, additional_headers={"X": "y"}) as socket:
        assert json.loads(await socket.recv())["type"] == "welcome"


async def test_a_silent_client_is_pinged_and_then_cut(serve: Serve):
    router = await serve(ping_interval=0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    writer.write(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{router.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    async with asyncio.timeout(10):
        said = await reader.read()
    assert b"\x89\x00" in said, "a ping"
    assert (4001).to_bytes(2) in said.partition(b"\x89\x00")[2]
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_answers_pings_stays(serve: Serve):
    router = await serve(ping_interval=0.3)
    async with talking(router) as client:
        reading = asyncio.create_task(client.event())  # websockets answers pings while it reads
        await client.say("subscribe", subscription={})
        await asyncio.sleep(1.5)
        async with talking(router) as other:
            await other.publish(n=1)
        assert numbers([await reading]) == [1]


async def test_questions_without_end_are_refused_and_nothing_stays_of_them(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(desk, "_JOBS", 3)
    client, responder = await join(router), await join(router)
    await responder.subscribe("agent.ask")
    for n in range(3):
        await client.say("request", event=event("agent.ask", n), timeout=30, ref=f"q{n}")
    await responder.events(3)
    for type, fields in (
        ("get_health", {}),
        ("request", {"event": event("agent.ask")}),
        ("subscribe", {"subscription": {}}),
        ("subscribe", {"subscription": {"name": "worker"}}),
    ):
        answer = await client.ask(type, **fields)
        assert answer["error"] == "outbox_full"
    assert (await client.ask("ping"))["type"] == "pong"
    assert (await client.publish())["status"] == "queued"
    assert len(desk_of(router).couriers) == 0
    assert len(desk_of(router).fanout) == 1
    (answer,) = [await client.ask("unsubscribe", subscription_id="sub-1")]
    assert answer["error"] == "subscription_not_found"


async def test_who_publishes_faster_than_the_engine_stores_waits_and_loses_nothing(router: EventRouter, join: Join):
    client = await join(router)
    answers = asyncio.create_task(client.publish_all(events(5000)))
    confirmed = await answers
    assert [answer["ref"] for answer in confirmed] == list(range(5000))
    assert {answer["status"] for answer in confirmed} == {"queued"}
    assert (await client.health())["events_processed"] == 5000


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"max_clients": 0}, {"max_queue_size": 0}, {"max_outbox": 0}, {"ping_interval": 0}):
        with pytest.raises(ValueError, match="above 0"):
            EventRouter(**settings)  # type: ignore[arg-type]
    with pytest.raises(NotSupported):
        EventRouter(transport="carrier pigeon")
    with pytest.raises(ValueError, match="exclude"):
        EventRouter(url="memory://", redis_url="redis://localhost")
