"""A home of its own for what tools do to this machine."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.daemons import processes_of
from tests.processes import environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty one, this process's too; whatever runs with it at the end is killed."""
    kept = environment(tmp_path)
    for name in set(os.environ) - kept.keys():
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    left = [each for each in processes_of(tmp_path) if each.pid != psutil.Process().pid]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)
