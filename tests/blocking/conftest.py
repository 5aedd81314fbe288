"""Buses of each engine that a run names, on a log of the test's own; closed at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.engines import url_of
from wowevent import Event, RetryPolicy
from wowevent.blocking import EventBus

QUICK = RetryPolicy(max_retries=3, initial=0.02, multiplier=1)

Open = Callable[..., EventBus]


@pytest.fixture
def url(broker_name: str, tmp_path: Path) -> str:
    return url_of(broker_name, tmp_path)


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Makes one more bus on the same log."""
    buses: list[EventBus] = []

    def make(**settings: Any) -> EventBus:
        buses.append(EventBus(url, **{"retry": QUICK, **settings}))
        return buses[-1]

    yield make
    for bus in buses:
        bus.close(timeout=2)


@pytest.fixture
def bus(opened: Open) -> EventBus:
    return opened()


class Seen:
    """A callback that remembers, and fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        self.events: list[Event] = []
        self.fails = fails

    def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) <= self.fails:
            raise OSError("not now")

    @property
    def numbers(self) -> list[int]:
        return [event.payload["n"] for event in self.events]

    @property
    def retries(self) -> list[int]:
        return [event.retry_count for event in self.events]


def task(n: int = 0, **fields: Any) -> Event:
    return Event(event_type="task.created", source_agent="tester", payload={"n": n}, **fields)
