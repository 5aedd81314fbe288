"""Connecting, and what is no router; losing the connection, and making it again."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from tests.client.scripted import WELCOME, Got, Peer, envelope, line, scripted, until
from wowevent import BrokerUnavailable, Closed, EventBus, InvalidEvent, NotPermitted
from wowevent.client import EventRouterClient
from wowevent.client.backoff import Backoff
from wowevent.router import EventRouter
from wowevent.testing import ManualClock


def ours() -> list[str]:
    """The tasks of clients."""
    return [name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("wowevent:client")]


async def refused(client: EventRouterClient, error: type[Exception] = BrokerUnavailable, seconds: float = 1.5) -> str:
    """The message of a connect that fails in time and leaves nothing."""
    with pytest.raises(error) as raised:
        async with asyncio.timeout(seconds):
            await client.connect()
    assert not client.connected
    assert client.closed
    assert not ours()
    return str(raised.value)


# --- no router ----------------------------------------------------------------------------------------------------


async def test_a_port_where_nobody_listens_is_told_at_once_with_its_url():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"ws://127.0.0.1:{taken.getsockname()[1]}"
    message = await refused(EventRouterClient(url, timeout=5.0), seconds=1.0)
    assert url in message


async def test_a_host_that_does_not_resolve_is_told():
    message = await refused(EventRouterClient("ws://no-such-host.invalid:9090", timeout=1.0))
    assert "no-such-host.invalid" in message


async def test_a_server_that_accepts_and_says_nothing_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        assert "0.3 s" in await refused(EventRouterClient(url, timeout=0.3))


async def test_a_host_that_swallows_what_is_sent_to_it_is_given_up_after_the_timeout():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.setblocking(False)
            each.connect_ex(full.getsockname())  # now it has no room, and Linux drops what else knocks
        url = f"ws://127.0.0.1:{full.getsockname()[1]}"
        assert "0.3 s" in await refused(EventRouterClient(url, timeout=0.3))


async def test_a_connect_that_is_cancelled_leaves_no_socket():
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        ended.set()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        client = EventRouterClient(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.connect(), 0.1)
        await asyncio.wait_for(ended.wait(), 1.0)
        assert client.closed


async def test_a_server_that_speaks_something_else_is_told():
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        await refused(EventRouterClient(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=1.0))


async def test_a_server_that_hangs_up_during_the_handshake_is_told():
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        await refused(EventRouterClient(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=1.0))


async def test_a_websocket_server_that_does_not_welcome_is_given_up_after_the_timeout():
    async with scripted(lambda peer: peer.silent()) as url:
        await refused(EventRouterClient(url, timeout=0.3))


async def test_a_router_that_does_not_answer_hello_is_given_up_after_the_timeout():
    async def script(peer: Peer) -> None:
        await peer.send(WELCOME | {"max_frame": 1000})
        await peer.silent()

    async with scripted(script) as url:
        await refused(EventRouterClient(url, timeout=0.3))


async def test_a_router_that_does_not_answer_a_subscribe_is_given_up_after_the_timeout():
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, timeout=0.3)
        client.on("a.*")(Got())
        await refused(client)


async def test_a_router_that_sends_what_is_no_frame_is_left():
    async def script(peer: Peer) -> None:
        await peer.socket.send("[1, 2")
        await peer.silent()

    async with scripted(script) as url:
        await refused(EventRouterClient(url, timeout=1.0))


async def test_a_refused_host_is_not_permitted(bus: EventBus):
    async with EventRouter(host="127.0.0.1", port=0, bus=bus, allow_anonymous=False) as router:
        name = socket.gethostname()
        url = f"ws://{name}:{router.port}"
        try:
            await asyncio.get_running_loop().getaddrinfo(name, router.port)
            _, writer = await asyncio.open_connection(name, router.port)
            writer.close()
        except OSError:
            pytest.skip("this machine's name does not lead to its loopback address")
        await refused(EventRouterClient(url), NotPermitted)


async def test_http_403_is_not_permitted_with_its_reason():
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 7\r\n\r\nnot you")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        client = EventRouterClient(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert "not you" in await refused(client, NotPermitted)


async def test_a_router_that_is_full_is_unavailable(bus: EventBus):
    async with (
        EventRouter(port=0, bus=bus, max_clients=1) as router,
        EventRouterClient(router.url),
    ):
        with pytest.raises(BrokerUnavailable, match="503"):
            await EventRouterClient(router.url).connect()


@pytest.mark.parametrize("code", [1008])
async def test_close_code_1008_before_the_welcome_is_not_permitted(code: int):
    async with scripted(lambda peer: peer.socket.close(code, "not you")) as url:
        assert "not you" in await refused(EventRouterClient(url), NotPermitted)


def test_settings_that_make_no_sense_are_refused():
    for settings in (
        {"url": "http://localhost"},
        {"timeout": 0},
        {"reconnect_decay": 0.5},
        {"max_outbox": 0},
        {"heartbeat_interval": -1},
    ):
        with pytest.raises(ValueError, match=r"url|above 0|reconnect_decay"):
            EventRouterClient(**settings)
    with pytest.raises(InvalidEvent):
        EventRouterClient(agent="no blanks")


# --- a router -----------------------------------------------------------------------------------------------------


async def test_to_connect_twice_or_at_the_same_time_is_to_connect_once(router: EventRouter):
    client = EventRouterClient(router.url)
    await asyncio.gather(*(client.connect() for _ in range(5)))
    await client.connect()
    assert (await client.get_health())["clients"] == 1
    await asyncio.gather(client.disconnect(), client.disconnect())
    await client.disconnect()
    assert client.closed


async def test_it_can_be_used_again_after_disconnect(router: EventRouter, bus: EventBus):
    got = Got()
    client = EventRouterClient(router.url)
    client.on("a.*")(got)
    for n in range(3):
        async with client:
            await client.publish("a.b", {"n": n})
            await got.count(n + 1)
        assert not client.connected
    assert got.ns == [0, 1, 2]


async def test_publish_before_connect_and_after_disconnect_says_so(router: EventRouter):
    client = EventRouterClient(router.url)
    with pytest.raises(Closed, match="connect"):
        await client.publish("a.b")
    async with client:
        await client.publish("a.b")
    with pytest.raises(Closed, match="connect"):
        await client.publish("a.b")


async def test_disconnect_while_connecting_ends_both(router: EventRouter):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = EventRouterClient(f"ws://127.0.0.1:{silent.getsockname()[1]}", timeout=0.5)
        connecting = asyncio.create_task(client.connect())
        await asyncio.sleep(0.05)
        await client.disconnect()
        with pytest.raises((BrokerUnavailable, Closed)):
            await connecting
        assert client.closed


async def test_messages_of_one_turn_arrive_each_as_it_was_whatever_their_lengths():
    sizes = [0, 1, 100, 1_000, 60_000, 65_200, 65_300, 65_400, 65_536, 70_000, 200_000]

    async def script(peer: Peer) -> None:
        await peer.greet()
        for size in sizes:
            frame = await peer.expect("publish")
            assert frame["event"]["payload"] == {"n": "ä" * (size // 2)}
            await peer.confirm(frame)
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, timeout=5.0) as client:
        await asyncio.gather(*(client.publish("a.b", {"n": "ä" * (size // 2)}) for size in sizes))
        assert client.counters.published == len(sizes)


async def test_a_message_in_fragments_is_one_message():
    got = Got()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        import json

        text = json.dumps({"type": "event", "subscription_id": "sub-1", "event": envelope(7), "position": "e-1"})
        await peer.socket.send([text[:10], text[10:50], text[50:]])
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url) as client:
        await client.subscribe("*", callback=got)
        await got.count(1)
    assert got.ns == [7]


# --- losing it ----------------------------------------------------------------------------------------------------


async def test_a_lost_connection_is_made_again_after_a_part_of_the_interval_that_grows():
    async def script(peer: Peer) -> None:
        if peer.number in {1, 4}:
            await peer.greet()
        if peer.number == 4:
            await peer.silent()

    clock = ManualClock()
    async with scripted(script) as url:
        client = EventRouterClient(url, reconnect_interval=10.0, reconnect_decay=2.0, timeout=5.0, clock=clock)
        await client.connect()
        await until(lambda: not client.connected)
        await clock.advance(9.9)
        started = clock.monotonic()
        for _ in range(200):
            if client.connected:
                break
            await asyncio.sleep(0.01)
            await clock.advance(1.0)
        assert client.connected
        assert clock.monotonic() - started <= 10.0 + 20.0 + 40.0 + 10.0
        assert client.counters.reconnects == 1
        await client.disconnect()


async def test_a_router_that_ends_with_1008_is_not_asked_again(caplog: pytest.LogCaptureFixture):
    numbers: list[int] = []

    async def script(peer: Peer) -> None:
        numbers.append(peer.number)
        await peer.greet()
        await peer.expect("publish")
        await peer.socket.close(1008, "go away")

    async with scripted(script) as url:
        client = EventRouterClient(url, reconnect_interval=0.01)
        await client.connect()
        with pytest.raises(NotPermitted, match="go away"):
            await client.publish("a.b")
        assert client.closed
        with pytest.raises(NotPermitted):
            await client.publish("a.b")
        with pytest.raises(NotPermitted):
            await client.get_health()
        await client.disconnect()
    assert numbers == [1]
    assert any(record.levelno == logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("code", [1001, 1011, 1013, 4000, 4001])
async def test_other_close_codes_are_followed_by_another_connection(code: int):
    async def script(peer: Peer) -> None:
        await peer.greet()
        if peer.number == 1:
            await peer.socket.close(code, "later")
        await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.02) as client:
        await until(lambda: client.counters.reconnects == 1)
        await client.connect()
        assert client.connected


@pytest.mark.parametrize("position", ["nowhere", ""])
async def test_a_router_that_sends_what_makes_no_sense_is_left_and_dialled_again(
    position: str, caplog: pytest.LogCaptureFixture
):
    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        if peer.number == 1:
            await peer.deliver(envelope(1), position=position)
        else:
            await peer.deliver(envelope(2), position="e-2")
        await peer.silent()

    got = Got()
    async with scripted(script) as url:
        client = EventRouterClient(url, reconnect_interval=0.01, timeout=1.0)
        client.on("task.*")(got)
        async with client:
            await got.count(1)
    assert got.ns == [2]
    assert "internal error" in caplog.text


async def test_a_fault_of_ours_in_connecting_again_is_said_and_ends_everything(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def broken(_backoff: Backoff, _chance: float) -> float:
        raise ZeroDivisionError

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))

    monkeypatch.setattr(Backoff, "pause", broken)
    async with scripted(script) as url, EventRouterClient(url) as client:
        with pytest.raises(BrokerUnavailable):
            async with asyncio.timeout(2.0):
                await anext(client.stream("a.*"))
        assert client.closed
    assert "internal error" in caplog.text


async def test_without_auto_reconnect_everything_ends_with_the_connection():
    async def script(peer: Peer) -> None:
        await peer.greet()
        for _ in range(3):
            await peer.read()

    async with scripted(script) as url:
        client = EventRouterClient(url, auto_reconnect=False)
        await client.connect()
        found = await asyncio.gather(
            client.publish("a.b"), client.get_health(), client.request("a.b"), return_exceptions=True
        )
        assert [type(each) for each in found] == [BrokerUnavailable] * 3
        assert client.closed
        with pytest.raises(BrokerUnavailable):
            await client.publish("a.b")
        await client.disconnect()
        with pytest.raises(Closed):
            await client.publish("a.b")


async def test_a_router_that_does_not_welcome_the_next_connection_is_given_up_and_dialled_again():
    async def script(peer: Peer) -> None:
        if peer.number != 2:
            await peer.greet()
        if peer.number != 1:
            await peer.silent()

    async with scripted(script) as url, EventRouterClient(url, reconnect_interval=0.02, timeout=0.3) as client:
        await until(lambda: client.counters.reconnects == 1, 3.0)


async def test_a_line_that_swallows_the_next_handshake_is_given_up_and_dialled_again(router: EventRouter):
    async with (
        line(router.port) as wire,
        EventRouterClient(wire.url, reconnect_interval=0.02, timeout=0.3) as client,
    ):
        wire.swallowing = True
        wire.break_now()
        await asyncio.sleep(0.2)  # by now it has dialled
        assert not client.connected
        wire.swallowing = False
        await until(lambda: client.counters.reconnects == 1, 3.0)


async def test_a_router_that_does_not_answer_pings_is_left_and_the_next_is_used():
    async def script(peer: Peer) -> None:
        await peer.greet()
        if peer.number == 1:
            await peer.silent()
        while True:
            await peer.expect("ping")

    clock = ManualClock()
    async with scripted(script) as url:
        client = EventRouterClient(url, heartbeat_interval=30.0, timeout=10.0, reconnect_interval=0.01, clock=clock)
        await client.connect()
        await clock.advance(30.0)
        await asyncio.sleep(0.05)
        assert client.connected
        await clock.advance(9.0)
        await asyncio.sleep(0.05)
        assert client.connected
        await clock.advance(1.0)
        await until(lambda: not client.connected)
        await clock.advance(1.0)
        await until(lambda: client.connected)
        await client.disconnect()


async def test_a_router_whose_answer_waits_behind_something_else_is_kept_while_that_comes():
    clock, got = ManualClock(), Got()

    async def script(peer: Peer) -> None:
        await peer.greet()
        await peer.serve(await peer.expect("subscribe"))
        ping = await peer.read()
        assert ping["type"] == "ping"
        await peer.deliver(envelope(1), position="e-1")
        await got.count(1)
        await clock.advance(15.0)
        await peer.deliver(envelope(2), position="e-2")
        await peer.send({"type": "pong", "ref": ping["ref"], "echo": None, "timestamp": 0.0})
        await peer.silent()

    async with scripted(script) as url:
        client = EventRouterClient(url, heartbeat_interval=30.0, timeout=10.0, clock=clock)
        await client.connect()
        await client.subscribe("task.*", callback=got)
        await clock.advance(30.0)
        await got.count(2)
        assert client.connected
        assert client.counters.reconnects == 0
        await client.disconnect()


async def test_a_router_that_answers_pings_is_kept(router: EventRouter):
    clock = ManualClock()
    client = EventRouterClient(router.url, heartbeat_interval=30.0, clock=clock)
    await client.connect()
    for _ in range(5):
        await clock.advance(30.0)
        await client.get_health()
    assert client.counters.reconnects == 0
    await client.disconnect()


async def test_disconnect_says_goodbye_and_leaves_nothing(router: EventRouter):
    async with EventRouterClient(router.url) as client:
        await client.subscribe("a.*", callback=Got())
        assert ours()
    assert not ours()
    assert (await router.health())["clients"] == 0


async def test_disconnect_from_a_router_that_answers_nothing_takes_no_longer_than_it_may():
    ended = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.greet()
        peer.socket.transport.pause_reading()
        await ended.wait()

    async with scripted(script) as url:
        client = EventRouterClient(url, timeout=0.3)
        await client.connect()
        publishing = asyncio.create_task(client.publish("a.b"))
        await asyncio.sleep(0.01)
        async with asyncio.timeout(4.0):
            await client.disconnect()
        await publishing
        ended.set()
