"""Batch: what gathers while one round trip is out goes in the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from wowevent.batch import Batch
from wowevent.testing import settle


class Line:
    """A round trip that ends when it is let through; it answers each number with ten times itself."""

    def __init__(self) -> None:
        self.sent: list[list[int]] = []
        self._gates: list[asyncio.Future[None]] = []

    async def send(self, items: Sequence[int]) -> Sequence[int]:
        self.sent.append(list(items))
        gate = asyncio.get_running_loop().create_future()
        self._gates.append(gate)
        await gate
        return [10 * item for item in items]

    async def let_through(self, error: Exception | None = None) -> None:
        gate = self._gates.pop(0)
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        await settle()


def call(batch: Batch[int, int], *items: int) -> asyncio.Task[Sequence[int]]:
    return asyncio.create_task(batch.call(items))


async def test_who_finds_the_line_free_sends_alone():
    line = Line()
    batch = Batch(line.send)
    for n in (1, 2):
        task = call(batch, n)
        await settle()
        await line.let_through()
        assert await task == [10 * n]
    assert line.sent == [[1], [2]]


async def test_those_who_were_answered_go_on_together_with_the_others():
    line = Line()
    batch = Batch(line.send)

    async def caller() -> None:
        for n in range(4):
            await batch.call([n])

    callers = [asyncio.create_task(caller()) for _ in range(10)]
    await settle()
    while not all(each.done() for each in callers):
        await line.let_through()
    assert [len(sent) for sent in line.sent] == [1, 10, 10, 10, 9]


async def test_what_gathers_meanwhile_goes_in_one_and_each_gets_its_own_answers():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    rest = [call(batch, 2), call(batch, 3, 4), call(batch)]
    await settle()
    await line.let_through()
    assert line.sent == [[1], [2, 3, 4]]
    late = call(batch, 5)
    await settle()
    await line.let_through()
    await line.let_through()
    assert [list(await task) for task in (first, *rest, late)] == [[10], [20], [30, 40], [], [50]]
    assert line.sent == [[1], [2, 3, 4], [5]]


async def test_a_batch_has_a_limit_and_no_call_is_split():
    line = Line()
    batch = Batch(line.send, limit=3)
    tasks = [call(batch, 0)]
    await settle()
    tasks += [call(batch, 1, 2), call(batch, 3, 4), call(batch, *range(5, 10)), call(batch, 10)]
    await settle()
    for _ in range(5):
        await line.let_through()
    await asyncio.gather(*tasks)
    assert line.sent == [[0], [1, 2], [3, 4], [5, 6, 7, 8, 9], [10]]


async def test_everyone_in_a_failed_batch_is_told_and_the_next_goes_on():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    failing, gone = [call(batch, 2), call(batch, 3)], call(batch, 5)
    await settle()
    await line.let_through()
    gone.cancel()
    after = call(batch, 4)
    await settle()
    await line.let_through(OSError("cut"))
    await line.let_through()
    assert await first == [10]
    assert [str(end) for end in await asyncio.gather(*failing, return_exceptions=True)] == ["cut", "cut"]
    assert await after == [40]
    assert gone.cancelled()


async def test_a_failed_first_call_lets_the_others_go_on():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    second = call(batch, 2)
    await settle()
    await line.let_through(OSError("cut"))
    await line.let_through()
    with pytest.raises(OSError, match="cut"):
        await first
    assert await second == [20]


async def test_who_gives_up_is_passed_over_and_harms_nobody():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    gone, stays = call(batch, 2), call(batch, 3)
    await settle()
    gone.cancel()
    await settle()
    await line.let_through()
    assert line.sent == [[1], [3]]
    stays.cancel()  # under way already
    await settle()
    await line.let_through()
    assert await first == [10]
    await asyncio.gather(gone, stays, return_exceptions=True)
    again = call(batch, 4)
    await settle()
    await line.let_through()
    assert await again == [40]


async def test_a_first_caller_that_is_cancelled_hands_the_line_on():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    second = call(batch, 2)
    await settle()
    first.cancel()
    await settle()
    await asyncio.gather(first, return_exceptions=True)
    line._gates.pop(0)  # noqa: SLF001 - the cancelled round trip
    await line.let_through()
    assert await second == [20]


async def test_when_all_who_wait_have_gone_the_line_is_free():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    gone = call(batch, 2)
    await settle()
    gone.cancel()
    await settle()
    await line.let_through()
    assert (await first, line.sent) == ([10], [[1]])
    last = call(batch, 3)
    await settle()
    await line.let_through()
    assert await last == [30]
    await asyncio.gather(gone, return_exceptions=True)


async def test_who_waits_is_told_when_the_line_itself_is_torn_down():
    line = Line()
    batch = Batch(line.send)
    first = call(batch, 1)
    await settle()
    second = call(batch, 2)
    await settle()
    await line.let_through()
    third = call(batch, 3)
    await settle()
    (drainer,) = batch._drainers  # noqa: SLF001 - what a loop that shuts down cancels
    drainer.cancel()
    ends = await asyncio.gather(second, third, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError, asyncio.CancelledError]
    assert await first == [10]


@pytest.mark.parametrize("hopeless", [True, False])
async def test_what_is_hopeless_is_told_to_those_who_gathered(hopeless: bool):
    line = Line()
    batch = Batch(line.send, hopeless=(OSError,) if hopeless else ())
    tasks = [call(batch, 1)]
    await settle()
    tasks += [call(batch, 2), call(batch, 3)]
    await settle()
    await line.let_through(OSError("no answer"))
    assert [task.done() for task in tasks] == [True, hopeless, hopeless]
    if not hopeless:
        await line.let_through()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(answer, OSError) for answer in answers] == [True, hopeless, hopeless]
    again = call(batch, 4)
    await settle()
    await line.let_through()
    assert await again == [40]


async def test_several_rounds_begin_in_the_order_of_their_items_and_what_gathers_goes_in_the_next():
    line = Line()
    batch = Batch(line.send, rounds=2)
    tasks = [call(batch, n) for n in range(5)]
    await settle()
    assert line.sent == [[0], [1]]
    await line.let_through()
    assert line.sent == [[0], [1], [2, 3, 4]]
    late = call(batch, 5)
    await settle()
    await line.let_through()
    assert line.sent[3:] == [[5]]
    await line.let_through()
    await line.let_through()
    assert [list(await task) for task in (*tasks, late)] == [[10 * n] for n in range(6)]


async def test_a_round_that_fails_leaves_its_place_to_the_next():
    line = Line()
    batch = Batch(line.send, rounds=2)
    first, second = call(batch, 1), call(batch, 2)
    await settle()
    await line.let_through(OSError("gone"))
    third = call(batch, 3)
    await settle()
    assert line.sent == [[1], [2], [3]]
    await line.let_through()
    await line.let_through()
    assert await asyncio.gather(first, second, third, return_exceptions=True)
    assert [isinstance(first.exception(), OSError), list(await second), list(await third)] == [True, [20], [30]]
