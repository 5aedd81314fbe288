"""Idempotency-Key: a request that is sent again publishes nothing twice, and a key is one request's; traceparent."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import url_of
from tests.processes import address, running
from wowevent import Event, EventBus, Receipt
from wowevent.errors import BrokerUnavailable, InvalidEvent
from wowevent.service import create_app, idempotency
from wowevent.service.failures import Refusal
from wowevent.service.idempotency import Keys, fingerprint, id_of, key_of

KEY = "8e03978e-40d5-43dd-bc93-6894a57f9324"
ORDER = {"topic": "order.placed", "payload": {"n": 1}}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def post(
    client: httpx.AsyncClient, body: Any, key: str | None = KEY, query: str = "", **headers: str
) -> httpx.Response:
    named = headers if key is None else {"idempotency-key": key, **headers}
    return await client.post(f"/events{query}", json=body, headers=named)


async def stored(bus: EventBus) -> list[Event]:
    return [each.event async for each in bus.history()]


def without_duplicate(answer: httpx.Response) -> list[dict[str, Any]]:
    return [{name: each[name] for name in each if name != "duplicate"} for each in answer.json()["receipts"]]


# --- what is sent again ---------------------------------------------------------------------------------------------


async def test_a_repetition_is_answered_as_the_first_and_publishes_nothing(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    batch = [ORDER, {**ORDER, "event_id": "own"}, {**ORDER, "id": None}]
    first, second = await post(engine_client, batch), await post(engine_client, batch)

    assert (first.status_code, second.status_code) == (202, 202)
    assert [each["duplicate"] for each in first.json()["receipts"]] == [False] * 3
    assert [each["duplicate"] for each in second.json()["receipts"]] == [True] * 3
    assert without_duplicate(second) == without_duplicate(first)
    ids = [id_of(engine_bus.namespace, KEY, number) for number in range(3)]
    assert [event.event_id for event in await stored(engine_bus)] == [ids[0], "own", ids[2]]
    assert len({event.correlation_id for event in await stored(engine_bus)}) == 3


async def test_a_repetition_at_another_process_is_known_by_the_engine(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    first = await post(engine_client, [ORDER, ORDER])
    transport = httpx.ASGITransport(create_app(engine_bus))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as other:
        second = await post(other, [ORDER, ORDER])

    assert [each["duplicate"] for each in second.json()["receipts"]] == [True, True]
    assert [each["event_id"] for each in second.json()["receipts"]] == [
        each["event_id"] for each in first.json()["receipts"]
    ]
    assert len(await stored(engine_bus)) == 2


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_a_repetition_after_a_restart_is_known_by_the_engine(tmp_path: Path, engine: str) -> None:
    url = url_of(engine, tmp_path)
    for duplicate in (False, True):
        with running(tmp_path, "wowevent.service", PORT="0", WOWEVENT_URL=url):
            async with httpx.AsyncClient(base_url=await asyncio.to_thread(address, tmp_path)) as client:
                answer = await post(client, [ORDER])
        assert [each["duplicate"] for each in answer.json()["receipts"]] == [duplicate]
        for name in ("out.txt", "err.txt"):
            (tmp_path / name).unlink()
    async with EventBus(url) as bus:
        assert len(await stored(bus)) == 1


async def test_one_that_is_sent_later_is_held_once(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    for duplicate in (False, True):
        answer = await post(engine_client, ORDER, query="?delay=3600")
        assert [each["duplicate"] for each in answer.json()["receipts"]] == [duplicate]
    id = id_of(engine_bus.namespace, KEY, 0)
    assert await engine_bus.cancel(id)
    assert not await engine_bus.cancel(id)


async def test_another_key_or_none_is_another_request(client: httpx.AsyncClient, bus: EventBus) -> None:
    for key in ("a", "b", None, None):
        assert not (await post(client, ORDER, key)).json()["receipts"][0]["duplicate"]
    assert len({event.event_id for event in await stored(bus)}) == 4


async def test_a_key_is_the_same_quoted_or_bare_and_its_ids_another_namespaces(client: httpx.AsyncClient) -> None:
    assert not (await post(client, ORDER, f'"{KEY}"')).json()["receipts"][0]["duplicate"]
    assert (await post(client, ORDER, KEY)).json()["receipts"][0]["duplicate"]
    assert id_of("a", KEY, 0) != id_of("b", KEY, 0)
    assert id_of("a", "1\n2", 0) != id_of("a", "2", 1)


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "query"), [({**ORDER, "payload": {"n": 2}}, ""), ([ORDER], ""), (ORDER, "?delay=60"), ([ORDER, ORDER], "")]
)
async def test_a_key_of_another_request_is_refused(
    client: httpx.AsyncClient, bus: EventBus, body: Any, query: str
) -> None:
    await post(client, ORDER)
    answer = await post(client, body, query=query)

    assert (answer.status_code, answer.json()["error"]) == (422, "idempotency_key_reused")
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(await stored(bus)) == 1
    assert (await post(client, ORDER)).json()["receipts"][0]["duplicate"]


async def test_the_same_bytes_in_another_media_type_are_another_request(client: httpx.AsyncClient) -> None:
    cloud = {"specversion": "1.0", "id": "c-1", "source": "/s", "type": "order.placed", "data": {}}
    assert (await post(client, cloud)).status_code == 202
    media = {"content-type": "application/cloudevents+json"}
    assert (await post(client, cloud, **media)).json()["error"] == "idempotency_key_reused"
    assert fingerprint(b"a", b"bc") != fingerprint(b"ab", b"c")


async def test_the_same_at_the_same_time_is_refused_until_it_is_answered(
    client: httpx.AsyncClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    going, on = asyncio.Event(), asyncio.Event()
    publish = bus.publish_many

    async def slowly(events: Sequence[Event]) -> Sequence[Receipt]:
        going.set()
        await on.wait()
        return await publish(events)

    monkeypatch.setattr(bus, "publish_many", slowly)
    first = asyncio.create_task(post(client, ORDER))
    await going.wait()
    second = await post(client, ORDER)
    other = await post(client, {"topic": "other"})
    on.set()

    assert (second.status_code, second.json()["error"]) == (409, "idempotency_key_in_use")
    assert second.headers["retry-after"] == "1"
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")
    assert (await first).status_code == 202
    assert (await post(client, ORDER)).json()["receipts"][0]["duplicate"]
    assert len(await stored(bus)) == 1


async def test_what_failed_may_come_again(
    client: httpx.AsyncClient, bus: EventBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not known how far it came: the engine is asked, and the key stays that request's."""
    publish = bus.publish_many

    async def fail_behind_the_first(events: Sequence[Event]) -> Sequence[Receipt]:
        await publish(events[:1])
        raise BrokerUnavailable("no answer")

    monkeypatch.setattr(bus, "publish_many", fail_behind_the_first)
    assert (await post(client, [ORDER, ORDER])).status_code == 503
    assert (await post(client, [ORDER])).json()["error"] == "idempotency_key_reused"
    monkeypatch.setattr(bus, "publish_many", publish)
    again = await post(client, [ORDER, ORDER])

    assert [each["duplicate"] for each in again.json()["receipts"]] == [True, False]
    assert len(await stored(bus)) == 2


