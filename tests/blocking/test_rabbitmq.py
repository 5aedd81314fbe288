"""The blocking bus where its ancestor lived: how a RabbitMQ is found and entered, and what its other clients see."""

# ruff: noqa: SLF001 - what a connection agreed on with its server, no call tells

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aio_pika
import pytest

from tests.blocking.conftest import QUICK, Open, Seen, task
from tests.processes import until
from tests.rabbitmq import PLACE, shared_rabbit
from tests.servers import rabbitmq_running
from wowevent import BrokerUnavailable, Event, NotPermitted
from wowevent.blocking import EventBus
from wowevent.broker import DeadQuery

PASSWORD = "p/s@:x#?% ü"
VHOST = "/team ä/b+c?d"


@pytest.fixture(autouse=True)
def _on_rabbitmq(broker_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if broker_name != "rabbitmq":
        pytest.skip("it is about RabbitMQ alone")
    for name in list(os.environ):
        if name.startswith(("RABBITMQ_", "WOWEVENT_")) and not name.startswith(PLACE):
            monkeypatch.delenv(name)


def count(bus: EventBus, queue: str) -> int:
    info = bus.get_queue_info(queue)
    return -1 if info is None else int(info["message_count"])


def works(bus: EventBus) -> bool:
    """Whether an event gets through it."""
    seen = Seen()
    bus.subscribe("works", ["task.*.*"], seen)
    bus.start_consuming("works", blocking=False)
    assert bus.publish(task(7))
    until(lambda: seen.events, "the event")
    bus.delete_queue("works")
    return seen.numbers == [7]


# --- where it is, and who we are --------------------------------------------------------------------------------------


@pytest.fixture
def place() -> dict[str, Any]:
    """Host and port of the run's server."""
    parts = urlsplit(shared_rabbit.url())
    return {"host": parts.hostname, "port": parts.port}


@pytest.fixture
def own(place: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A virtual host and a user with names that have to be quoted."""
    user = f"me-{os.getpid()}"
    with shared_rabbit.admitting(f"{VHOST}-{os.getpid()}", user, PASSWORD):
        yield {**place, "username": user, "password": PASSWORD, "vhost": f"{VHOST}-{os.getpid()}"}


def environ(monkeypatch: pytest.MonkeyPatch, place: dict[str, Any]) -> None:
    for name, value in place.items():
        monkeypatch.setenv(f"RABBITMQ_{name.upper().removesuffix('NAME')}", str(value))


def test_what_is_given_says_where_it_is(own: dict[str, Any]) -> None:
    with EventBus(**own) as bus:
        assert works(bus)
        health = bus.health_check()
    assert (health["status"], health["connected"], health["details"]["port"]) == ("healthy", True, own["port"])


def test_the_environment_says_where_it_is(own: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch, own)
    with EventBus() as bus:
        assert works(bus)


def test_what_is_given_goes_before_the_environment(own: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    environ(monkeypatch, {**own, "password": "wrong", "port": 1})
    with EventBus(port=own["port"], password=own["password"]) as bus:
        assert works(bus)


def test_a_server_as_it_is_installed_needs_no_word_but_its_port(place: dict[str, Any]) -> None:
    with EventBus(port=place["port"], namespace=f"run-{os.getpid()}") as bus:  # guest, guest, /
        assert works(bus)


@pytest.mark.parametrize("wrong", ["password", "username"])
def test_who_is_not_let_in_hears_it_at_once(own: dict[str, Any], wrong: str) -> None:
    with EventBus(**{**own, wrong: "wrong"}) as bus:
        asked: list[Callable[[], Any]] = [
            lambda: bus.publish(task()),
            lambda: bus.subscribe("q", ["#"], Seen()),
            lambda: bus.get_queue_info("q"),
        ]
        for ask in asked:
            started = time.monotonic()
            with pytest.raises(NotPermitted, match="ACCESS_REFUSED"):
                ask()
            assert time.monotonic() - started < 5  # not the ten seconds that one waits for a server
        health = bus.health_check()
        assert (health["status"], health["connected"]) == ("unhealthy", False)
        assert "ACCESS_REFUSED" in health["details"]["error"]
        assert PASSWORD not in str(health)


def test_a_virtual_host_that_is_not_there_is_waited_for(own: dict[str, Any]) -> None:
    """Why the server closes the connection then, the driver does not tell: it may be starting."""
    with EventBus(**{**own, "vhost": "wrong"}, connection_timeout=0.5) as bus:
        assert bus.publish(task()) is False
        with pytest.raises(BrokerUnavailable, match="virtual host"):
            bus.get_queue_info("q")
        assert "virtual host" in bus.health_check()["details"]["error"]


@pytest.mark.parametrize("seconds", [0, 9, 600])
def test_the_server_is_told_the_heartbeat(place: dict[str, Any], seconds: int) -> None:
    with EventBus(**place, heartbeat=seconds, namespace=f"run-{os.getpid()}") as bus:
        assert bus.health_check()["connected"]
        broker: Any = bus._running.line.bus.broker  # type: ignore[union-attr]  # it runs
        assert broker._entrance.session.link._out.connection_tune.heartbeat == seconds


# --- other clients ----------------------------------------------------------------------------------------------------


def plain(url: str, work: Callable[[aio_pika.abc.AbstractChannel], Coroutine[Any, Any, Any]]) -> Any:
    """What a stranger gets by a plain AMQP client."""

    async def connected() -> Any:
        async with await aio_pika.connect(url) as connection:
            return await work(await connection.channel())

    return asyncio.run(connected())


def sends(url: str, body: bytes, key: str, **properties: Any) -> None:
    """A stranger publishes."""

    async def send(channel: aio_pika.abc.AbstractChannel) -> None:
        exchange = await channel.get_exchange("agent_events")
        await exchange.publish(aio_pika.Message(body, **properties), key)

    plain(url, send)


def test_a_strangers_queue_gets_what_it_is_bound_to(bus: EventBus, url: str) -> None:
    bus.health_check()

    async def bind(channel: aio_pika.abc.AbstractChannel) -> None:
        assert (await channel.get_exchange("agent_events", ensure=True)).name == "agent_events"
        queue = await channel.declare_queue("stranger", durable=True)
        await queue.bind("agent_events", "task.#")

    async def get(channel: aio_pika.abc.AbstractChannel) -> list[Any]:
        queue = await channel.get_queue("stranger")
        return [await queue.get(no_ack=True) for _ in range(2)] + [await queue.get(no_ack=True, fail=False)]

    plain(url, bind)
    sent = task(1, priority="high")
    assert bus.publish(sent)
    assert bus.publish(Event(topic="agent.started"))
    assert bus.publish(Event(topic="order.placed", payload={"n": 2}), "task.urgent.low")
    first, second, none = plain(url, get)
    assert (first.routing_key, second.routing_key) == ("task.created.high", "task.urgent.low")
    assert none is None
    fields = json.loads(first.body)
    assert (first.message_id, first.content_type) == (sent.event_id, "application/json")
    assert (fields["event_type"], fields["payload"], fields["priority"]) == ("task.created", {"n": 1}, 7)
    assert first.delivery_mode == aio_pika.DeliveryMode.PERSISTENT


def test_a_strangers_queue_gets_the_dead_letters_that_it_is_bound_to(bus: EventBus, url: str) -> None:
    bus.subscribe("q", ["#"], Seen(fails=9))
    bus.start_consuming("q", blocking=False)

    async def bind(channel: aio_pika.abc.AbstractChannel) -> None:
        queue = await channel.declare_queue("alarms", durable=True)
        await queue.bind("agent_events_dlx", "dlq.q")

    async def get(channel: aio_pika.abc.AbstractChannel) -> Any:
        return await (await channel.get_queue("alarms")).get(no_ack=True, fail=False)

    plain(url, bind)
    sent = task(1, max_retries=0)
    assert bus.publish(sent)
    letter = until(lambda: plain(url, get), "the letter")
    assert json.loads(letter.body)["event_id"] == sent.event_id
    assert count(bus, "dlq.q") == 1


STRANGERS = {
    "ours": (b'{"event_type": "task.created", "payload": {"n": 1}}', "task.created.normal", ("task.created", 5)),
    "the band": (b'{"event_type": "task.created", "payload": {"n": 1}}', "task.created.high", ("task.created", 7)),
    "the key": (b'{"topic": "x", "payload": {"n": 1}, "priority": 8}', "task.new.high", ("task.new", 8)),
    "cloud event": (
        b'{"specversion": "1.0", "id": "7", "source": "shop", "type": "task.created", "data": {"n": 1}}',
        "task.created.low",
        ("task.created", 3),
    ),
}


@pytest.mark.parametrize("kind", STRANGERS)
def test_a_strangers_json_is_an_event_under_its_key(opened: Open, url: str, kind: str) -> None:
    body, key, expected = STRANGERS[kind]
    bus, other, seen, again = opened(), opened(), Seen(fails=1), Seen()
    bus.subscribe("q", ["task.#"], seen)
    other.subscribe("copy", ["#"], again)
    bus.start_consuming("q", blocking=False)
    other.start_consuming("copy", blocking=False)
    sends(url, body, key, message_id="stranger-1")
    until(lambda: len(seen.events) == 2 and again.events, "the event, and its retry")
    assert {(event.topic, event.priority) for event in seen.events + again.events} == {expected}
    assert {event.payload["n"] for event in seen.events + again.events} == {1}
    assert {event.event_id for event in seen.events + again.events} == {"7" if kind == "cloud event" else "stranger-1"}
    assert seen.retries == [0, 1]
    assert count(bus, "dlq.q") == 0


def test_a_key_without_a_band_reaches_no_queue(bus: EventBus, url: str) -> None:
    bus.subscribe("q", ["#"], Seen())
    sends(url, STRANGERS["ours"][0], "task.created")
    sends(url, STRANGERS["ours"][0], "task.created.normal")
    until(lambda: count(bus, "q") == 1, "the second one")


def test_what_a_stranger_sends_without_an_id_is_given_one_and_is_retried_and_buried(bus: EventBus, url: str) -> None:
    seen, letters = Seen(fails=9), Seen()
    bus.subscribe("q", ["#"], seen)
    for _ in range(2):  # the same bytes twice are two events
        sends(url, b'{"event_type": "task.created", "payload": {"n": 1}, "max_retries": 1}', "task.created.normal")
    bus.start_consuming("q", blocking=False)
    until(lambda: count(bus, "dlq.q") == 2, "both letters")
    assert len(seen.events) == 4
    assert len({event.event_id for event in seen.events}) == 2
    bus.subscribe("dlq.q", ["#"], letters)
    bus.start_consuming("dlq.q", blocking=False)
    until(lambda: len(letters.events) == 2, "the letters")
    assert {event.event_id for event in letters.events} == {event.event_id for event in seen.events}


@pytest.mark.parametrize("body", [b"\x00\xff", b"[]", b'{"payload": {}}', b'{"event_type": "a b"}', b""])
@pytest.mark.parametrize("id", [None, "stranger-1", "not a name"])
def test_what_is_no_event_is_a_dead_letter_and_holds_nothing_up(
    bus: EventBus, url: str, body: bytes, id: str | None
) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    sends(url, body, "task.created.normal", message_id=id)
    bus.publish(task(2))
    bus.start_consuming("q", blocking=False)
    until(lambda: seen.events and count(bus, "dlq.q") == 1, "the event behind it, and its letter")
    assert seen.numbers == [2]
    line = bus._running.line  # type: ignore[union-attr]  # it runs

    async def reasons() -> list[str]:
        return [letter.reason.value for letter in await line.bus.broker.dead(DeadQuery(subscription="q"))]

    async def history() -> list[Any]:
        return [stored.event.payload["n"] async for stored in line.bus.history()]

    assert bus._running.call(reasons) == ["deserialization_error"]  # type: ignore[union-attr]
    assert bus._running.call(history) == [2]  # type: ignore[union-attr]


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_loses_no_event_and_no_consumer(tmp_path: Path) -> None:
    """What was confirmed is there, and who consumed goes on."""
    with rabbitmq_running(tmp_path) as server, EventBus(port=server.port, retry=QUICK) as bus:
        seen = Seen()
        bus.subscribe("away", ["task.*.*"], Seen())
        bus.subscribe("q", ["task.*.*"], seen)
        bus.start_consuming("q", blocking=False)
        for n in range(10):
            assert bus.publish(task(n))
        until(lambda: len(seen.events) == 10, "the first ten")
        server.kill(signal.SIGTERM)
        assert bus.health_check()["connected"] is False
        assert bus.publish(task(99), persistent=False)  # on its way
        server.start()
        until(lambda: bus.health_check()["connected"], "the engine")
        assert bus.publish(task(10))
        until(lambda: {10, 99} <= set(seen.numbers), "the next ones")
        assert sorted(seen.numbers) == [*range(11), 99]
        assert count(bus, "away") == 12
