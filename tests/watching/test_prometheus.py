"""A real Prometheus, with our rules, scrapes a real service over a real Redis: panels show something, alerts fire."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as read_text
from redis.asyncio import Redis

from tests.processes import address, running
from tests.servers import WITHIN, Server, redis_running
from tests.service.prometheus import eventually, prometheus_in, seen
from tests.watching.rules import PROMETHEUS, alerts, choices, expressions, names, panels, read, recorded
from wowevent import Event, Reject
from wowevent.client import EventRouterClient

EVERYTHING = {"$job": "wowevent.*", "$subscription": ".*", "$__rate_interval": "10s"}
SUBSCRIPTION = "worker"


class Watched(NamedTuple):
    """What runs."""

    redis: Server
    http: str
    websocket: str
    prometheus: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    folder = tmp_path_factory.mktemp("watched")
    home = folder / "home"
    home.mkdir()
    with redis_running(folder / "redis") as redis:
        serve = ("serve", "--url", f"redis://127.0.0.1:{redis.port}", "--port", "0", "--http-port", "0")
        with running(home, "wowevent", *serve):
            http = address(home)
            (websocket,) = re.findall(r"ws://\S+", (home / "out.txt").read_text())
            with prometheus_in(hurried(folder / "prometheus", http)) as url:
                yield Watched(redis, http, websocket, url)


def hurried(folder: Path, http: str) -> Path:
    """Our configuration for one target, and our rules, with seconds in place of their minutes."""
    config, said = read(PROMETHEUS / "prometheus.yml"), read(PROMETHEUS / "alerts.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "500ms"}
    (job,) = [each for each in config["scrape_configs"] if each["job_name"] == "wowevent"]
    job["static_configs"] = [{"targets": [http.removeprefix("http://")]}]
    del job["dns_sd_configs"]
    config["scrape_configs"] = [job]
    for group in said["groups"]:
        for rule in group["rules"]:
            if "for" in rule:
                rule["for"] = "1s"
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    (folder / "alerts.yml").write_text(yaml.safe_dump(said))
    return folder


@pytest.fixture
async def asking() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=WITHIN) as client:
        yield client


@pytest.fixture
async def busy(watched: Watched) -> AsyncIterator[None]:
    """A named subscription of a client of the router: it fails with some, rejects one, and is there all the time."""

    async def handle(event: Event) -> None:
        if event.payload["n"] == 0:
            raise Reject("not this one")
        if event.payload["n"] % 2:
            raise RuntimeError("boom")

    async with EventRouterClient(watched.websocket, agent="worker") as client:
        await client.subscribe("task.*", callback=handle, name=SUBSCRIPTION)
        for n in range(20):
            await client.publish("task.created", {"n": n})
        yield


async def told(asking: httpx.AsyncClient, watched: Watched) -> dict[str, list[dict[str, str]]]:
    """What the service exports: the labels of each series, by name."""
    text = (await asking.get(f"{watched.http}/metrics", headers={"accept": "text/plain"})).text
    found: dict[str, list[dict[str, str]]] = {}
    for family in read_text(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


async def test_every_series_that_a_rule_or_a_panel_names_is_exported_with_its_labels(
    watched: Watched, busy: None, asking: httpx.AsyncClient
) -> None:

    async def exports() -> dict[str, list[dict[str, str]]] | None:
        """Once the first delivery was counted."""
        found = await told(asking, watched)
        return found if "wowevent_subscription_health" in found else None

    exported = await eventually(exports)
    assert exported is not None
    made = recorded()
    for who, expression in expressions():
        assert names(expression) <= exported.keys() | made, who
        for name, label, operator, value in choices(expression):
            if label in {"job", "instance"}:
                continue
            values = {labels[label] for labels in exported[name]}
            if "$" not in value:
                assert value in values, f"{who}: {name}{{{label}{operator}{value!r}}}"


async def test_every_panel_shows_something(watched: Watched, busy: None, asking: httpx.AsyncClient) -> None:
    """Prometheus understands what they ask, and has an answer; a fallback, or a condition, does not count as one."""
    asked = {}
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace(" or vector(0)", "").replace(" == 1", "").replace(" >= 0", "")
            for name, value in EVERYTHING.items():
                text = text.replace(name, value)
            asked[text] = panel["title"]
    for text, panel in asked.items():
        assert await seen(asking, watched.prometheus, text), panel


async def firing(asking: httpx.AsyncClient, watched: Watched) -> dict[str, dict[str, Any]]:
    """The alerts that fire now, by name."""
    found = (await asking.get(f"{watched.prometheus}/api/v1/alerts")).json()["data"]["alerts"]
    return {each["labels"]["alertname"]: each for each in found if each["state"] == "firing"}


async def fired(asking: httpx.AsyncClient, watched: Watched, name: str) -> dict[str, Any]:
    """That alert, once it fires."""

    async def look() -> dict[str, Any] | None:
        return (await firing(asking, watched)).get(name)

    found = await eventually(look)
    assert found is not None
    return found


async def test_dead_letters_are_told_of(watched: Watched, busy: None, asking: httpx.AsyncClient) -> None:
    said = await fired(asking, watched, "WowEventDeadLetters")
    assert said["labels"]["severity"] == "warning"
    assert said["labels"]["subscription"].startswith(SUBSCRIPTION)
    assert "events within ten minutes" in said["annotations"]["summary"]


async def test_refused_publishes_are_told_of(watched: Watched, busy: None, asking: httpx.AsyncClient) -> None:
    await set_memory(watched.redis, "1")
    try:
        answer = await asking.post(f"{watched.http}/events", json={"topic": "task.refused"})
        assert answer.status_code == 507, answer.text
        said = await fired(asking, watched, "WowEventRefused")
    finally:
        await set_memory(watched.redis, "0")
    assert (said["labels"]["severity"], said["labels"]["code"]) == ("critical", "storage_full")
    assert "refused by the engine of wowevent: storage_full" in said["annotations"]["summary"]


async def set_memory(redis: Server, most: str) -> None:
    async with Redis(port=redis.port) as server:
        await server.config_set("maxmemory", most)


async def test_an_engine_that_is_killed_is_told_of_until_it_is_back(
    watched: Watched, asking: httpx.AsyncClient
) -> None:
    assert "WowEventEngineDown" not in await firing(asking, watched)
    watched.redis.kill()
    try:
        said = await fired(asking, watched, "WowEventEngineDown")
        assert "WowEventDown" not in await firing(asking, watched), "the service itself answers"
    finally:
        watched.redis.start()
    assert said["labels"]["severity"] == "critical"
    assert said["annotations"]["summary"] == "The engine of wowevent does not answer 1 of its processes"
    assert said["annotations"]["runbook_url"] == alerts()["WowEventEngineDown"]["annotations"]["runbook_url"]

    async def over() -> bool:
        return "WowEventEngineDown" not in await firing(asking, watched)

    assert await eventually(over)
