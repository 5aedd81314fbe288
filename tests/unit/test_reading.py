"""What engines share that look through their log by themselves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from wowevent.broker import Position, Stored
from wowevent.errors import BrokerUnavailable, BusError
from wowevent.event import Event
from wowevent.reading import Reading, once

FACTS = [Stored(Event(topic="_bus.x", event_id=f"e-{n}"), Position("epoch", n), 1.0) for n in (1, 2)]


async def test_what_is_asked_once_comes_once():
    asked = 0

    async def ask() -> Sequence[Stored | BusError]:
        nonlocal asked
        asked += 1
        return FACTS

    assert [stored async for stored in Reading(once(ask), None)] == FACTS
    assert asked == 1


async def test_a_question_that_is_not_answered_is_no_end():
    answers: list[BusError | None] = [BrokerUnavailable("not now"), None]

    async def ask() -> Sequence[Stored | BusError]:
        if (error := answers.pop(0)) is not None:
            raise error
        return FACTS

    reading = Reading(once(ask), None)
    with pytest.raises(BrokerUnavailable):
        await anext(reading)
    assert [stored async for stored in reading] == FACTS
