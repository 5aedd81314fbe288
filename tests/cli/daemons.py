"""Services in the background: started, asked and looked for, each in a home of its own."""

import json
import socket
from pathlib import Path
from typing import Any

import psutil

from tests.processes import wowevent

PORTS = ("--port", "0", "--http-port", "0")


def started(home: Path, *options: str, **changes: Any) -> dict[str, Any]:
    """What `start --daemon` says of the service that it started, on ports that are free."""
    done = wowevent(home, "start", "--daemon", "--json", *PORTS, *options, **changes)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said["state"] == "started"
    return said


def status(home: Path) -> tuple[int, dict[str, Any]]:
    """The exit status of `status`, and what it says."""
    done = wowevent(home, "status", "--json")
    assert done.stderr == b""
    return done.returncode, json.loads(done.stdout)


def processes_of(home: Path) -> list[psutil.Process]:
    """All that run with this home."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_all(home: Path) -> None:
    """Kill all that run with this home."""
    left = processes_of(home)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


def data(home: Path) -> Path:
    """The data directory."""
    return home / ".local" / "share" / "wowevent"


def free_port() -> int:
    """A port that nobody has just now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
