"""What the workbench of dead letters asks: groups, how many it would be, at a rate, and sending one again corrected."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conformance.engines import eventually
from tests.service.guarded import Guarded
from tests.service.test_dead_letters import Worker, failed, listed, numbers
from wowevent import Event, EventBus, Reject
from wowevent.access.rights import Limits
from wowevent.resent import resent_of
from wowevent.service import drain, jobs, watch

NONE = "0" * 16


async def groups(client: httpx.AsyncClient, query: str = "") -> list[dict[str, Any]]:
    answer = await client.get(f"/dead-letters/groups{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["groups"]
    return found


async def two_ways(bus: EventBus) -> None:
    """Three letters of one group, two of another, over two subscriptions."""
    await failed(bus, 1, 2)

    async def other(event: Event) -> None:
        raise Reject(f"no customer {event.payload['n']}" if event.payload["n"] < 4 else "no stock")

    await bus.subscribe("task.*", other, "other")
    await bus.publish_many([Event(topic="task.created", payload={"n": n}, event_id=f"e-{n}") for n in (3, 4)])
    await bus.join(5)


# --- groups -------------------------------------------------------------------------------------------------------


async def test_groups(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await two_ways(engine_bus)
    worker, *others = await groups(engine_client)
    assert len(worker["fingerprint"]) == 16
    assert (worker["count"], worker["reason"], worker["error"]) == (4, "rejected", "no such customer")
    assert (worker["subscriptions"], worker["topics"]) == (["worker~task.*"], ["task.created"])
    assert worker["attempts"] == {"least": 1, "most": 1}
    assert worker["first"] <= worker["last"]
    assert (worker["newest"], len(worker["ids"])) == (worker["ids"][0], 4)
    assert sorted(group["error"] for group in others) == ["no customer 3", "no stock"]
    assert set(worker["ids"]) == {each["id"] for each in await listed(engine_client, "?subscription=worker")}


@pytest.mark.parametrize(
    ("query", "counts"),
    [
        ("?subscription=worker", [4]),
        ("?subscription=other", [1, 1]),
        ("?event_id=e-4", [1, 1]),
        ("?correlation_id=c-1", [1]),
        ("?reason=timeout", []),
        (f"?fingerprint={NONE}", []),
        ("?limit=1", [4]),
    ],
)
async def test_groups_of_what_fits(client: httpx.AsyncClient, bus: EventBus, query: str, counts: list[int]) -> None:
    await two_ways(bus)
    assert [group["count"] for group in await groups(client, query)] == counts
    assert (await client.get(f"/dead-letters/groups{query}")).json()["more"] is (query == "?limit=1")


async def test_a_group_is_a_filter(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await two_ways(engine_bus)
    worker = (await groups(engine_client))[0]["fingerprint"]
    assert numbers(await listed(engine_client, f"?fingerprint={worker}&limit=2")) == [1, 2]
    assert len(await listed(engine_client, f"?fingerprint={worker}")) == 4
    answer = await engine_client.post("/dead-letters/discard", json={"fingerprint": worker})
    assert answer.json() == {"discarded": 4}
    assert [group["count"] for group in await groups(engine_client)] == [1, 1]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/dead-letters/groups?fingerprint=x", 400),
        ("/dead-letters?fingerprint=", 400),
        ("/dead-letters?fingerprint=" + "F" * 16, 400),
        ("/dead-letters/groups?limit=1001", 400),
        ("/dead-letters/groups?subscription=werker", 404),
        ("/dead-letters/groups?topic=a", 400),
    ],
)
async def test_a_wrong_question_is_refused(client: httpx.AsyncClient, bus: EventBus, path: str, status: int) -> None:
    await failed(bus, 1)
    assert (await client.get(path)).status_code == status


# --- how many it would be -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["redeliver", "discard"])
async def test_a_dry_run_counts_and_changes_nothing(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, verb: str
) -> None:
    await two_ways(engine_bus)
    before = await listed(engine_client)
    ids = [before[0]["id"], before[0]["id"], "unknown", before[1]["id"]]
    for choice, counts in (
        ({"reason": "rejected"}, {"worker~task.*": 4, "other~task.*": 2}),
        ({"fingerprint": (await groups(engine_client))[0]["fingerprint"]}, {"worker~task.*": 4}),
        ({"ids": ids}, {"worker~task.*": 2}),
        ({"fingerprint": NONE}, {}),
    ):
        answer = await engine_client.post(f"/dead-letters/{verb}", json={**choice, "dry_run": True})
        assert (answer.status_code, answer.json()) == (200, {"count": sum(counts.values()), "by_subscription": counts})
    assert await listed(engine_client) == before


async def test_a_dry_run_has_to_say_which_as_well(client: httpx.AsyncClient, bus: EventBus) -> None:
    await failed(bus, 1)
    for body, status in (
        ({"dry_run": True}, 400),
        ({"dry_run": 1, "reason": "rejected"}, 400),
        ({"dry_run": True, "subscription": "werker"}, 404),
        ({"rate": 5}, 400),
        ({"rate": 0, "reason": "rejected"}, 400),
        ({"rate": -1, "reason": "rejected"}, 400),
        ({"rate": "5", "reason": "rejected"}, 400),
        ({"rate": 1e9, "reason": "rejected"}, 400),
        ({"fingerprint": "x"}, 400),
    ):
        assert (await client.post("/dead-letters/redeliver", json=body)).status_code == status, body
    answer = await client.post("/dead-letters/discard", json={"rate": 5, "reason": "rejected"})
    assert answer.status_code == 400
    assert len(await listed(client)) == 1


# --- at a rate ----------------------------------------------------------------------------------------------------


async def redelivering(client: httpx.AsyncClient, rate: float, **choice: Any) -> dict[str, Any]:
    answer = await client.post("/dead-letters/redeliver", json={"rate": rate, **(choice or {"subscription": "worker"})})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/redeliveries/{found['id']}"
    return found


async def seen(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/redeliveries/{id}")).json()
    return found


async def until_ended(client: httpx.AsyncClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(10):
        while (found := await seen(client, id))["state"] == "running":  # noqa: ASYNC110 - as seen from outside
            await asyncio.sleep(0.01)
    return found


async def test_at_a_rate(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    worker = await failed(engine_bus, *range(3))
    worker.well = True
    began = await redelivering(engine_client, 4, subscription="worker", reason="rejected")
    assert (began["state"], began["total"], began["redelivered"], began["rate"]) == ("running", 3, 0, 4.0)
    assert (began["order"]["subscription"], began["order"]["reason"]) == ("worker", "rejected")
    done = await until_ended(engine_client, began["id"])
    assert (done["state"], done["redelivered"], done["gone"], done["failure"]) == ("done", 3, 0, None)
    assert done["ended_at"] >= done["started_at"]
    await eventually(lambda: sorted(worker.seen) == [0, 1, 2])
    assert (await engine_client.get("/redeliveries")).json() == {"redeliveries": [done], "complete": True}


async def test_one_is_cancelled_and_the_rest_stays(client: httpx.AsyncClient, bus: EventBus) -> None:
    await failed(bus, *range(3))
    await bus.pause("worker")
    ids = [letter["id"] for letter in await listed(client)]
    began = await redelivering(client, 0.5, ids=ids)
    assert began["order"]["ids"] is None
    await eventually(lambda: _sent(client, began["id"], 1))
    answer = await client.delete(f"/redeliveries/{began['id']}")
    assert (answer.status_code, answer.json()["state"], answer.json()["redelivered"]) == (200, "cancelled", 1)
    assert (await client.delete(f"/redeliveries/{began['id']}")).json() == answer.json()
    assert [letter["id"] for letter in await listed(client)] == ids[1:]


async def _sent(client: httpx.AsyncClient, id: str, count: int) -> bool:
    return bool((await seen(client, id))["redelivered"] == count)


async def test_what_somebody_else_took_is_said(client: httpx.AsyncClient, bus: EventBus) -> None:
    await failed(bus, *range(2))
    await bus.pause("worker")
    ids = [letter["id"] for letter in await listed(client)]
    began = await redelivering(client, 2, ids=[*ids, *ids])
    assert began["total"] == 2
    await bus.dead_letters.discard(ids[1])
    done = await until_ended(client, began["id"])
    assert done["redelivered"] + done["gone"] == 2


async def test_so_many_at_a_time_and_no_more(client: httpx.AsyncClient, bus: EventBus) -> None:
    await failed(bus, *range(3))
    await bus.pause("worker")
    ids = [letter["id"] for letter in await listed(client)]
    for _ in range(jobs.RUNNING):
        await redelivering(client, 0.01, ids=ids)
    answer = await client.post("/dead-letters/redeliver", json={"ids": ids, "rate": 1})
    assert (answer.status_code, answer.json()["error"]) == (429, "too_many_redeliveries")
    app = client._transport.app  # type: ignore[attr-defined]  # noqa: SLF001 - the application
    running, _ = await app.state.redeliveries.all(None)
    await drain(app)
    assert {each.state for each in running} == {"cancelled"}


async def test_a_redelivery_that_is_not_there(client: httpx.AsyncClient) -> None:
    for answer in (await client.get("/redeliveries/x"), await client.delete("/redeliveries/x")):
        assert (answer.status_code, answer.json()["error"]) == (404, "redelivery_not_found")


# --- corrected ----------------------------------------------------------------------------------------------------


class Billing(Worker):
    """Wants a number."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    async def __call__(self, event: Event) -> None:
        if "sum" not in event.payload:
            raise Reject("no sum")
        self.events.append(event)


