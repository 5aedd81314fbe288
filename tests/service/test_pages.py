"""GET / and /assets/…: the pages as they are served, and what the browser is told about them."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from wowevent.access.keyring import Keyring
from wowevent.service import create_app
from wowevent.service.pages import assets

ROOT = Path(__file__).parents[2]
SITE = ROOT / "src" / "wowevent" / "site"
OWN = [
    each for each in SITE.rglob("*") if each.suffix in {".js", ".css", ".html", ".svg"} and each.parent.name != "vendor"
]
NAMES = sorted(str(each.relative_to(SITE)) for each in OWN)


def test_there_are_files() -> None:
    assert {"index.html", "app.js", "kit.js", "pages/events.js", "vendor/uplot.js"} <= set(assets())
    assert set(NAMES) < set(assets())


async def test_the_page_is_served_to_whoever_asks(client: httpx.AsyncClient) -> None:
    for accept in ("text/html", "application/json", "*/*"):
        answer = await client.get("/", headers={"accept": accept})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "<title>WowEvent</title>" in answer.text
    assert (await client.head("/")).status_code == 200
    assert (await client.post("/")).status_code == 405


async def test_all_that_the_page_asks_for_is_there(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    asked = re.findall(r'(?:href|src)="(/[^"]+)"', page)
    assert len(asked) > 3
    for path in asked:
        assert (await client.get(path)).status_code == 200, path


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith(".js")])
def test_what_a_module_imports_is_there(name: str) -> None:
    for found in re.findall(r'from "(\.[^"]+)"', (SITE / name).read_text()):
        assert (SITE / name).parent.joinpath(found).resolve().is_file(), found


async def test_types_and_headers(client: httpx.AsyncClient) -> None:
    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".html": "text/html"}
    for name in assets():
        answer = await client.get(f"/assets/{name}")
        assert answer.headers["content-type"].startswith(types[Path(name).suffix])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-cache"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


async def test_a_browser_that_has_it_is_told_so(client: httpx.AsyncClient) -> None:
    first = await client.get("/assets/app.js")
    again = await client.get("/assets/app.js", headers={"if-none-match": f'W/"x", {first.headers["etag"]}'})
    other = await client.get("/assets/app.js", headers={"if-none-match": '"other"'})

    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert other.status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "vendor/README.md",
        "vendor/htm.LICENSE",
        "pages",
        "",
        "nothing.js",
        "../service/pages.py",
        "..%2fservice%2fpages.py",
        "%2e%2e/log.py",
        "/etc/passwd",
        "pages%5cevents.js",
    ],
)
async def test_nothing_else_is_served(client: httpx.AsyncClient, name: str) -> None:
    answer = await client.get(f"/assets/{name}")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


async def test_the_files_are_open_and_the_data_is_not(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"version": 1, "tokens": []}')
    tokens.chmod(0o600)
    app = create_app(None, hosts=("bus",), keyring=Keyring("default", tokens=str(tokens)))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bus") as client:
        assert (await client.get("/")).status_code == 200
        assert (await client.get("/assets/app.js")).status_code == 200
        assert (await client.get("/subscriptions")).status_code == 401


def test_what_is_taken_from_others_is_as_published() -> None:
    vendor = SITE / "vendor"
    said = dict(
        re.findall(r"^\| `([\w.-]+)` \|.*`([0-9a-f]{64})` \|$", (vendor / "README.md").read_text(), re.MULTILINE)
    )
    files = {each.name for each in vendor.iterdir() if each.suffix in {".js", ".css"}}

    assert set(said) == files
    for name, expected in said.items():
        assert hashlib.sha256((vendor / name).read_bytes()).hexdigest() == expected, name
    for licence in ("htm", "preact", "uplot"):
        assert (vendor / f"{licence}.LICENSE").stat().st_size > 500


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_from_elsewhere_and_nothing_gets_past_the_policy(name: str) -> None:
    text = (SITE / name).read_text()
    elsewhere = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text)
    assert [each for each in elsewhere if "www.w3.org" not in each] == []
    for forbidden in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert forbidden not in text
    assert not re.search(r'\bstyle="|<style|\son\w+="', text), "the policy would not let it"


def test_an_installed_wheel_has_them(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=50)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(installed)
    look = "import wowevent.service.pages as p; print(p.__file__); print(*sorted(p.assets()))"
    said = subprocess.run(
        [sys.executable, "-c", look], env={"PYTHONPATH": str(installed)}, cwd=tmp_path, check=True, capture_output=True,
        text=True, timeout=30,
    ).stdout.splitlines()  # fmt: skip
    assert said[0].startswith(str(installed))
    assert said[1].split() == sorted(assets())
    assert (installed / "wowevent" / "site" / "vendor" / "htm.LICENSE").is_file()
