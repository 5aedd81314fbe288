"""The JSON and YAML of the pages, and the frames they show: given to what reads them, or held against what is said."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import httpx2
import jwt
import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from websockets.asyncio.client import ClientConnection, connect

from tests.documents.pages import ROOT, blocks
from tests.documents.shell import PATH
from tests.keys import SECRET, Keys
from tests.mcp.clients import Tools, served
from tests.processes import environment
from tests.service.prometheus import program
from wowevent import EventBus
from wowevent.access.keyring import Keyring
from wowevent.router import EventRouter
from wowevent.service import create_app, drain

PROBLEM = blocks("docs/http.md", "json")
ASSISTANTS = blocks("docs/mcp.md", "json")
LOOKED_AT = blocks("docs/running.md", "json")
CLAIMS = blocks("docs/security.md", "json")
SUBSCRIPTIONS = blocks("docs/websocket.md", "json")
SCRAPED = blocks("docs/monitoring.md", "yaml")
ROLLED = blocks("docs/scaling.md", "yaml")
RUNS = [*PROBLEM, *ASSISTANTS, *LOOKED_AT, *CLAIMS, *SUBSCRIPTIONS, *SCRAPED, *ROLLED]
DEPLOYMENT = ROOT / "infrastructure" / "kubernetes" / "event-bus-deployment.yaml"


def like(shown: Any, said: Any) -> bool:
    """Whether what is said has the shape that is shown: its names, its types, and its texts around each `…`."""
    match shown:
        case {"…": _}:
            return isinstance(said, dict)
        case dict():
            return (
                isinstance(said, dict) and shown.keys() == said.keys() and all(like(shown[k], said[k]) for k in shown)
            )
        case list():
            return isinstance(said, list) and all(like(shown[0], each) for each in said)
        case str() if "…" in shown:
            return bool(re.fullmatch(".*".join(map(re.escape, shown.split("…"))), str(said), re.DOTALL))
        case float() | int():
            return isinstance(said, int | float)
        case _:
            return type(shown) is type(said)


def parsed(text: str) -> Any:
    """JSON in which `…` may stand for what an object, or a list's end, has besides."""
    return json.loads(text.replace("{…}", '{"…": 0}').replace(",…}", "}"))


