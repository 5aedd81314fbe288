"""GET /metrics: the runbook's questions in JSON, and what Prometheus reads; it answers whatever the engine does."""

import asyncio
import re
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from tests.service.prometheus import complaints, program, prometheus, seen
from tests.service.sockets import serving
from wowevent import Event, EventBus, Reject, RetryPolicy
from wowevent.broker import Subscription
from wowevent.errors import InvalidTopic, StorageFull
from wowevent.service import create_app, exposition
from wowevent.service.exposition import OPENMETRICS, TEXT
from wowevent.service.metrics import JSON, wanted

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text()
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
CURL = "*/*"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
async def busy(bus: EventBus) -> EventBus:
    """Twenty events: one subscription handles all, one fails with all, one rejects one, one is live."""

    async def handle(event: Event) -> None: ...

    async def fail(event: Event) -> None:
        raise RuntimeError("boom")

    async def reject(event: Event) -> None:
        if event.payload["n"] == 0:
            raise Reject("no")

    await bus.subscribe("task.*", handle, "good")
    retry = RetryPolicy(max_retries=1, initial=0.01)
    await bus.subscribe("task.*", fail, "bad", retry=retry, breaker=False)
    await bus.subscribe("task.*", reject, "choosy")
    await bus.subscribe("task.*", handle)
    for n in range(20):
        await bus.publish(Event(event_type="task.created", payload={"n": n}))
    await bus.join(10)
    return bus


async def ask(client: httpx.AsyncClient, accept: str) -> httpx.Response:
    answer = await client.get("/metrics", headers={"accept": accept})
    assert answer.status_code == 200, answer.text
    return answer


async def samples(client: httpx.AsyncClient) -> Samples:
    """Every series of the text, by name and labels."""
    families = read_text((await ask(client, TEXT)).text)
    return {(each.name, frozenset(each.labels.items())): each.value for one in families for each in one.samples}


def of(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


# --- JSON ---------------------------------------------------------------------------------------------------------


async def test_the_questions_of_the_runbook(busy: EventBus, client: httpx.AsyncClient) -> None:
    found = (await client.get("/metrics")).json()

    assert set(found["latency"]) == {"p50", "p95", "p99", "mean", "max", "count"}  # jq '.latency'
    assert 0 < found["latency"]["p50"] <= found["latency"]["p95"] <= found["latency"]["p99"] <= found["latency"]["max"]
    assert found["subscribers"]["health"] == {"healthy": 2, "degraded": 1, "unhealthy": 1}  # jq '.subscribers.health'
    assert found["totals"]["errors"] == 41  # jq '.totals.errors, .event_types'
    assert found["event_types"]["task.created"] == {"publishes": 20, "deliveries": 59, "errors": 41}
    assert {"total", "health", "by_name"} == set(found["subscribers"])  # jq '.subscribers'
    assert found["subscribers"]["health"]["unhealthy"] == 1  # jq '.subscribers.health.unhealthy'
    assert next(iter(found["subscribers"]["by_name"].values()))["error_rate"] == 1.0
    assert found["throughput"]["publishes"]["per_second"] > 0  # the Key Metrics of the README
    assert {name: found["totals"][name] for name in ("publishes", "deliveries", "retries", "dlq")} == {
        "publishes": 20,
        "deliveries": 59,
        "retries": 20,
        "dlq": 21,
    }


async def test_it_is_what_the_bus_says(busy: EventBus, client: httpx.AsyncClient) -> None:
    shown, own = (await client.get("/metrics")).json(), await busy.metrics.get_metrics()

    for name in ("totals", "latency", "event_types"):
        assert shown[name] == own[name]
    assert set(shown) == set(own)


async def test_a_new_bus_has_nothing_to_tell(client: httpx.AsyncClient) -> None:
    found = (await client.get("/metrics")).json()

    assert set(found["totals"].values()) == {0}
    assert found["latency"]["p99"] == 0.0
    assert complaints((await ask(client, TEXT)).content) == ""


# --- who gets what ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", JSON),
        (CURL, JSON),
        (JSON, JSON),
        (BROWSER, JSON),
        ("image/png", JSON),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_3, OPENMETRICS),
        ("text/plain", TEXT),
        ("text/plain, */*", TEXT),
        ("Text/Plain;Version=0.0.4;Q=0.5,*/*;q=0.5", TEXT),
        ("text/plain;q=0.5,*/*;q=0.6", JSON),
        ("text/plain;q=0.4,application/json;q=0.5,*/*", JSON),
        ("text/plain;q=0.4,application/json;q=0.3,*/*", TEXT),  # what is named counts, not the rest
        ("text/plain;q=0.4,application/*;q=0.5", JSON),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text,text/plain", OPENMETRICS),
        ("application/openmetrics-text;q=0.5,text/plain", TEXT),
        ("application/openmetrics-text;q=0,text/plain;q=0.1", TEXT),
        ("text/plain;q=0", JSON),
        ("text/plain;q=nan,*/*;q=0.1", JSON),
        ("text/plain;q=many", JSON),
        (";;,,=;q", JSON),
    ],
)
async def test_whoever_asks_for_it_by_name_gets_prometheus_text(
    client: httpx.AsyncClient, accept: str, media: str
) -> None:
    assert wanted(accept) == media
    answer = await ask(client, accept)
    assert answer.headers["content-type"].partition(";")[0] == media
    assert (answer.headers["vary"], answer.headers["cache-control"]) == ("accept", "no-store")


