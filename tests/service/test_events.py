"""POST and GET /events: what goes in, what comes out, and what is refused with which status."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from wowevent import Event, EventBus, errors
from wowevent.service import create_app, drain
from wowevent.service.failures import STATUS, status_of
from wowevent.testing import TestBus

CLOUD = {"specversion": "1.0", "id": "c-1", "source": "/shop", "type": "order.placed", "data": {"n": 1}}


def assert_problem(answer: httpx.Response) -> None:
    """RFC 9457, with what older clients look at: `error` and `message`."""
    found = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(found) >= {"type", "title", "status", "detail", "error", "message"}
    assert found["type"] == f"urn:wowevent:error:{found['error']}"
    assert (found["status"], found["detail"]) == (answer.status_code, found["message"])


async def topics(bus: EventBus) -> list[str]:
    return [stored.event.topic async for stored in bus.history()]


async def post(
    client: httpx.AsyncClient, body: Any, media: str = "application/json", query: str = ""
) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.post(f"/events{query}", content=content, headers={"content-type": media})


@pytest.mark.parametrize(
    ("media", "body", "count"),
    [
        ("application/json", {"topic": "order.placed", "payload": {"n": 1}}, 1),
        ("application/json; charset=UTF-8", {"type": "order.placed", "source": "shop", "payload": {"n": 1}}, 1),
        ("application/json", [{"event_type": "order.placed", "payload": {"n": n}} for n in range(3)], 3),
        ("application/json", [CLOUD, {"topic": "order.placed"}], 2),
        ("application/cloudevents+json", CLOUD, 1),
        ("application/cloudevents-batch+json", [CLOUD, CLOUD | {"id": "c-2"}], 2),
    ],
)
async def test_what_is_published(client: httpx.AsyncClient, bus: EventBus, media: str, body: Any, count: int) -> None:
    answer = await post(client, body, media)

    assert answer.status_code == 202
    receipts = answer.json()["receipts"]
    assert [set(receipt) for receipt in receipts] == [
        {"event_id", "position", "duplicate", "matched", "unserved"}
    ] * count
    stored = [(str(each.position), each.event.event_id) async for each in bus.history("order.placed")]
    assert [(receipt["position"], receipt["event_id"]) for receipt in receipts] == stored


async def test_an_id_that_is_known_is_a_duplicate(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.subscribe("order.*", lambda _: None, "shop")
    first, second = [(await post(client, CLOUD)).json()["receipts"][0] for _ in range(2)]

    assert (first["duplicate"], first["matched"]) == (False, 1)
    assert second["duplicate"]
    assert await topics(bus) == ["order.placed"]


@pytest.mark.parametrize("query", ["?delay=3600", "?at=2100-01-01T00:00:00+00:00"])
async def test_later(client: httpx.AsyncClient, bus: EventBus, query: str) -> None:
    answer = await post(client, [{"topic": "a"}, {"topic": "b"}], query=query)

    assert [receipt["position"] for receipt in answer.json()["receipts"]] == [None, None]
    assert await topics(bus) == []
    assert await bus.cancel(answer.json()["receipts"][0]["event_id"])


async def test_nothing_of_a_batch_is_stored_unless_all_is_right(client: httpx.AsyncClient, bus: EventBus) -> None:
    answer = await post(client, [{"topic": "a"}, {"topic": "a"}, {"topic": "a b"}])

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_topic")
    assert answer.json()["message"].startswith("event 2 of 3: ")
    too_large = {"topic": "a", "payload": {"x": "y" * 300_000}}
    assert (await post(client, [{"topic": "a"}, too_large])).status_code == 413
    assert await topics(bus) == []


JSON = "application/json"
REFUSED = {
    "nothing": (b"", JSON, 400),
    "not JSON": (b"{topic", JSON, 400),
    "truncated": (b'{"topic": "a"', JSON, 400),
    "no events": (b"[]", JSON, 400),
    "not an event": (b"42", JSON, 400),
    "an array in an array": (b'[[{"topic":"a"}]]', JSON, 400),
    "UTF-16": ('{"topic":"a"}'.encode("utf-16"), JSON, 400),
    "not UTF-8": (b'{"topic":"a","payload":{"x":"\xff"}}', JSON, 400),
    "NaN": (b'{"topic":"a","payload":{"x":NaN}}', JSON, 400),
    "1e999": (b'{"topic":"a","payload":{"x":1e999}}', JSON, 400),
    "a number of 5,000 digits": (b'{"topic":"a","payload":{"x":%s}}' % (b"9" * 5000), JSON, 400),
    "a key twice": (b'{"topic":"a","payload":{"x":1,"x":2}}', JSON, 400),
    "a field twice": (b'{"topic":"a","topic":"b"}', JSON, 400),
    "a lone surrogate": (rb'{"topic":"a","payload":{"x":"\ud800"}}', JSON, 400),
    "a lone surrogate as a topic": (rb'{"topic":"\ud800"}', JSON, 400),
    "NUL": (b'{"topic":"a"}\0', JSON, 400),
    "NUL in a topic": (rb'{"topic":"a\u0000b"}', JSON, 400),
    "100,000 levels": (b'{"topic":"a","payload":' + b'{"x":' * 100_000 + b"1" + b"}" * 100_001, JSON, 400),
    "40 levels": (b'{"topic":"a","payload":' + b'{"x":' * 40 + b"1" + b"}" * 41, JSON, 400),
    "a path as a topic": (b'{"topic":"../a"}', JSON, 400),
    "CR LF in a topic": (rb'{"topic":"a\r\nb"}', JSON, 400),
    "CR LF in a source": (rb'{"topic":"a","source":"a\r\nb"}', JSON, 400),
    "a wildcard as a topic": (b'{"topic":"a.*"}', JSON, 400),
    "a dollar in a topic": (b'{"topic":"$SYS"}', JSON, 400),
    "a topic of 256 bytes": (b'{"topic":"%s"}' % (b"a" * 256), JSON, 400),
    "a topic of the bus": (b'{"topic":"_bus.x"}', JSON, 400),
    "a wrong priority": (b'{"topic":"a","priority":11}', JSON, 400),
    "a payload that is a list": (b'{"topic":"a","payload":[1]}', JSON, 400),
    "a topic that is a list": (b'{"topic":["a"]}', JSON, 400),
    "a newer envelope": (b'{"topic":"a","v":2}', JSON, 400),
    "a header with a line break": (rb'{"topic":"a","headers":{"x":"a\r\nb: c"}}', JSON, 400),
    "another CloudEvents version": (json.dumps(CLOUD | {"specversion": "2.0"}).encode(), JSON, 400),
    "no CloudEvent": (b'{"topic":"a"}', "application/cloudevents+json", 400),
    "a batch where one is announced": (json.dumps([CLOUD]).encode(), "application/cloudevents+json", 400),
    "one where a batch is announced": (json.dumps(CLOUD).encode(), "application/cloudevents-batch+json", 400),
    "no media type": (b'{"topic":"a"}', "", 415),
    "a form": (b'{"topic":"a"}', "application/x-www-form-urlencoded", 415),
    "plain text": (b'{"topic":"a"}', "text/plain", 415),
    "another charset": (b'{"topic":"a"}', "application/json; charset=utf-16", 415),
    "a large body": (b'{"topic":"a","payload":{"x":"%s"}}' % (b"y" * 1_100_000), JSON, 413),
}


@pytest.mark.parametrize(("body", "media", "status"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused(client: httpx.AsyncClient, bus: EventBus, body: bytes, media: str, status: int) -> None:
    answer = await post(client, body, media)

    assert answer.status_code == status
    assert_problem(answer)
    assert await topics(bus) == []
    assert (await post(client, {"topic": "next"})).status_code == 202


async def test_a_compressed_body_is_refused(client: httpx.AsyncClient) -> None:
    headers = {"content-type": JSON, "content-encoding": "gzip"}

    assert (await client.post("/events", content=b"{}", headers=headers)).status_code == 415


@pytest.mark.parametrize(
    "query",
    [
        *("delay=-1", "delay=nan", "delay=inf", "delay=1e400", "delay=soon", "delay=1&at=2100-01-01", "at=later"),
        "delya=1",
    ],
)
async def test_a_wrong_moment_is_refused(client: httpx.AsyncClient, bus: EventBus, query: str) -> None:
    assert (await post(client, {"topic": "a"}, query=f"?{query}")).status_code == 400
    assert await topics(bus) == []


async def test_history_in_pages(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish_many([Event(topic="a.b", payload={"n": n}) for n in range(5)])
    found, after = [], ""
    for _ in range(3):
        page = (await client.get(f"/events?pattern=a.*&limit=2{after}")).json()
        assert all(set(item) == {"event", "position", "stored_at"} for item in page["events"])
        found += [item["event"]["payload"]["n"] for item in page["events"]]
        after = f"&after={page['next']}"

    assert found == [0, 1, 2, 3, 4]
    assert page["next"] is None


async def test_history_by_pattern_time_and_correlation(client: httpx.AsyncClient, bus: EventBus) -> None:
    early = Event(topic="a.b", timestamp="2020-01-01T00:00:00", correlation_id="job-1")
    late = Event(topic="b.c", timestamp="2020-01-02T00:00:00")
    await bus.publish_many([early, late])

    async def ids(query: str) -> list[str]:
        return [item["event"]["event_id"] for item in (await client.get(f"/events?{query}")).json()["events"]]

    assert await ids("pattern=a.*") == [early.event_id]
    assert await ids("pattern=a.*&pattern=b.*") == [early.event_id, late.event_id]
    assert await ids("correlation_id=job-1") == [early.event_id]
    assert await ids("start_time=2020-01-01T12:00:00%2B00:00") == [late.event_id]
    assert await ids("start_time=2020-01-01T12:00:00+00:00") == [late.event_id]
    assert await ids("end_time=2020-01-01T12:00:00Z") == [early.event_id]


async def test_the_newest_first_in_pages(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish_many([Event(topic="a.b", payload={"n": n}) for n in range(5)])
    await bus.publish(Event(topic="b.c"))
    found, before = [], ""
    for _ in range(3):
        page = (await client.get(f"/events?pattern=a.*&order=newest&limit=2{before}")).json()
        found += [item["event"]["payload"]["n"] for item in page["events"]]
        before = f"&before={page['next']}"

    assert found == [4, 3, 2, 1, 0]
    assert page["next"] is None
    everything = (await client.get("/events?order=oldest")).json()["events"]
    behind = await client.get(f"/events?order=newest&after={everything[2]['position']}")
    assert behind.json()["events"] == everything[:2:-1]
    between = f"after={everything[0]['position']}&before={everything[3]['position']}"
    assert (await client.get(f"/events?{between}")).json()["events"] == everything[1:3]


async def test_history_by_when_it_was_stored_is_not_by_the_events_own_time() -> None:
    async with TestBus() as bus:
        old = Event(topic="a.b", timestamp="2020-01-01T00:00:00")
        begun = datetime.fromtimestamp(bus.clock.time(), UTC)
        await bus.publish(old)
        await bus.advance(60)
        await bus.publish(late := Event(topic="a.b"))
        moment = quote((begun + timedelta(seconds=30)).isoformat())
        app = create_app(bus, hosts=("bus",))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://bus") as client:

            async def ids(query: str) -> list[str]:
                return [item["event"]["event_id"] for item in (await client.get(f"/events?{query}")).json()["events"]]

            for order in ("oldest", "newest"):
                assert await ids(f"order={order}&stored_from={moment}") == [late.event_id]
                assert await ids(f"order={order}&stored_until={moment}") == [old.event_id]
                assert (
                    await ids(f"order={order}&stored_until={quote((begun - timedelta(seconds=1)).isoformat())}") == []
                )
                assert await ids(f"order={order}&start_time=2020-01-01&end_time=2020-01-02") == [old.event_id]
            assert await ids("order=newest") == [late.event_id, old.event_id]
            assert await ids("order=newest&correlation_id=" + old.event_id) == [old.event_id]
        await drain(app)


async def test_lines_come_oldest_first(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish_many([Event(topic="a", payload={"n": n}) for n in range(4)])
    lines = {"accept": "application/x-ndjson"}
    position = (await client.get("/events")).json()["events"][2]["position"]
    answer = await client.get(f"/events?before={position}", headers=lines)
    assert [json.loads(line)["event"]["payload"]["n"] for line in answer.text.splitlines()] == [0, 1]
    answer = await client.get("/events?order=newest&limit=2", headers=lines)
    assert answer.status_code == 400
    assert "pages" in answer.json()["message"]


async def test_history_as_lines(client: httpx.AsyncClient, bus: EventBus) -> None:
    await bus.publish_many([Event(topic="a", payload={"n": n}) for n in range(1500)])
    answer = await client.get("/events", headers={"accept": "application/x-ndjson"})

    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["event"]["payload"]["n"] for line in lines] == list(range(1500))
    few = await client.get("/events?limit=3", headers={"accept": "application/x-ndjson"})
    assert len(few.text.splitlines()) == 3


@pytest.mark.parametrize(
    ("query", "status"),
    [
        *((f"limit={limit}", 400) for limit in ("0", "1001", "-1", "x", "9" * 5000, "1.5")),
        *((f"pattern={pattern}", 400) for pattern in ("a..b", "a*", "**", "%00", "a%0d%0ab", "a" * 256, "../a")),
        *((f"start_time={time}", 400) for time in ("yesterday", "1e999", "%00")),
        *((f"after={position}", 400) for position in ("x", "a-", "a-x", f"a-{'9' * 30}", f"a-{'9' * 5000}")),
        ("correlation_id=a%0ab", 400),
        ("patern=a", 400),
        ("after=another-1", 410),
        ("before=another-1", 410),
        ("order=newest&after=another-1", 410),
        *((query, 400) for query in ("order=latest", "before=x", "stored_from=soon", "stored_until=x", "order=")),
        ("order=newest&pattern=_bus.%23", 400),
    ],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, query: str, status: int) -> None:
    answer = await client.get(f"/events?{query}")

    assert answer.status_code == status
    assert_problem(answer)
    answer = await client.get(f"/events?{query}", headers={"accept": "application/x-ndjson"})
    assert answer.status_code in {status, 200}  # lines may be as many as there are


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://bus"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"host": "evil.example"}, 403),
        ({"host": "bus.evil.example"}, 403),
        ({"host": "[bus"}, 403),
    ],
)
async def test_pages_of_others_may_not_ask(client: httpx.AsyncClient, headers: dict[str, str], status: int) -> None:
    assert (await client.get("/events", headers=headers)).status_code == status
    assert (await client.get("/health", headers=headers)).status_code == 200


async def test_a_page_that_is_allowed_may_ask(bus: EventBus) -> None:
    transport = httpx.ASGITransport(create_app(bus, origins=("https://admin.example",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
        assert (await client.get("/events", headers={"origin": "https://admin.example"})).status_code == 200
        assert (await client.get("/events", headers={"origin": "https://admin.example:444"})).status_code == 403


async def test_a_page_that_is_allowed_may_read_the_answer(bus: EventBus) -> None:
    page = {"origin": "https://admin.example"}
    transport = httpx.ASGITransport(create_app(bus, origins=("https://admin.example",)))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
        answer = await client.get("/events", headers=page)
        assert answer.headers["access-control-allow-origin"] == "https://admin.example"
        before = {"access-control-request-method": "DELETE", "access-control-request-headers": "last-event-id"}
        assert (await client.options("/subscriptions/a", headers=page | before)).status_code == 200
        stranger = {"origin": "https://evil.example"}
        assert (await client.options("/subscriptions/a", headers=stranger | before)).status_code == 400
        answer = await client.get("/events", headers=stranger)
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_what_is_not_there(client: httpx.AsyncClient) -> None:
    answer = await client.get("/nothing")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert_problem(answer)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/events", {"GET", "HEAD", "POST"}),
        ("/events/stream", {"GET", "HEAD"}),
        ("/subscriptions/a", {"GET", "HEAD", "DELETE"}),
        ("/dead-letters/redeliver", {"POST"}),
        ("/replays/a", {"GET", "HEAD", "DELETE"}),
    ],
)
async def test_a_method_that_is_not_there(client: httpx.AsyncClient, path: str, allowed: set[str]) -> None:
    answer = await client.put(path)

    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert_problem(answer)


def test_every_error_has_a_status() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.BusError)]
    for kind in kinds:
        assert 400 <= status_of(kind("x")) < 600
    assert len(STATUS) <= len(kinds)
    assert {status_of(errors.StorageFull("x")), status_of(errors.BrokerUnavailable("x"))} == {507, 503}


@pytest.mark.parametrize("character", ["\n", "\r", "\u2028", "\u2029", "\x85", "\x0b", "\x1e"])
async def test_a_line_is_a_line_to_every_reader(client: httpx.AsyncClient, bus: EventBus, character: str) -> None:
    await bus.publish(Event(topic="a", payload={"x": f"1{character}2"}))
    answer = await client.get("/events", headers={"accept": "application/x-ndjson"})

    (line,) = answer.text.splitlines()
    assert json.loads(line)["event"]["payload"] == {"x": f"1{character}2"}
