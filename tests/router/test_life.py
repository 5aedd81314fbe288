"""Starting and ending: what is under way is finished, everybody is told, nothing is left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import pytest

from tests.conformance.making import same
from tests.router.conftest import (
    Join,
    Serve,
    connections_of,
    desk_of,
    event,
    events,
    eventually,
    numbers,
    part,
    place,
    talking,
)
from wowevent import EventBus
from wowevent.broker import Settlement
from wowevent.errors import Closed
from wowevent.router import EventRouter, desk
from wowevent.router.session import Effect, Session
from wowevent.router.wire import Bad, ClientFrame, Ping


async def test_start_serves_until_stop_and_then_returns(url: str, quiet: None):
    router = EventRouter(host="127.0.0.1", port=0, url=url)
    with pytest.raises(Closed):
        _ = router.url
    running = asyncio.create_task(router.start())
    await eventually(lambda: part(router, "_listening") is not None or running.done())
    async with talking(router) as client:
        await client.publish()
        await router.stop()
        async with asyncio.timeout(5):
            await running
        assert (await client.closed())[0] == 1001
    await router.stop()
    with pytest.raises(Closed):
        await router.open()


async def test_start_that_is_cancelled_stops_the_router(url: str, quiet: None):
    router = EventRouter(host="127.0.0.1", port=0, url=url)
    running = asyncio.create_task(router.start())
    await eventually(lambda: part(router, "_listening") is not None)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", router.port)


async def test_ten_stops_at_once_and_a_stop_before_the_start_are_harmless(serve: Serve, quiet: None):
    router = await serve()
    await asyncio.gather(*(router.stop() for _ in range(10)))
    never = EventRouter(port=0)
    await never.stop()
    with pytest.raises(Closed):
        await never.open()


async def test_a_port_that_is_taken_is_said_before_anything_is_started(url: str, quiet: None):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        router = EventRouter(host="127.0.0.1", port=taken.getsockname()[1], url=url)
        with pytest.raises(OSError, match="in use"):
            await router.start()
        await router.stop()


async def test_a_router_whose_opening_is_given_up_leaves_nothing(url: str, quiet: None):
    """Wherever in it that is."""
    for steps in range(20):
        router = EventRouter(host="127.0.0.1", port=0, url=url)
        opening = asyncio.create_task(router.open())
        for _ in range(steps):
            await asyncio.sleep(0)
        if opening.cancel():
            with pytest.raises(asyncio.CancelledError):
                await opening
        else:
            await router.stop()
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_fault_of_ours_ends_its_connection_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """Also where the frame had to wait for its turn."""
    step = Session.step

    def broken(session: Session, frame: ClientFrame | Bad, now: float) -> Effect:
        return step(session, frame, now if isinstance(frame, Ping) else 1 / 0)

    monkeypatch.setattr(Session, "step", broken)
    monkeypatch.setattr(desk, "_TURN", 1)
    async with EventRouter(port=0) as router, talking(router) as client:
        for frame in ("ping", "ping", "get_health", "ping"):
            await client.say(frame)
        assert (await client.closed())[0] == 1011
    assert "a frame could not be carried out" in caplog.text


async def test_what_is_on_its_way_is_confirmed_and_then_everybody_is_told(serve: Serve, join: Join, url: str):
    router = await serve()
    client = await join(router)
    for each in events(500):
        await client.say("publish", event=each)
    await client.hear("published")  # they are being stored
    stopping = asyncio.create_task(router.stop())
    confirmed = 1
    code, _ = await client.closed()
    await stopping
    answers = [frame for frame in client.kept if frame["type"] == "published"]
    confirmed += sum(answer["status"] == "queued" for answer in answers)
    assert code == 1001
    assert all(answer["retryable"] for answer in answers if answer["status"] == "dropped")
    if url.startswith("sqlite"):
        async with EventBus(url) as bus:
            assert len([stored async for stored in bus.history()]) >= confirmed


async def test_clients_may_settle_what_they_hold_while_the_router_ends_and_get_nothing_more(
    serve: Serve, join: Join, url: str
):
    async with EventBus(url) as bus:
        router = await serve(bus=bus)
        client = await join(router)
        await client.subscribe(name="worker", credit=2)
        await client.publish_all(events(5))
        got = await client.events(2)
        stopping = asyncio.create_task(router.stop())
        await eventually(lambda: part(router, "_draining"))
        dropped = await client.ask("publish", event=event())
        assert (dropped["status"], dropped["reason"], dropped["retryable"]) == ("dropped", "closed", True)
        assert not stopping.done()
        answer = await client.ask("ack", subscription_id="sub-1", tokens=[each["token"] for each in got])
        assert answer["settled"] == 2
        async with asyncio.timeout(3):
            await stopping
        assert (await client.closed())[0] == 1001
        assert not [frame for frame in client.kept if frame["type"] == "event"]
        info = await bus.info("worker")
        assert info is not None
        assert info.ready == 3
        assert same(bus, info.leased, 0)


async def test_the_last_settlement_is_answered_before_the_goodbye(
    serve: Serve, join: Join, url: str, monkeypatch: pytest.MonkeyPatch
):
    async with EventBus(url) as bus:
        settle = bus.broker.settle

        async def slow(id: str, settlements: Sequence[Settlement]) -> int:
            await asyncio.sleep(0.2)
            return await settle(id, settlements)

        monkeypatch.setattr(bus.broker, "settle", slow)
        router = await serve(bus=bus)
        client = await join(router)
        await client.subscribe(name="worker")
        await client.publish_all(events(1))
        (got,) = await client.events(1)
        stopping = asyncio.create_task(router.stop())
        await eventually(lambda: part(router, "_draining"))
        assert (await client.ask("ack", subscription_id="sub-1", tokens=[got["token"]]))["settled"] == 1
        await stopping


async def test_what_clients_do_not_settle_in_time_is_given_back_uncharged(serve: Serve, join: Join, url: str):
    async with EventBus(url) as bus:
        router = await serve(bus=bus)
        client = await join(router)
        await client.subscribe(name="worker", max_retries=0)
        await client.publish_all(events(2))
        await client.events(2)
        await router.stop(timeout=0.2)
        after = await serve(bus=bus)
        again = await join(after)
        await again.subscribe(name="worker", max_retries=0)
        got = await again.events(2)
        assert sorted(numbers(got)) == [0, 1]
        assert all("attempt" not in each for each in got)


async def test_who_knocks_while_the_router_ends_is_told_to_come_later(serve: Serve, join: Join):
    router = await serve()
    client = await join(router)
    await client.subscribe(name="worker")
    await client.publish()
    got = await client.event()
    reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
    await asyncio.sleep(0.05)  # the connection must be accepted before the port is closed
    stopping = asyncio.create_task(router.stop())
    await eventually(lambda: part(router, "_draining"))
    writer.write(
        f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{router.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == b"503"
    writer.close()
    await client.ask("ack", subscription_id="sub-1", tokens=[got["token"]])
    await stopping


async def test_a_client_that_does_not_read_does_not_hold_up_the_end(serve: Serve, join: Join):
    router = await serve()
    client, writer = await join(router), await join(router)
    await client.subscribe()
    client.socket.transport.pause_reading()
    for n in range(80):
        await writer.publish(n=n, payload={"n": n, "text": "x" * 100_000})
    async with asyncio.timeout(8):
        await router.stop()
    client.cut()


async def test_a_hundred_clients_that_come_and_go_leave_nothing(serve: Serve):
    def tasks() -> int:
        """But for those of the engine, which it has for itself."""
        return sum(1 for task in asyncio.all_tasks() if not task.get_name().startswith("redis:"))

    router = await serve()
    before = tasks()

    async def visit(n: int) -> None:
        async with talking(router) as client:
            await client.subscribe("task.*")
            await client.subscribe(name=f"w-{n % 5}")
            await client.publish(n=n)
            await client.event()
            if n % 2:
                client.cut()

    for start in range(0, 100, 20):
        await asyncio.gather(*(visit(n) for n in range(start, start + 20)))
    await eventually(lambda: not connections_of(router))
    health = await router.health()
    assert (health["clients"], health["events_processed"]) == (0, 100)
    assert len(desk_of(router).fanout) == 0
    for courier in list(desk_of(router).couriers.values()):  # what was cut is waited for
        for instance, (_, timer) in list(part(courier, "_parked").items()):
            timer.cancel()
            part(courier, "_presume_crashed")(instance)
    await eventually(lambda: not desk_of(router).couriers)
    await eventually(lambda: tasks() <= before)


async def test_a_router_that_ends_while_clients_leave_waits_for_what_they_give_back(serve: Serve, url: str):
    async with EventBus(url) as bus:
        router = await serve(bus=bus)
        async with talking(router) as client:
            for n in range(20):
                await client.subscribe(name=f"w-{n}", credit=1)
            await client.publish()
            await client.events(20)
        await router.stop()
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("wowevent:router:w-")]
        infos = await bus.subscriptions()
        assert [info.ready for info in infos if info.subscription.durable] == [1] * 20
        assert all(same(bus, info.leased, 0) for info in infos)


async def test_restart_the_log_goes_on(serve: Serve, join: Join, url: str, broker_name: str):
    if broker_name == "memory":
        pytest.skip("its log ends with it")
    first = await serve()
    async with talking(first) as client:
        position = await place(first, await client.publish(n=1))
        await client.publish(n=2)
    await first.stop()
    second = await serve()
    again = await join(second)
    assert (await again.subscribe(after=position))["recovered"] is True
    assert numbers(await again.events(1)) == [2]