async def test_the_formats_say_their_version(client: httpx.AsyncClient) -> None:
    assert (await ask(client, TEXT)).headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    told = (await ask(client, OPENMETRICS)).headers["content-type"]
    assert told == "application/openmetrics-text; version=1.0.0; charset=utf-8"


async def test_several_accept_headers_are_one(client: httpx.AsyncClient) -> None:
    answer = await client.get("/metrics", headers=[("accept", "*/*;q=0.1"), ("accept", TEXT)])
    assert answer.headers["content-type"].startswith(TEXT)


async def test_a_scrape_comes_from_anywhere_unless_only_loopback_is_served_and_no_web_page_does(bus: EventBus) -> None:
    async def status(hosts: tuple[str, ...] | None, **headers: str) -> int:
        transport = httpx.ASGITransport(create_app(bus, hosts=hosts))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            return (await client.get("/metrics", headers={"accept": PROMETHEUS_2, **headers})).status_code

    assert await status(None, host="10.1.2.3:8080") == 200
    assert await status(None, host="event-bus-service.waooaw.svc:8080") == 200
    assert await status(("127.0.0.1",), host="127.0.0.1:8080") == 200
    assert await status(("127.0.0.1",), host="evil.example") == 403
    assert await status(None, host="10.1.2.3:8080", origin="https://evil.example") == 403


# --- what Prometheus reads ----------------------------------------------------------------------------------------


async def test_promtool_has_no_complaint(busy: EventBus, client: httpx.AsyncClient) -> None:
    await busy.metrics.record_delivery('ty"pe\\', 'a "name" with \\ and ü', 0.1)
    text = (await ask(client, TEXT)).content

    assert b'wowevent_published_events_total{type="task.created"} 20' in text
    assert complaints(text) == ""
    assert "no help text" in complaints(text.replace(b"# HELP wowevent_retries_total", b"# ")), "it does look"


