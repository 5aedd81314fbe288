"""The fixtures of the cluster tests, and the table that a run ends with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clusters.groups import Group
from tests.faults.conftest import lab, measured, pytest_terminal_summary
from tests.faults.lab import Lab

__all__ = ["lab", "measured", "pytest_terminal_summary"]


@pytest.fixture
def group(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Group]:
    """The cluster that the test's parameter makes; the lab's log is there."""
    with request.param(lab.folder / "cluster") as group:
        lab.url = group.url
        yield group
        lab.close()  # first: who is connected would only be cut off