@pytest.mark.parametrize(
    ("shown", "said", "fits"),
    [
        ({"a": "…"}, {"a": "x"}, True),
        ({"a": "x …"}, {"a": "y z"}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({"a": 1}, {"a": "1"}, False),
        ({"a": [{"b": 1}]}, {"a": [{"b": 2.5}, {"b": 3}]}, True),
        ({"a": [{"b": 1}]}, {"a": [{"c": 1}]}, False),
        ({"a": {"…": 0}}, {"a": {"c": 1}}, True),
        ({"a": {"…": 0}}, {"a": None}, False),
    ],
)
def test_a_shape_is_compared(shown: Any, said: Any, fits: bool) -> None:
    assert like(shown, said) is fits


# --- JSON -------------------------------------------------------------------------------------------------------------


@pytest.fixture
async def bus() -> AsyncIterator[EventBus]:
    async with EventBus("memory://") as bus:
        yield bus


async def test_the_problem_of_the_http_page(bus: EventBus) -> None:
    (block,) = PROBLEM
    app = create_app(bus, hosts=("bus",))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bus") as client:
        said = (await client.post("/events", json={"topic": "a b", "payload": {}})).json()
    await drain(app)
    shown = parsed(block.text)
    assert like(shown, said), said
    assert {name: said[name] for name, value in shown.items() if "…" not in str(value)} == {
        name: value for name, value in shown.items() if "…" not in str(value)
    }


async def test_an_assistant_that_is_configured_so_has_the_tools(tmp_path: Path) -> None:
    """The first configuration starts the server as it says, in an environment in which the command is found."""
    stdio, http = [json.loads(block.text)["mcpServers"]["wowevent"] for block in ASSISTANTS]
    given = {**stdio["env"], "WOWEVENT_URL": "sqlite:///events.db"}
    assert given.keys() == stdio["env"].keys()
    command = StdioServerParameters(
        command=stdio["command"], args=stdio["args"], env=environment(tmp_path, PATH=PATH, **given), cwd=tmp_path
    )
    with (tmp_path / "err.txt").open("w") as err:
        async with asyncio.timeout(30), Client(stdio_client(command, errlog=err)) as client:
            assert "publish" in await Tools(client).names()

    assert http["type"] == "http"
    keys = Keys(tmp_path)
    headers = {name: value.replace("wow_…", keys.all_of("operator")) for name, value in http["headers"].items()}
    async with served("memory://", keyring=keys.ring()) as at:
        assert at.endswith(http["url"].rpartition(":8090")[2])
        async with (
            asyncio.timeout(30),
            httpx2.AsyncClient(headers=headers, timeout=20) as connection,
            Client(streamable_http_client(at, http_client=connection)) as client,
        ):
            assert "history" in await Tools(client).names()


def test_the_claims_of_the_security_page_are_understood() -> None:
    (block,) = CLAIMS
    claims = json.loads(block.text)
    key = jwt.utils.base64url_encode(SECRET).decode()
    ring = Keyring(
        claims["namespace"],
        jwt_keys=json.dumps({"keys": [{"kid": "k1", "kty": "oct", "alg": "HS256", "k": key}]}),
        jwt_audience=claims["aud"],
        jwt_issuer=claims["iss"],
        clock=lambda: claims["exp"] - 60.0,
    )
    identity = ring.identify(jwt.encode(claims, SECRET, algorithm="HS256", headers={"kid": "k1"}))
    assert identity.name == claims["sub"]
    assert identity.expires == claims["exp"]


async def test_the_subscriptions_of_the_websocket_page_are_taken(bus: EventBus) -> None:
    anonymous, named = [json.loads(block.text) for block in SUBSCRIPTIONS]
    async with EventRouter(port=0, bus=bus) as router, asyncio.timeout(10), connect(router.url) as socket:
        for wanted in (anonymous, named):
            said = await told(socket, {"type": "subscribe", "subscription": wanted}, "subscribed")
            assert said["topics"] == wanted["topics"]
    assert [each.subscription.agent for each in await bus.subscriptions()] == [named["name"]]


async def told(socket: ClientConnection, frame: dict[str, Any], answer: str) -> dict[str, Any]:
    """The next frame of that type."""
    await socket.send(json.dumps(frame))
    while True:
        said: dict[str, Any] = json.loads(await socket.recv())
        assert said["type"] != "error", said
        if said["type"] == answer:
            return said


# --- frames that a page shows -----------------------------------------------------------------------------------------

SHOWN = [block for block in blocks("docs/websocket.md", "", "text") if block.text.startswith("< ")]


@pytest.mark.parametrize("block", SHOWN, ids=str)
async def test_frames_are_as_they_are_shown(bus: EventBus, tmp_path: Path, block: Any) -> None:
    """What goes out is sent as it stands; what comes in has the same names and the same texts."""
    keys = Keys(tmp_path)
    secret = keys.all_of("worker-1")
    ring = keys.ring() if "wow_…" in block.text else None
    sent = [line.removeprefix("> ") for line in block.text.splitlines() if line.startswith("> ")]
    shown = [line.removeprefix("< ") for line in block.text.splitlines() if line.startswith("< ")]
    async with EventRouter(port=0, bus=bus, keyring=ring) as router, asyncio.timeout(10), connect(router.url) as socket:
        for line in sent:
            await socket.send(line.replace("wow_…", secret))
        said = [json.loads(await socket.recv()) for _ in shown]
    by_type = {each["type"]: each for each in said}
    for line in shown:
        frame = json.loads(re.sub(r",…\}", "}", line))
        got = by_type[frame["type"]]
        assert frame.keys() <= got.keys() if ",…}" in line else frame.keys() == got.keys(), got
        for name, value in frame.items():
            if name not in {"server_time", "position", "event"}:
                assert like(value, got[name]), f"{line}\n{got}"


# --- YAML -------------------------------------------------------------------------------------------------------------


def test_prometheus_takes_the_configuration(tmp_path: Path) -> None:
    (block,) = SCRAPED
    (tmp_path / "prometheus.yml").write_text(block.text)
    command = [program("promtool"), "check", "config", "prometheus.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kubernetes_takes_the_fields_of_the_page_and_our_manifest_has_them() -> None:
    (block,) = ROLLED
    fields = yaml.safe_load(block.text)
    ours = next(each for each in yaml.safe_load_all(DEPLOYMENT.read_text()) if each["kind"] == "Deployment")
    wanted = deepcopy(ours)
    pod = wanted["spec"]["template"]["spec"]
    wanted["spec"]["strategy"] |= fields.pop("strategy")
    pod["containers"][0]["readinessProbe"] |= fields.pop("readinessProbe")
    pod |= fields
    assert fields.keys() == {"terminationGracePeriodSeconds"}
    assert kubernetes_validate.validate(wanted, "1.31", strict=True)
    assert pod["terminationGracePeriodSeconds"] == ours["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert wanted["spec"]["strategy"] == ours["spec"]["strategy"]
