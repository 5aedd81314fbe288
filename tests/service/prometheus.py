"""A real Prometheus, and its promtool."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.servers import WITHIN, free_port

T = TypeVar("T")


def program(name: str) -> str:
    """Where it is: on the PATH, or where scripts/servers.sh unpacks it."""
    unpacked = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wowevent" / "prometheus"
    found = shutil.which(name) or shutil.which(name, path=str(unpacked))
    if found is None:
        raise AssertionError(f"{name} is not there: make servers")
    return found


def complaints(text: bytes) -> str:
    """What `promtool check metrics` has to say of it; nothing if it is well."""
    command = [program("promtool"), "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, timeout=WITHIN, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode or not said
    return f"{said} (exit {done.returncode})" if done.returncode else ""


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """The URL of one that scrapes `target` (host:port) five times a second; ended with the block."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(
        "scrape_configs:\n"
        f"  - {{job_name: wowevent, scrape_interval: 200ms, scrape_timeout: 200ms,"
        f" static_configs: [{{targets: ['{target}']}}]}}\n"
    )
    with prometheus_in(folder) as url:
        yield url


@contextmanager
def prometheus_in(folder: Path) -> Iterator[str]:
    """The URL of one that does what `folder`'s prometheus.yml says; ended with the block."""
    port = free_port()
    options = ["--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program("prometheus"), *options], cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait(WITHIN)


async def query(asking: httpx.AsyncClient, url: str, text: str) -> list[dict[str, Any]]:
    """What it knows now: each series' `metric` and `value`; nothing before it answers. What it cannot read fails."""
    try:
        answer = await asking.get(f"{url}/api/v1/query", params={"query": text})
    except httpx.TransportError:
        return []
    assert answer.status_code in {200, 503}, f"{text}: {answer.text}"
    found: list[dict[str, Any]] = answer.json()["data"]["result"] if answer.status_code == 200 else []
    return found


async def seen(asking: httpx.AsyncClient, url: str, text: str) -> list[dict[str, Any]]:
    """The same, once there is something."""
    return await eventually(lambda: query(asking, url, text))


async def eventually(look: Callable[[], Awaitable[T]]) -> T:
    """What `look` finds, as soon as it is something."""
    async with asyncio.timeout(WITHIN):
        while True:
            if found := await look():
                return found
            await asyncio.sleep(0.1)
