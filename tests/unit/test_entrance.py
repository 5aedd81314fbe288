"""The way into an engine: who comes first joins, who comes meanwhile waits along; it closes once."""

from __future__ import annotations

import asyncio

import pytest

from wowevent.entrance import Entrance
from wowevent.errors import BrokerUnavailable, Closed


class Line:
    def __init__(self) -> None:
        self.broken = False


class Server:
    """What an engine joins by lines, which are counted."""

    def __init__(self) -> None:
        self.refuses = False
        self.answers = asyncio.Event()
        self.answers.set()
        self.joined: list[Line | None] = []
        self.left: list[Line | None] = []
        self.entrance: Entrance[Line] = Entrance(self.join, self.leave)

    async def join(self, before: Line | None) -> Line:
        self.joined.append(before)
        await self.answers.wait()
        if self.refuses:
            raise BrokerUnavailable("not now")
        return Line()

    async def leave(self, line: Line | None) -> None:
        await asyncio.sleep(0)
        self.left.append(line)


async def test_all_who_come_at_first_join_once():
    server = Server()
    first, *others = await asyncio.gather(*(server.entrance.enter() for _ in range(5)))
    assert all(line is first for line in others)
    assert await server.entrance.enter() is first
    assert server.joined == [None]


async def test_one_that_broke_is_joined_anew_and_the_old_one_is_handed_over():
    server = Server()
    old = await server.entrance.enter()
    old.broken = True
    new = await server.entrance.enter()
    assert new is not old
    assert server.joined == [None, old]


async def test_who_is_refused_may_come_again():
    server = Server()
    server.refuses = True
    for _ in range(2):
        with pytest.raises(BrokerUnavailable):
            await server.entrance.enter()
    server.refuses = False
    assert await server.entrance.enter() is server.entrance.session
    assert len(server.joined) == 3


async def test_who_leaves_while_it_is_joined_takes_nobody_along():
    server = Server()
    server.answers.clear()
    first, second = (asyncio.create_task(server.entrance.enter()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.answers.set()
    assert await second is server.entrance.session
    assert len(server.joined) == 1


async def test_closing_ends_who_waits_to_join_and_refuses_who_comes_later():
    server = Server()
    server.answers.clear()
    waiting = [asyncio.create_task(server.entrance.enter()) for _ in range(3)]
    await asyncio.sleep(0)
    await asyncio.gather(*(server.entrance.close() for _ in range(3)))
    ends = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(end) for end in ends] == [Closed] * 3
    assert server.left == [None]
    with pytest.raises(Closed):
        await server.entrance.enter()


async def test_closing_leaves_what_was_joined_last():
    server = Server()
    line = await server.entrance.enter()
    await server.entrance.close()
    await server.entrance.close()
    assert server.left == [line]