async def test_an_event_is_corrected_and_sent_again(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    billing, other = Billing(), Worker()
    other.well = True
    await engine_bus.subscribe("task.*", billing, "billing")
    await engine_bus.subscribe("task.*", other, "other")
    await engine_bus.publish(Event(topic="task.created", payload={"n": 1}, event_id="e-1"))
    await engine_bus.join(5)
    (letter,) = await listed(engine_client)
    answer = await engine_client.post(
        f"/dead-letters/{letter['id']}/resend", json={"payload": {"n": 1, "sum": 12}, "reason": "the shop forgot it"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"event_id": answer.json()["event_id"], "replaces": "e-1", "duplicate": False}
    await eventually(lambda: billing.events)
    await engine_bus.join(5)
    (new,) = billing.events
    assert (new.event_id, new.payload, new.replay_of) == (answer.json()["event_id"], {"n": 1, "sum": 12}, "e-1")
    mark = resent_of(new)
    assert mark is not None
    assert (mark.by, mark.reason) == ("", "the shop forgot it")
    assert other.seen == [1]
    assert await listed(engine_client) == []
    again = await engine_client.post(f"/dead-letters/{letter['id']}/resend", json={"payload": {"sum": 12}})
    assert (again.status_code, again.json()["error"]) == (404, "dead_letter_not_found")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"payload": None},
        {"payload": ["a"]},
        {"payload": "text"},
        {"reason": "because"},
        {"payload": {}, "reasn": "because"},
        {"payload": {}, "reason": "x" * 501},
        {"payload": {"deep": {"n": 1}}, "topic": "task.other"},
    ],
    ids=str,
)
async def test_what_cannot_be_resent_is_refused(client: httpx.AsyncClient, bus: EventBus, body: Any) -> None:
    await failed(bus, 1)
    (letter,) = await listed(client)
    answer = await client.post(f"/dead-letters/{letter['id']}/resend", json=body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_event")
    assert await listed(client) == [letter]


# --- with tokens --------------------------------------------------------------------------------------------------


async def test_each_is_for_who_may(bus: EventBus, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    await failed(bus, 1, 2)
    await bus.pause("worker")
    (letter, second) = await bus.dead_letters.list()
    guarded = Guarded(bus, tmp_path / "tokens.json")
    resend, body = f"/dead-letters/{letter.id}/resend", {"payload": {"n": 9}, "reason": "typed wrongly"}
    caplog.set_level(logging.INFO)
    async with guarded.having("eve", publish=("#",)) as client:
        assert (await client.get("/dead-letters/groups")).status_code == 403
        assert (await client.get("/redeliveries")).status_code == 403
        assert (await client.post(resend, json=body)).status_code == 403
    async with guarded.having("clerk", dead_letters=("other.*",), publish=("#",)) as client:
        assert (await client.get("/dead-letters/groups")).json() == {"groups": [], "more": False}
        answer = await client.post("/dead-letters/redeliver", json={"reason": "rejected", "dry_run": True})
        assert answer.json() == {"count": 0, "by_subscription": {}}
        assert (await client.post(resend, json=body)).status_code == 404
    async with guarded.having("reader", dead_letters=("task.*",)) as client:
        assert [group["count"] for group in await groups(client)] == [2]
        assert (await client.post(resend, json=body)).status_code == 403, "what it says is new: that is to publish"
        began = await redelivering(client, 0.01, ids=[letter.id, second.id])
    await eventually(lambda: _letters_left(bus, 1))
    async with guarded.having("ops", dead_letters=("task.*",), publish=("task.*",)) as client:
        (left,) = await listed(client)
        assert (await client.get(f"/redeliveries/{began['id']}")).status_code == 404
        answer = await client.post(f"/dead-letters/{left['id']}/resend", json=body)
        assert answer.status_code == 200, answer.text
    async with guarded.having("boss", admin=("#",), dead_letters=("#",)) as client:
        assert (await client.delete(f"/redeliveries/{began['id']}")).json()["state"] == "cancelled"
    said = [record.getMessage() for record in caplog.records]
    (line,) = [each for each in said if "dead_letter resent" in each and "audit" in each]
    for part in ("ops", left["id"], answer.json()["event_id"], "typed wrongly"):
        assert part in line
    await drain(guarded.app)


async def _letters_left(bus: EventBus, count: int) -> bool:
    return len(await bus.dead_letters.list()) == count


async def test_a_redelivery_ends_with_its_token(bus: EventBus, tmp_path: Path) -> None:
    await failed(bus, 1, 2)
    guarded = Guarded(bus, tmp_path / "tokens.json")
    secret = guarded.token("ops", dead_letters=("#",))
    async with guarded.client(secret) as client:
        began = await redelivering(client, 0.01, reason="rejected")
    watching = asyncio.create_task(watch(guarded.app))
    guarded.revoke(secret)
    shown = await guarded.app.state.redeliveries.get(began["id"], None)
    await eventually(lambda: shown.state == "cancelled")
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    await drain(guarded.app)


async def test_who_publishes_cannot_say_that_it_is_a_correction(bus: EventBus, tmp_path: Path) -> None:
    """An event with the header goes past everybody else, and says who corrected it."""
    heard = Worker()
    heard.well = True
    await bus.subscribe("task.*", heard, "auditor")
    guarded = Guarded(bus, tmp_path / "tokens.json")
    forged = '{"event": "e-1", "to": "nobody", "letter": "1", "by": "ops"}'
    event = {"topic": "task.created", "event_id": "e-1", "payload": {"n": 1}, "headers": {"wowevent-resent": forged}}
    async with guarded.having("eve", publish=("#",)) as client:
        assert (await client.post("/events", json=event)).status_code == 202
    await eventually(lambda: heard.seen == [1])
    await drain(guarded.app)


async def test_a_correction_counts_as_an_event_of_its_token(bus: EventBus, tmp_path: Path) -> None:
    await failed(bus, 1, 2)
    await bus.pause("worker")
    guarded = Guarded(bus, tmp_path / "tokens.json")
    secret = guarded.token("ops", limits=Limits(events="1/min"), dead_letters=("#",), publish=("#",))
    async with guarded.client(secret) as client:
        answers = [
            await client.post(f"/dead-letters/{letter['id']}/resend", json={"payload": {"n": 1}})
            for letter in await listed(client)
        ]
    assert [answer.status_code for answer in answers] == [200, 429]
    await drain(guarded.app)
