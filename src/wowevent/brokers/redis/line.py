"""One connection that all calls share: what gathers while one round trip is out goes in the next.

Nothing in flight is ever cancelled: a caller that leaves only stops waiting, its answer is read and dropped. A line
that breaks fails what is on its way; the next call dials again.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from contextlib import suppress
from typing import Any, Final

from hiredis import pack_command  # the driver packs in Python, which took a fifth of a publisher's time
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from wowevent.brokers.redis.dial import Dial
from wowevent.brokers.redis.faults import ELSEWHERE, translate
from wowevent.ending import end
from wowevent.errors import BrokerUnavailable, Closed
from wowevent.wakeup import Wakeup

_SILENCE: Final = 4.0  # seconds without an answer after which the line is taken to be dead

Command = tuple[Any, ...]
Answer = asyncio.Future[Any]


class Line:
    """Calls in, answers out, in their order."""

    def __init__(self, dial: Dial, greeting: list[Command] | None = None) -> None:
        """`greeting` is what every new connection is sent first; its answers are dropped."""
        self._dial = dial
        self._greeting = greeting or []
        self._queue: deque[tuple[Command, Answer]] = deque()
        self._sent: deque[Answer] = deque()
        self._heard = 0.0
        self._news = Wakeup()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def call(self, *command: Any) -> Answer:
        """Send a command with the next ones; the future has its answer, or the error that `translate` says."""
        if self._closed:
            raise Closed("this broker is closed")
        answer: Answer = asyncio.get_running_loop().create_future()
        self._queue.append((command, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="redis:line")
        elif self._news.waiting:
            self._news.notify()
        return answer

    async def close(self) -> None:
        """End the connection; what is on its way fails with Closed."""
        self._closed = True
        await end(self._task)
        self._fail(Closed("this broker is closed"))

    async def _serve(self) -> None:
        """One connection's life."""
        trouble: Exception = BrokerUnavailable("redis: the connection was dropped")
        connection = None
        try:
            connection = await self._dial()
            for _ in self._greeting:
                self._sent.append(asyncio.get_running_loop().create_future())
            self._heard = asyncio.get_running_loop().time()
            greeting = b"".join(map(pack_command, self._greeting))
            if greeting:
                await connection.send_packed_command(greeting, check_health=False)
            parts = (self._write(connection), self._read(connection), self._watch())
            jobs = [asyncio.create_task(part, name="redis:line") for part in parts]
            try:
                await asyncio.wait(jobs, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for job in jobs:
                    job.cancel()
                ends = await asyncio.gather(*jobs, return_exceptions=True)
            trouble = next((translate(end) for end in ends if isinstance(end, Exception)), trouble)
        except Exception as error:  # noqa: BLE001 - whoever waits for an answer gets it
            trouble = translate(error)
        finally:
            if connection is not None:
                with suppress(Exception):
                    await connection.disconnect(nowait=True)
            self._fail(Closed("this broker is closed") if self._closed else trouble)

    def _fail(self, trouble: Exception) -> None:
        """Nobody gets an answer any more."""
        waiting = [*self._sent, *(answer for _, answer in self._queue)]
        self._sent.clear()
        self._queue.clear()
        for answer in waiting:
            if not answer.done():
                answer.set_exception(trouble)
                answer.exception()  # whoever called may be gone

    async def _write(self, connection: AbstractConnection) -> None:
        while True:
            if not self._queue:
                await self._news.wait()
            if not self._sent:
                self._heard = asyncio.get_running_loop().time()
            batch = [(command, answer) for command, answer in self._queue if not answer.done()]
            self._queue.clear()
            self._sent.extend(answer for _, answer in batch)
            packed = b"".join([pack_command(command) for command, _ in batch])
            await connection.send_packed_command(packed, check_health=False)

    async def _read(self, connection: AbstractConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                found = await connection.read_response(
                    disable_decoding=True, timeout=math.inf, disconnect_on_error=False
                )
            except ResponseError as error:
                found = error
            self._heard = loop.time()
            answer = self._sent.popleft()
            if isinstance(found, Exception):
                if not answer.done():
                    answer.set_exception(translate(found))
                    answer.exception()
                if isinstance(found, ELSEWHERE):
                    raise found
            elif not answer.done():
                answer.set_result(found)

    async def _watch(self) -> None:
        """Raise when what was asked is not answered."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SILENCE / 4)
            if self._sent and loop.time() - self._heard > _SILENCE:
                raise BrokerUnavailable(f"redis did not answer for {_SILENCE:.0f} s")
