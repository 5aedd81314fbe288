"""The fixtures of the conformance suite, and that none of its tests is skipped."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.conformance.engines import rig

__all__ = ["rig"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail the test that skips: docs/conformance.md says that each runs on every engine."""
    report = yield
    if report.skipped:
        report.outcome, report.longrepr = "failed", f"a test of the conformance suite was skipped: {report.longrepr}"
    return report