async def test_openmetrics_says_the_same(busy: EventBus, client: httpx.AsyncClient) -> None:
    families = list(read_openmetrics((await ask(client, OPENMETRICS)).text))
    found = {(each.name, frozenset(each.labels.items())): each.value for one in families for each in one.samples}

    text = await samples(client)
    assert set(found) == set(text)
    passing = ("wowevent_engine_latency_seconds", "process_")
    assert {key: value for key, value in found.items() if not key[0].startswith(passing)} == {
        key: value for key, value in text.items() if not key[0].startswith(passing)
    }


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="processes tell of themselves where there is a /proc")
async def test_the_process_says_since_when_it_runs_and_what_it_uses(client: httpx.AsyncClient) -> None:
    found = await samples(client)

    assert abs((of(found, "process_start_time_seconds") or 0) - psutil.Process().create_time()) < 5
    assert (of(found, "process_resident_memory_bytes") or 0) > 1_000_000
    assert 0 < (of(found, "process_open_fds") or 0) < (of(found, "process_max_fds") or 0)
    assert (of(found, "process_cpu_seconds_total") or 0) > 0


async def test_the_numbers(busy: EventBus, client: httpx.AsyncClient) -> None:
    found = await samples(client)

    assert of(found, "wowevent_published_events_total", type="task.created") == 20
    outcomes = {
        (name, outcome): of(found, "wowevent_deliveries_total", subscription=f"{name}~task.*", outcome=outcome)
        for name in ("good", "bad", "choosy")
        for outcome in ("ok", "failed", "rejected")
    }
    assert {key: value for key, value in outcomes.items() if value} == {
        ("good", "ok"): 20,
        ("bad", "failed"): 40,
        ("choosy", "ok"): 19,
        ("choosy", "rejected"): 1,
    }
    assert of(found, "wowevent_deliveries_total", subscription="live", outcome="ok") == 20
    assert of(found, "wowevent_delivery_seconds_count", subscription="bad~task.*") == 40
    assert of(found, "wowevent_delivery_seconds_bucket", subscription="bad~task.*", le="+Inf") == 40
    assert of(found, "wowevent_delivery_seconds_bucket", subscription="bad~task.*", le="30.0") == 40
    assert (of(found, "wowevent_delivery_seconds_sum", subscription="bad~task.*") or 0) > 0
    assert of(found, "wowevent_retries_total", subscription="bad~task.*") == 20
    assert of(found, "wowevent_dead_lettered_events_total", subscription="bad~task.*") == 20
    for name in ("redelivered", "expired", "lost", "dropped"):
        assert of(found, f"wowevent_{name}_events_total", subscription="bad~task.*") == 0
    health = {
        label: of(found, "wowevent_subscription_health", subscription="bad~task.*", health=label)
        for label in ("healthy", "degraded", "unhealthy")
    }
    assert health == {"healthy": 0, "degraded": 0, "unhealthy": 1}
    assert of(found, "wowevent_dead_letters", subscription="bad~task.*") == 20
    assert of(found, "wowevent_dead_letters", subscription="good~task.*") == 0
    assert of(found, "wowevent_subscription_consumers", subscription="good~task.*") == 1
    for code in ("broker_unavailable", "storage_full"):  # from the start
        assert of(found, "wowevent_refused_events_total", code=code) == 0
    assert of(found, "wowevent_subscriptions_lapsed") == 0
    assert of(found, "wowevent_live_subscriptions") == 1
    assert of(found, "wowevent_engine_up") == 1
    assert of(found, "wowevent_engine_latency_seconds") == 0.0, "memory answers at once"
    assert (of(found, "wowevent_tasks") or 0) >= 1
    build = next(dict(labels) for name, labels in found if name == "wowevent_build_info")
    assert set(build) == {"version", "engine", "namespace"}
    assert (build["engine"], build["namespace"]) == ("memory", "default")


async def test_a_backlog_is_seen(bus: EventBus, client: httpx.AsyncClient) -> None:
    await bus.broker.declare(Subscription(id="idle", patterns=("a",)))
    assert of(await samples(client), "wowevent_subscription_oldest_seconds", subscription="idle") == 0
    await bus.publish_many([Event(topic="a") for _ in range(3)])
    await bus.broker.fetch("idle", limit=1, wait=0)
    await asyncio.sleep(0.01)
    found = await samples(client)
    assert of(found, "wowevent_subscription_ready_events", subscription="idle") == 2
    assert of(found, "wowevent_subscription_leased_events", subscription="idle") == 1
    assert of(found, "wowevent_subscription_delayed_events", subscription="idle") == 0
    assert (of(found, "wowevent_subscription_oldest_seconds", subscription="idle") or 0) >= 0.01


