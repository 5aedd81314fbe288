"""A home for commands that start services in the background; none of them outlives its test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.daemons import end_all


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty one; whatever runs with it at the end is killed."""
    yield tmp_path
    end_all(tmp_path)
