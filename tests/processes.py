"""Real processes of `wowevent`, each with a home of its own: commands that end, and services that are told to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Protocol, TypeVar

import httpx

from tests.forked import Forks
from tests.zygote import take_terminal

T = TypeVar("T")

Files = tuple[int, int, int]

PATIENCE = 60.0  # many processes start at a time on two cores
_NOTHING = Path(os.devnull)


def environment(home: Path, **changes: str) -> dict[str, str]:
    """This one's, with a private home and without what could configure the bus."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("WOWEVENT_", "XDG_"))
        and name not in {"REDIS_URL", "PORT", "LOG_LEVEL", "EVENT_BUS_ENABLED"}
    }
    return {**own, "HOME": str(home), "PYTHONUNBUFFERED": "1", **changes}


class Process(Protocol):
    """What a test does with a process: what `subprocess.Popen` and `tests.forked.Forked` have in common."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


def start(
    command: Sequence[str],
    home: Path,
    env: dict[str, str],
    files: Files,
    *,
    terminal: bool = False,
    from_nothing: bool = False,
) -> Process:
    """`python -m COMMAND…` in `home`, with these as its stdin, stdout and stderr.

    With `terminal` it leads a session whose terminal stdin is. It is a fork of a process that has all imports behind
    it, unless it has to start from nothing.
    """
    if not from_nothing and _forks.can(env):
        module, *arguments = command
        order = {"module": module, "arguments": arguments, "cwd": str(home), "environment": env, "terminal": terminal}
        return _forks.fork(order, files)
    stdin, stdout, stderr = files
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=home,
        env=env,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=terminal,
        preexec_fn=take_terminal if terminal else None,  # noqa: PLW1509 - one call to the system, between fork and exec
    )


def _is_looked_for(command: Sequence[str]) -> bool:
    """Whether `status` finds it by its command line, and tests by its environment: by what /proc says of its start."""
    return command[0] == "wowevent" and command[1] in {"serve", "start", "run"}


_forks = Forks()


def wowevent(
    home: Path, *arguments: str, stdin: bytes | None = None, timeout: float = PATIENCE, **changes: str
) -> subprocess.CompletedProcess[bytes]:
    """One command, run to its end in `home`. Without `stdin` there is nothing to read: /dev/null."""
    with TemporaryFile() as out, TemporaryFile() as err:
        given, say = (_NOTHING.open("rb"), None) if stdin is None else _pipe()
        with given:
            files = (given.fileno(), out.fileno(), err.fileno())
            process = start(("wowevent", *arguments), home, environment(home, **changes), files)
        try:
            if say is not None:
                with suppress(BrokenPipeError), say:  # it may end before it has read all
                    say.write(stdin or b"")
            status = process.wait(timeout)
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, status, out.read(), err.read())


def told(home: Path, *arguments: str) -> list[dict[str, Any]]:
    """What a command with `--json` printed, line by line; it must end well."""
    done = wowevent(home, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def _pipe() -> tuple[IO[bytes], IO[bytes]]:
    """What is read, and what is written."""
    read, write = os.pipe()
    return os.fdopen(read, "rb"), os.fdopen(write, "wb")


@contextmanager
def running(home: Path, *command: str, **changes: str) -> Iterator[Process]:
    """`python -m COMMAND…` with its output in `out.txt` and `err.txt`; killed if it is still there at the end."""
    with (home / "out.txt").open("wb") as out, (home / "err.txt").open("wb") as err, _NOTHING.open("rb") as nothing:
        files = (nothing.fileno(), out.fileno(), err.fileno())
        env = environment(home, **changes)
        process = start(command, home, env, files, from_nothing=_is_looked_for(command))
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def end(process: Process, number: int = signal.SIGTERM) -> int:
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
        return found[0].removesuffix("/health").rstrip("/") if found else ""

    url = until(look, "the address")
    until(lambda: answers(f"{url}/health"), "an answer")
    return url


def answers(url: str) -> bool:
    try:
        return httpx.get(url).status_code > 0
    except httpx.TransportError:
        return False