@pytest.mark.parametrize(
    "wrong", [{"topic": "a b"}, {"topic": "_bus.x"}, {"topic": "a", "payload": {"x": "y" * 300_000}}]
)
async def test_what_was_wrong_may_be_put_right_under_the_same_key(client: httpx.AsyncClient, wrong: Any) -> None:
    assert (await post(client, wrong)).status_code in {400, 413}
    assert (await post(client, ORDER)).status_code == 202


@pytest.mark.parametrize(
    "key",
    ["", '""', '"', '"a', "a b", "a,b", "a;b", '"a";b=1', "ä", "a\tb", '"a\\b"', "x" * 256, f'"{"x" * 256}"', "a\x7fb"],
)
async def test_what_is_no_key_is_refused(client: httpx.AsyncClient, bus: EventBus, key: str) -> None:
    answer = await client.post("/events", json=ORDER, headers=[(b"idempotency-key", key.encode())])

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_event")
    assert answer.json()["message"].startswith("Idempotency-Key: ")
    assert await stored(bus) == []


async def test_two_keys_are_none(client: httpx.AsyncClient) -> None:
    twice = [("idempotency-key", "a"), ("idempotency-key", "b")]

    assert (await client.post("/events", json=ORDER, headers=twice)).status_code == 400


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("a", "a"),
        (" a ", "a"),
        ('"a b"', "a b"),
        (r'"a\"b\\c"', r'a"b\c'),
        ("x" * 255, "x" * 255),
        ("!#$%&'()*+-./:<=>?@[]^_`{|}~", "!#$%&'()*+-./:<=>?@[]^_`{|}~"),
    ],
)
def test_what_is_a_key(given: str, key: str) -> None:
    assert key_of([given]) == key


# --- what is remembered ---------------------------------------------------------------------------------------------


