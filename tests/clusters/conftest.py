"""The fixtures of the cluster tests, and the table that a run ends with."""

from tests.faults.conftest import lab, measured, pytest_terminal_summary

__all__ = ["lab", "measured", "pytest_terminal_summary"]
