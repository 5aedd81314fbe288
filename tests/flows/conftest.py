"""The flows run over every engine that the conformance suite knows."""

from tests.conformance.engines import rig

__all__ = ["rig"]