class Remembering:
    """Keys by a clock of their own, and how often something was published."""

    def __init__(self, **limits: int) -> None:
        self.now = 0.0
        self.published = 0
        self.keys = Keys(clock=lambda: self.now, **limits)

    async def ask(self, key: str, request: bytes = b"1", events: int = 1) -> list[dict[str, Any]]:
        async def publish() -> Sequence[Receipt]:
            self.published += 1
            return [Receipt(f"{key}-{n}", None, False, 0) for n in range(events)]

        found: list[dict[str, Any]] = json.loads(await self.keys.once(key, request, publish))["receipts"]
        return found


async def test_a_key_is_remembered_for_a_day() -> None:
    memory = Remembering()
    await memory.ask("a")
    memory.now = idempotency.SECONDS - 1
    assert (await memory.ask("a"))[0]["duplicate"]
    with pytest.raises(Refusal):
        await memory.ask("a", b"2")
    memory.now = idempotency.SECONDS
    assert not (await memory.ask("a", b"2"))[0]["duplicate"]
    assert memory.published == 2


async def test_the_oldest_keys_are_forgotten_first() -> None:
    memory = Remembering(keys=3)
    for key in "abcd":
        await memory.ask(key)
    assert memory.published == 4
    for key in "bcd":
        await memory.ask(key)
    assert memory.published == 4
    await memory.ask("a")
    assert memory.published == 5


async def test_answers_are_forgotten_when_they_take_too_much_room() -> None:
    memory = Remembering(room=5_000)
    await memory.ask("a", events=50)
    await memory.ask("b", events=50)
    await memory.ask("b", events=50)
    assert memory.published == 2
    await memory.ask("a", events=50)
    assert memory.published == 3
    await memory.ask("large", events=1000)  # more than there is room for: its key alone is remembered
    await memory.ask("large", events=1000)
    assert memory.published == 5
    with pytest.raises(Refusal):
        await memory.ask("large", b"2")


async def test_a_key_that_is_pushed_out_while_it_is_under_way_leaves_nothing_behind() -> None:
    memory = Remembering(keys=1)

    async def publish() -> Sequence[Receipt]:
        await memory.ask("b")
        await memory.ask("c")
        raise InvalidEvent("x")

    with pytest.raises(InvalidEvent):
        await memory.keys.once("a", b"1", publish)
    await memory.ask("c")
    assert memory.published == 2


# --- where it comes from --------------------------------------------------------------------------------------------


async def test_a_page_that_is_allowed_may_send_the_headers(bus: EventBus) -> None:
    transport = httpx.ASGITransport(create_app(bus, origins=("https://admin.example",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
        before = {
            "origin": "https://admin.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,idempotency-key,traceparent,tracestate",
        }
        assert (await client.options("/events", headers=before)).status_code == 200


async def test_events_take_the_trace_of_their_request(client: httpx.AsyncClient, bus: EventBus) -> None:
    own = TRACE.replace("4bf9", "aaaa")
    cloud = {"specversion": "1.0", "id": "c-1", "source": "/s", "type": "order.placed", "data": {}}
    batch = [ORDER, {**ORDER, "traceparent": own}, cloud, {**cloud, "id": "c-2", "traceparent": own}]
    answer = await post(client, batch, None, traceparent=TRACE, tracestate="vendor=1")

    assert answer.status_code == 202
    assert [event.traceparent for event in await stored(bus)] == [TRACE, own, TRACE, own]


async def test_another_trace_is_the_same_request(client: httpx.AsyncClient, bus: EventBus) -> None:
    await post(client, ORDER, traceparent=TRACE)
    again = await post(client, ORDER, traceparent=TRACE.replace("00f0", "1111"))

    assert again.json()["receipts"][0]["duplicate"]
    assert [event.traceparent for event in await stored(bus)] == [TRACE]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (f"01{TRACE[2:]}", TRACE),
        (f"01{TRACE[2:-2]}03-of-a-later-version", TRACE),
        (f"cc{TRACE[2:-2]}02", f"{TRACE[:-2]}00"),
        (f"01{TRACE[2:]}x", None),
        (f"{TRACE}-more", None),
        (f"ff{TRACE[2:]}", None),
        (TRACE.upper(), None),
        (TRACE[:-1], None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01", None),
        ("", None),
        ("nonsense", None),
    ],
)
async def test_a_malformed_trace_is_ignored_and_a_later_version_read_as_ours(
    client: httpx.AsyncClient, bus: EventBus, given: str, taken: str | None
) -> None:
    assert (await post(client, ORDER, None, traceparent=given)).status_code == 202
    assert [event.traceparent for event in await stored(bus)] == [taken]


async def test_two_traces_are_none(client: httpx.AsyncClient, bus: EventBus) -> None:
    await client.post("/events", json=ORDER, headers=[("traceparent", TRACE), ("traceparent", TRACE)])

    assert [event.traceparent for event in await stored(bus)] == [None]