async def test_what_the_engine_does_not_take_is_counted(tmp_path: Path) -> None:
    async with EventBus(f"sqlite:///{tmp_path / 'events.db'}") as bus:
        session = bus.broker._session  # type: ignore[attr-defined]  # noqa: SLF001 - its file may not grow any more
        await session.write(lambda store: store.db.pragma("max_page_count", store.db.pragma("page_count") + 2))
        with pytest.raises(StorageFull):
            await bus.publish_many([Event(topic="a", payload={"pad": "x" * 4000}) for _ in range(30)])
        with pytest.raises(InvalidTopic):  # that is the publisher's own fault
            await bus.publish(Event(topic="_bus.a"))
        transport = httpx.ASGITransport(create_app(bus))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
            assert of(await samples(client), "wowevent_refused_events_total", code="storage_full") == 30
            assert (await ask(client, JSON)).json()["totals"]["refused"] == 30
            with pytest.raises(TimeoutError):  # and so is the end of his patience
                async with asyncio.timeout(0):
                    await bus.publish(Event(topic="a"))
            assert bus.metrics.refusals() == {"storage_full": 30}
    bus.metrics.reset()
    assert not bus.metrics.refusals()


async def test_the_series_of_subscriptions_are_bounded_and_nothing_is_left_out_of_their_sum(
    bus: EventBus, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(6):
        await bus.broker.declare(Subscription(id=f"s{n}", patterns=tuple(f"t{m}" for m in range(n + 1))))
    await bus.broker.declare(Subscription(id="other", patterns=("t0", "t1", "t2", "t3", "t4", "t5")))
    await bus.publish_many([Event(topic=f"t{n}") for n in range(6)])

    def ready(found: Samples) -> dict[str, float]:
        return {dict(labels)["subscription"]: value for (name, labels), value in found.items() if "ready" in name}

    assert len(ready(await samples(client))) == 7
    monkeypatch.setattr(exposition, "MOST", 3)
    found = await samples(client)
    assert ready(found) == {"s5": 6, "s4": 5, "s3": 4, "other": 1 + 2 + 3 + 6}
    assert (of(found, "wowevent_subscription_oldest_seconds", subscription="other") or 0) > 0
    assert complaints((await ask(client, TEXT)).content) == ""


async def test_nothing_of_it_is_global(busy: EventBus, client: httpx.AsyncClient) -> None:
    async with EventBus("memory://") as other:
        transport = httpx.ASGITransport(create_app(other))
        async with httpx.AsyncClient(transport=transport, base_url="http://bus") as second:
            assert of(await samples(second), "wowevent_published_events_total", type="task.created") is None
            assert of(await samples(client), "wowevent_published_events_total", type="task.created") == 20
    assert b"wowevent" not in prometheus_client.generate_latest()


# --- whatever the engine does -------------------------------------------------------------------------------------


@pytest.fixture
async def away() -> AsyncIterator[httpx.AsyncClient]:
    """A service whose engine is not there."""
    bus = EventBus("redis://127.0.0.1:1")
    bus.metrics.published("a.b", 3)
    bus.metrics.meter("w~a.b", "w").took("a.b", 0.1)
    transport = httpx.ASGITransport(create_app(bus))
    async with httpx.AsyncClient(transport=transport, base_url="http://bus") as client:
        yield client
    await bus.stop()


async def test_an_engine_that_is_away(away: httpx.AsyncClient) -> None:
    assert (await away.get("/metrics")).json()["totals"]["publishes"] == 3
    found = await samples(away)
    assert of(found, "wowevent_engine_up") == 0
    assert of(found, "wowevent_engine_latency_seconds") is None
    assert of(found, "wowevent_published_events_total", type="a.b") == 3
    assert of(found, "wowevent_deliveries_total", subscription="w~a.b", outcome="ok") == 1
    assert not any("ready" in name for name, _ in found)
    assert complaints((await ask(away, TEXT)).content) == ""


async def test_an_engine_that_is_silent(
    busy: EventBus, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never() -> Any:
        await asyncio.sleep(60)

    monkeypatch.setattr(exposition, "_PATIENCE", 0.1)
    monkeypatch.setattr(busy, "subscriptions", never)
    began = time.monotonic()
    assert of(await samples(client), "wowevent_engine_up") == 0
    assert time.monotonic() - began < 5


async def test_through_the_life_of_a_bus() -> None:
    bus = EventBus("memory://")
    app = create_app(bus)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bus") as client:
        assert (await ask(client, JSON)).json()["totals"]["publishes"] == 0
        await bus.start()
        assert of(await samples(client), "wowevent_engine_up") == 1
        app.state.draining = True
        assert (await ask(client, JSON)).status_code == 200
        assert of(await samples(client), "wowevent_engine_up") == 1
        await bus.stop()
        assert of(await samples(client), "wowevent_engine_up") == 0
        app.state.bus = None
        for accept in (JSON, TEXT):
            answer = await client.get("/metrics", headers={"accept": accept})
            assert (answer.status_code, answer.json()["error"]) == (503, "closed")


# --- the page -----------------------------------------------------------------------------------------------------


async def test_the_page_names_every_metric_and_no_other(busy: EventBus, client: httpx.AsyncClient) -> None:
    text = (await ask(client, TEXT)).text
    shown = set(re.findall(r"^\| `((?:wowevent|process)_\w+)`", PAGE, re.MULTILINE))
    assert shown == set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


async def test_the_page_names_every_field(busy: EventBus, client: httpx.AsyncClient) -> None:
    found = (await client.get("/metrics")).json()
    said = PAGE.partition("## For Prometheus")[0]
    nested = [*found["totals"], *found["throughput"], *found["latency"], *found["subscribers"]]
    for name in (*found, *nested, *next(iter(found["subscribers"]["by_name"].values()))):
        assert re.search(rf"\b{name}\b", said), name


def test_the_configuration_of_the_page_is_valid(tmp_path: Path) -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = tmp_path / "prometheus.yml"
    file.write_text(text)
    done = subprocess.run([program("promtool"), "check", "config", str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


# --- Prometheus itself --------------------------------------------------------------------------------------------


async def test_prometheus_scrapes_it_and_knows_our_series(busy: EventBus, tmp_path: Path) -> None:
    async with serving(busy) as served, httpx.AsyncClient() as asking:
        with prometheus(tmp_path / "prometheus", served.url.removeprefix("http://")) as url:

            async def query(text: str) -> dict[str, float]:
                """The value by subscription or type, once there is one."""
                series = [(one["metric"], float(one["value"][1])) for one in await seen(asking, url, text)]
                return {labels.get("subscription") or labels.get("type", ""): value for labels, value in series}

            assert await query("up{job='wowevent'} == 1") == {"": 1}
            assert await query("wowevent_published_events_total") == {"task.created": 20}
            assert await query("wowevent_deliveries_total{outcome='failed'} > 0") == {"bad~task.*": 40}
            assert await query("wowevent_dead_letters > 0") == {"bad~task.*": 20, "choosy~task.*": 1}
            assert await query("wowevent_subscription_health{health='unhealthy'} == 1") == {"bad~task.*": 1}
            quantile = "histogram_quantile(0.95, wowevent_delivery_seconds_bucket{subscription='good~task.*'})"
            assert 0 < (await query(quantile))["good~task.*"] < 30
            assert await query("wowevent_engine_up") == {"": 1}
            targets = (await asking.get(f"{url}/api/v1/targets")).json()["data"]["activeTargets"]
            assert [(target["health"], target["lastError"]) for target in targets] == [("up", "")]
