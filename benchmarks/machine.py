"""What a figure was measured on: without it the figure says little."""

from __future__ import annotations

import os
import platform
import shutil
import statistics
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import apsw

from benchmarks import peers
from benchmarks.places import nats_program, rabbitmq_program

PACKAGES = (
    "wowevent", "apsw", "msgspec", "uvloop", "picows", "redis", "hiredis", "aio-pika", "aiormq", "nats-py", "websockets"
)  # fmt: skip


_STAT = Path("/proc/stat")


def describe(directory: Path) -> dict[str, Any]:
    """CPU, cores, system, versions; what one durable write costs where the logs will lie, and a turn of a bare loop."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))} | peers.versions() | _servers(),
        "fdatasync_us": round(_sync_seconds(directory) * 1e6),
        "loop_ns": round(_turn_seconds() * 1e9, 1),
    }


def load() -> list[float]:
    """The load averages of 1, 5 and 15 minutes: what else the machine was doing."""
    return [round(each, 2) for each in os.getloadavg()]


def busy(seconds: float) -> float:
    """How many cores are at work in this time: somebody else's work, as long as nothing of ours runs."""
    idle, all_before = ticks(_STAT.read_text(encoding="ascii"))
    time.sleep(seconds)
    idle_after, all_after = ticks(_STAT.read_text(encoding="ascii"))
    passed = all_after - all_before
    return (os.cpu_count() or 1) * (1 - (idle_after - idle) / passed) if passed else 0.0


def ticks(stat: str) -> tuple[int, int]:
    """Of /proc/stat: what all cores together were idle, and all that there was.

    `cpu  user nice system idle iowait irq softirq steal guest guest_nice`, where guests are counted as users already.
    """
    numbers = [int(each) for each in stat.split("\n", 1)[0].split()[1:9]]
    return numbers[3] + numbers[4], sum(numbers)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _servers() -> dict[str, str]:
    """What `redis-server`, `rabbitmq-server` and `nats-server` on this machine are."""
    found: dict[str, str] = {}
    program = shutil.which("redis-server")
    if program is not None:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        found["redis-server"] = said.partition("v=")[2].partition(" ")[0] or "unknown"
    program = rabbitmq_program()
    if program is not None:  # its folder says it; to ask its tool takes a second, and another user
        found["rabbitmq-server"] = Path(program).resolve().parents[1].name.partition("-")[2] or "unknown"
    program = nats_program()
    if program is not None:
        said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
        found["nats-server"] = said.partition(": v")[2].strip() or "unknown"
    return found


def _sync_seconds(directory: Path) -> float:
    """The median of 100 writes of 4 KiB, each brought to the disk."""
    path = directory / "sync"
    taken = []
    file = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        for _ in range(100):
            began = time.perf_counter()
            os.write(file, bytes(4096))
            os.fdatasync(file)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(file)
        path.unlink()
    return statistics.median(taken)


def _turn_seconds() -> float:
    """The best of five times a million turns of a loop: how fast Python itself is here, to compare rates by."""
    turns, taken = range(1_000_000), []
    for _ in range(5):
        total, began = 0, time.perf_counter()
        for turn in turns:
            total += turn
        taken.append(time.perf_counter() - began)
    return min(taken) / len(turns)
