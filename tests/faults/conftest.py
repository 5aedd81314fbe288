"""The fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A log of its own, whose programs end with the test."""
    lab = Lab(tmp_path)
    yield lab
    lab.close()
