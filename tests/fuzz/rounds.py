"""How long a property is looked at: one short round, always the same, or round after round of other examples."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy

_TOGETHER: Final = 300  # examples of one of many rounds,
_WALKS: Final = 20  # and walks, which are of many steps each
_MAY_BE: Final = (HealthCheck.too_slow, HealthCheck.data_too_large)  # the machine is busy; large ones are meant


class Rounds:
    """Of one test."""

    def __init__(self, seconds: float) -> None:
        """So many seconds of examples that are others each time; 0 is the short round."""
        self.examples: int = 0
        """How many were looked at; of walks, how many."""
        self._began = time.monotonic()
        self._lasts = seconds

    @property
    def seconds(self) -> float:
        """How long it took so far."""
        return time.monotonic() - self._began

    def check(self, property: Callable[..., None], *, short: int = 60, **drawn: SearchStrategy[Any]) -> None:
        """Call `property` with what is drawn for its parameters: `short` times in the short round."""
        for how in self._rounds(short, _TOGETHER):
            given(**drawn)(how(self._counted(property)))()

    def walk(self, machine: Callable[[], RuleBasedStateMachine], *, short: int = 10, steps: int = 30) -> None:
        """Let the machine go `short` ways of so many steps in the short round, and longer ones in others."""

        def begun() -> RuleBasedStateMachine:
            self.examples += 1
            return machine()

        for how in self._rounds(short, _WALKS):
            longer = settings(how, stateful_step_count=2 * steps if self._lasts else steps)
            run_state_machine_as_test(begun, settings=longer)  # type: ignore[arg-type]  # a function is as good

    def _counted(self, property: Callable[..., None]) -> Callable[..., None]:
        """The same anew: a function takes settings once."""

        @functools.wraps(property)
        def counted(**values: Any) -> None:
            self.examples += 1
            property(**values)

        return counted

    def _rounds(self, short: int, together: int) -> Iterator[settings]:
        common = settings(deadline=None, suppress_health_check=_MAY_BE)
        if not self._lasts:
            yield settings(common, max_examples=short, derandomize=True, database=None)
        while self.seconds < self._lasts:
            yield settings(common, max_examples=together, print_blob=True)
