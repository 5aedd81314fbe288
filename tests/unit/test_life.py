"""A bus's life: what may begin in which state, and that it ends once, whoever asks."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from wowevent import Event
from wowevent.delivery import Delivery, enter
from wowevent.errors import Closed
from wowevent.life import Life, State


def life_at(state: State) -> Life:
    life = Life()
    life.state = state
    return life


@pytest.mark.parametrize(
    ("state", "said", "over"),
    [
        ("new", "not started", False),
        ("running", "running", False),
        ("draining", "stopped", True),
        ("stopped", "stopped", True),
    ],
)
def test_what_is_said_of_a_state(state: State, said: str, over: bool) -> None:
    life = life_at(state)
    assert (life.said, life.over) == (said, over)


@pytest.mark.parametrize(
    ("state", "outside", "in_a_handler"),
    [("new", False, False), ("running", True, True), ("draining", False, True), ("stopped", False, False)],
)
async def test_only_a_bus_that_runs_takes_something_and_while_it_drains_from_handlers_alone(
    state: State, outside: bool, in_a_handler: bool
) -> None:
    life = life_at(state)

    async def taken(delivery: Delivery | None) -> bool:
        enter(delivery)
        with suppress(Closed):
            life.check()
            return True
        return False

    delivery = Delivery(Event(topic="a"), 1, "s", None)
    assert await asyncio.create_task(taken(None)) == outside
    assert await asyncio.create_task(taken(delivery)) == in_a_handler


def test_it_begins_once_and_never_again() -> None:
    assert life_at("new").begins()
    assert not life_at("running").begins()
    for state in ("draining", "stopped"):
        with pytest.raises(Closed):
            life_at(state).begins()


async def test_it_ends_once_for_all_who_ask() -> None:
    life, ended = Life(), 0

    async def shut() -> None:
        nonlocal ended
        await asyncio.sleep(0)
        ended += 1

    await asyncio.gather(*(life.end(shut) for _ in range(3)))
    await life.end(shut)
    assert ended == 1


async def test_who_has_no_more_time_to_wait_for_the_end_leaves_nothing_behind() -> None:
    life, left = Life(), []

    async def shut() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            left.append("closed")

    ending = asyncio.create_task(life.end(shut))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert left == ["closed"]
