"""The fixtures of the conformance suite."""

from tests.conformance.engines import rig

__all__ = ["rig"]
