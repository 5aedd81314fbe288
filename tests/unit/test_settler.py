"""What is said of a burial comes behind it, and only of one that came to be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

import pytest

from wowevent import BrokerUnavailable, Event, FailureReason
from wowevent.broker import Ack, Bury, Lease, Settlement
from wowevent.judge import Counts
from wowevent.settler import Settler
from wowevent.testing import ManualClock


class Source:
    """Takes settlements, unless they come too late or the engine is away."""

    def __init__(self, late: int = 0, error: Exception | None = None) -> None:
        self.happened: list[str] = []
        self._late = late
        self._error = error

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        if self._error is not None:
            raise self._error
        self.happened += [f"settled {each.token}" for each in settlements]
        return len(settlements) - self._late

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        return []

    async def detach(self, id: str) -> None: ...


def settler(source: Source) -> Settler:
    found = Settler("worker", source, lease=1.0, clock=ManualClock(), counts=Counts())
    found.burials["b"] = partial(source.happened.append, "told of b")
    return found


async def test_what_is_given_goes_behind_what_was_put_before() -> None:
    source = Source()
    settling = settler(source)
    settling.put(Ack("a"))
    running = asyncio.create_task(settling.run())
    await settling.give_back([Lease(event=Event(topic="a"), token="c", position=None)])
    assert source.happened == ["settled a", "settled c"]
    running.cancel()


BURY = Bury("b", FailureReason.HANDLER_ERROR)


async def test_it_is_told_once_it_is_buried_and_once() -> None:
    source = Source()
    settling = settler(source)
    await settling.send([Ack("a"), BURY])
    await settling.send([BURY])
    assert source.happened == ["settled a", "settled b", "told of b", "settled b"]


@pytest.mark.parametrize("source", [Source(late=1), Source(error=BrokerUnavailable("away"))], ids=["late", "away"])
async def test_what_was_not_buried_is_not_told(source: Source) -> None:
    settling = settler(source)
    settling.stopping = True
    await settling.send([BURY])
    assert "told of b" not in source.happened
    assert settling.burials == {}
