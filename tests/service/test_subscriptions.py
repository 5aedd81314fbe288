"""/subscriptions: listed, looked at, paused, purged, removed; by ids with every character that ids have."""

from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.conformance.engines import eventually, url_of
from wowevent import Event, EventBus, Reject
from wowevent.broker import Subscription
from wowevent.service import create_app, drain

IDS = ("worker", "team/worker:1@host.x-y_z", "a/purge", "a/pause", "agent~a.*,b.#,c", "a//b")


async def nothing(event: Event) -> None:
    """A handler."""


async def reject(event: Event) -> None:
    raise Reject


async def waiting(bus: EventBus, id: str, count: int = 3) -> None:
    """A subscription that nobody serves, with events that wait for it."""
    await bus.broker.declare(Subscription(id=id, patterns=("task.*",), agent="agent"))
    await bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(count)])


def path(id: str) -> str:
    return f"/subscriptions/{quote(id, safe='')}"


async def test_what_is_remembered_and_who_listens_live(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await engine_bus.subscribe(["b.*", "a.*"], nothing, "agent", types=["x", "y"], priorities=["high"], sources=["s"])
    await engine_bus.subscribe("task.*", nothing, durable=False)
    await waiting(engine_bus, "resting")

    live, named, resting = by_kind((await engine_client.get("/subscriptions")).json()["subscriptions"])
    assert (live["durable"], live["agent"], live["patterns"], live["consumers"]) == (False, None, ["task.*"], 1)
    assert named["filter"] == {"types": ["x", "y"], "priorities": [7, 8], "sources": ["s"]}
    assert (named["id"], named["agent"], named["durable"]) == ("agent~a.*,b.*", "agent", True)
    assert (resting["id"], resting["ready"], resting["consumers"], resting["filter"]) == ("resting", 3, 0, None)
    assert resting["oldest"] >= 0 if engine_bus.capabilities.exact else resting["oldest"] is None
    for each in (live, named, resting):
        answer = await engine_client.get(path(each["id"]))
        assert answer.status_code == 200
        assert set(answer.json()) == set(each)
        assert answer.json() | {"oldest": None} == each | {"oldest": None}


def by_kind(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The live one, the one that is served, the one that rests."""
    assert [each["id"] for each in found] == sorted(each["id"] for each in found)
    return sorted(found, key=lambda each: (each["durable"], each["id"] == "resting"))


@pytest.mark.parametrize("id", IDS)
async def test_one_is_found_purged_and_removed_by_any_id(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, id: str
) -> None:
    await waiting(engine_bus, id)
    await waiting(engine_bus, "another", count=1)

    assert (await engine_client.get(path(id))).json()["id"] == id
    answer = await engine_client.post(f"{path(id)}/purge")
    assert answer.json() == {"purged": 4}
    assert (await engine_client.get(path(id))).json()["ready"] == 0
    answer = await engine_client.delete(path(id))
    assert (answer.status_code, answer.content) == (204, b"")
    assert [info.subscription.id for info in await engine_bus.subscriptions()] == ["another"]
    for answer in (
        await engine_client.get(path(id)),
        await engine_client.delete(path(id)),
        await engine_client.post(f"{path(id)}/purge"),
    ):
        assert (answer.status_code, answer.json()["error"]) == (404, "subscription_not_found")


@pytest.mark.parametrize("id", IDS)
async def test_one_is_paused_and_resumed_by_any_id(
    engine_client: httpx.AsyncClient, engine_bus: EventBus, id: str
) -> None:
    await waiting(engine_bus, id)
    await waiting(engine_bus, "another", count=1)

    for verb, paused in (("pause", True), ("pause", True), ("resume", False), ("resume", False)):
        answer = await engine_client.post(f"{path(id)}/{verb}")
        assert (answer.status_code, answer.json()["id"], answer.json()["paused"]) == (200, id, paused)
        assert engine_bus.paused(id) == paused
        assert (await engine_client.get(path(id))).json()["paused"] == paused
        shown = (await engine_client.get("/subscriptions")).json()["subscriptions"]
        assert {each["id"]: each["paused"] for each in shown} == {id: paused, "another": False}
        assert answer.json()["ready"] == 4


async def test_what_is_paused_waits_and_comes_when_it_is_resumed(
    engine_client: httpx.AsyncClient, engine_bus: EventBus
) -> None:
    handled = list[int]()
    await engine_bus.subscribe("task.*", lambda event: handled.append(event.payload["n"]), "worker")
    await engine_client.post(f"{path('worker~task.*')}/pause")
    await engine_bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(3)])

    async def all_wait() -> bool:  # what a fetch that was under way brought goes back first
        return bool((await engine_client.get(path("worker~task.*"))).json()["ready"] == 3)

    await eventually(all_wait)
    assert handled == []

    await engine_client.post(f"{path('worker~task.*')}/resume")
    await engine_bus.join(5)
    assert sorted(handled) == [0, 1, 2]


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
async def test_what_another_process_paused_is_shown_by_one_that_serves_nothing(tmp_path: Path, engine: str) -> None:
    url = url_of(engine, tmp_path)
    async with EventBus(url) as here, EventBus(url) as there:
        await waiting(there, "one")
        await there.pause("one")
        transport = httpx.ASGITransport(create_app(here))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:

            async def shown(paused: bool) -> bool:
                (listed,) = (await client.get("/subscriptions")).json()["subscriptions"]
                return bool(listed["paused"] == (await client.get(path("one"))).json()["paused"] == paused)

            await eventually(lambda: shown(paused=True))
            await there.resume("one")
            await eventually(lambda: shown(paused=False))


async def test_dead_letters_go_with_their_subscription(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    await engine_bus.subscribe("task.*", reject, "worker")
    await engine_bus.publish(Event(topic="task.created"))
    await engine_bus.join(5)
    assert (await engine_client.get(path("worker~task.*"))).json()["dead"] == 1
    assert (await engine_client.delete(path("worker~task.*"))).status_code == 204
    assert await engine_bus.dead_letters.list() == []


async def test_an_agent_is_no_id(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    """What removes is exact: the name of an agent stands for all of its subscriptions."""
    await waiting(engine_bus, "one")

    assert (await engine_client.delete(path("agent"))).status_code == 404
    for verb in ("pause", "resume", "purge"):
        assert (await engine_client.post(f"{path('agent')}/{verb}")).status_code == 404
    assert not engine_bus.paused("one")
    assert len(await engine_bus.subscriptions()) == 1


async def test_a_live_one_ends_with_its_process_alone(engine_client: httpx.AsyncClient, engine_bus: EventBus) -> None:
    live = await engine_bus.subscribe("task.*", nothing, durable=False)
    for answer in (
        await engine_client.delete(path(live.subscription_id)),
        *[await engine_client.post(f"{path(live.subscription_id)}/{verb}") for verb in ("pause", "resume", "purge")],
    ):
        assert (answer.status_code, answer.json()["error"]) == (409, "subscription_conflict")
    assert live.active


@pytest.mark.parametrize("id", ["", "a" * 5000, "\0", "ä", "%2F", "x\ud800"])
async def test_an_id_that_cannot_be(engine_client: httpx.AsyncClient, id: str) -> None:
    answer = await engine_client.get(f"/subscriptions/{quote(id, safe='', errors='replace')}")

    assert (answer.status_code, answer.json()["error"]) == (404, "subscription_not_found")


@pytest.mark.parametrize("verb", ["purge", "pause", "resume", ""])
async def test_pages_of_others_may_not_change_anything(client: httpx.AsyncClient, bus: EventBus, verb: str) -> None:
    await waiting(bus, "one")
    method, url = ("POST", f"{path('one')}/{verb}") if verb else ("DELETE", path("one"))
    for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
        assert (await client.request(method, url, headers=headers)).status_code == 403
    (info,) = await bus.subscriptions()
    assert (info.ready, bus.paused("one")) == (3, False)


@pytest.mark.parametrize(
    ("body", "media", "status"),
    [
        (b"", None, 200),
        (b"{}", "application/json", 200),
        (b" ", "application/json", 400),
        (b'{"all":true}', "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"", "application/x-www-form-urlencoded", 415),
        (b" " * 1_100_000, "application/json", 413),
    ],
)
async def test_purge_and_pause_take_no_orders(
    client: httpx.AsyncClient, bus: EventBus, body: bytes, media: str | None, status: int
) -> None:
    await waiting(bus, "one")
    headers = {} if media is None else {"content-type": media}
    assert (await client.post(f"{path('one')}/pause", content=body, headers=headers)).status_code == status
    assert bus.paused("one") == (status == 200)
    assert (await client.post(f"{path('one')}/purge", content=body, headers=headers)).status_code == status
    (info,) = await bus.subscriptions()
    assert info.ready == (0 if status == 200 else 3)


# --- how fast it goes ---------------------------------------------------------------------------------------------


RATES = ("delivered_per_second", "failed_per_second", "error_rate")


def rates(found: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(found[name] for name in RATES)


async def test_how_fast_each_goes_is_said_to_who_asks(tmp_path: Path) -> None:
    url = url_of("sqlite", tmp_path)
    async with EventBus(url) as other, EventBus(url) as bus:
        await other.subscribe("task.*", one_of_four, subscription="worker")
        await bus.subscribe("task.*", nothing, "wall", durable=False)
        await bus.broker.declare(Subscription(id="idle", patterns=("none.*",)))
        app = create_app(bus)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://bus") as client:
            assert all(rates(each) == (None, None, None) for each in await listed(client, ""))
            assert [each async for each in bus.history("_bus.pulse.#")] == [], "nobody says anything for that"
            await other.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(40)])

            async def is_seen() -> bool:
                found = {each["id"]: each for each in await listed(client, "?rates=true")}
                delivered, failed, share = rates(found.pop("worker"))
                assert rates(found.pop("idle")) == (0, 0, 0)
                (live,) = found.values()
                assert rates(live) == (None, None, None)
                return (
                    delivered > 0 and failed == pytest.approx(delivered / 3, abs=0.01) and share == pytest.approx(0.25)
                )

            await eventually(is_seen, 8)
            answer = await client.get("/subscriptions/worker?rates=true")
            assert answer.json()["error_rate"] == pytest.approx(0.25)
            assert (await client.get("/subscriptions?rates=yes")).status_code == 400
        await drain(app)


async def one_of_four(event: Event) -> None:
    if event.payload["n"] % 4 == 0:
        raise Reject


async def listed(client: httpx.AsyncClient, query: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"/subscriptions{query}")).json()["subscriptions"]
    return found
