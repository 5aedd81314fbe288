"""A home for commands that start services in the background; none of them outlives its test."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.cli.daemons import processes_of


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty one; whatever runs with it at the end is killed."""
    yield tmp_path
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)
