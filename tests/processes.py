"""Real processes of `wowevent`, each with a home of its own: commands that end, and services that are told to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

PATIENCE = 20.0


def environment(home: Path, **changes: str) -> dict[str, str]:
    """This one's, with a private home and without what could configure the bus."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WOWEVENT_", "XDG_"))
        and name not in {"REDIS_URL", "PORT", "LOG_LEVEL", "EVENT_BUS_ENABLED"}
    }
    return {**own, "HOME": str(home), "PYTHONUNBUFFERED": "1", **changes}


def wowevent(
    home: Path, *arguments: str, stdin: bytes | None = None, timeout: float = PATIENCE, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    """One command, run to its end in `home`. Without `stdin` there is nothing to read: /dev/null."""
    given: dict[str, Any] = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done: subprocess.CompletedProcess[bytes] = subprocess.run(
        [sys.executable, "-m", "wowevent", *arguments],
        cwd=home,
        env=environment(home, **changes),
        capture_output=True,
        timeout=timeout,
        check=False,
        **given,
    )
    return done


@contextmanager
def running(home: Path, *command: str, **changes: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m COMMAND…` with its output in `out.txt` and `err.txt`; killed if it is still there at the end."""
    with (home / "out.txt").open("wb") as out, (home / "err.txt").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=home,
            env=environment(home, **changes),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def end(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> int:
    """Its exit status after a signal, which it must heed within 20 s."""
    process.send_signal(number)
    return process.wait(PATIENCE)


def until(look: Callable[[], T], what: str) -> T:
    """What `look` finds, as soon as it is something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {PATIENCE:.0f} s")


def address(home: Path) -> str:
    """Where the service that runs in `home` says it is, once it is ready."""

    def look() -> str:
        lines = (home / "out.txt").read_text().splitlines() + (home / "err.txt").read_text().splitlines()
        found = [word for line in lines for word in line.replace("address=", " ").split() if word.startswith("http://")]
        return found[0].removesuffix("/health") if found else ""

    url = until(look, "the address")
    until(lambda: answers(f"{url}/health"), "an answer")
    return url


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code > 0
    except httpx.TransportError:
        return False
