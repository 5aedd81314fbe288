"""Who got an event, and when: what this process remembers, and what the others answer when somebody asks.

    question   an entry of the control log, where everybody looks once a second
    answers    by the live path, from those that know something, to a topic that only the asker hears
    a knock    by the same way, at the end: who does not hear itself heard no answers either, and says so

Nothing is stored for this but the questions, and nobody reads more for it than before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from wowevent.broker import LIVE, Broker
from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.ear import Ear
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, Closed
from wowevent.event import Event, check_name
from wowevent.id import new_id
from wowevent.log import logger
from wowevent.roll import Roll
from wowevent.trail import Delivered, Trail

_KIND: Final = "trail"
_ANSWERS: Final = 1.5  # seconds for all to see a question, a look at the control log each second, and to answer
_HEARS: Final = 10.0  # seconds until something must be heard of what is said
_KEPT: Final = 60.0  # seconds after which a question is forgotten
_MOST: Final = 200  # deliveries of one answer, the latest


class _Question(Struct, frozen=True):
    """Asked by whoever hears `to`, of an event."""

    event: str
    to: str


class _Answer(Struct, frozen=True):
    """What one process knows."""

    question: str
    deliveries: tuple[Delivered, ...] = ()


class Trails:
    """What this process and the others delivered."""

    def __init__(self, broker: Broker, directory: Directory, clock: Clock, process: str) -> None:
        """`process` is what this one goes by."""
        self.trail: Trail = Trail(clock.time)
        """What this process delivered of late."""
        self._broker = broker
        self._process = process
        self._topic = f"{LIVE}{new_id()}"
        self._ear = Ear(broker, clock, self._topic, self._hear, "answers about deliveries")
        self._private = broker.capabilities.private
        self._roll = Roll(directory, _KIND, clock, keep=_KEPT)
        self._roll.watch(self._asked)
        self._open: dict[str, list[Delivered]] = {}
        self._jobs: set[asyncio.Task[None]] = set()
        self._closed = False

    async def of(self, event_id: str) -> Sequence[Delivered]:
        """All that is known anywhere of an event's deliveries, by when they began.

        Takes a second and a half, in which the others answer. Raises InvalidEvent for what is no id, BrokerError,
        Closed.
        """
        check_name(event_id)
        answered = [] if self._private else await self._ask(event_id)
        return sorted([*self.trail.of(event_id, self._process), *answered], key=_began)

    async def close(self) -> None:
        """Ask and answer nothing any more."""
        self._closed = True
        await end(*self._jobs)
        await self._ear.close()
        await self._roll.close()

    # --- asking -------------------------------------------------------------------------------------------------

    async def _ask(self, event_id: str) -> list[Delivered]:
        await self._listen(self._ear.start)
        question = new_id()
        answers = self._open[question] = []
        try:
            await self._roll.add(question, msgspec.to_builtins(_Question(event_id, self._topic)))
            await asyncio.sleep(_ANSWERS)
            if not self._closed:
                await self._listen(self._ear.still)
        finally:
            del self._open[question]
        if self._closed:
            raise Closed("this bus was stopped")
        return answers

    async def _listen(self, until: Callable[[Callable[[], Awaitable[object]]], Awaitable[object]]) -> None:
        """Return when what is said is heard; BrokerUnavailable if it is not."""
        try:
            async with asyncio.timeout(_HEARS):
                await until(self._knock)
        except TimeoutError:
            raise BrokerUnavailable(f"nothing is heard on the live path within {_HEARS:.0f} s") from None

    async def _knock(self) -> None:
        """Say something, to hear it."""
        await self._say(self._topic, _Answer(""))

    def _hear(self, event: Event) -> None:
        try:
            answer = msgspec.convert(event.payload, _Answer)
        except msgspec.ValidationError as error:  # of another version, or a stranger's
            logger.warning("an answer that is none of ours is left out", event_id=event.event_id, error=error)
            return
        if (answers := self._open.get(answer.question)) is not None:
            answers.extend(answer.deliveries)

    # --- answering ----------------------------------------------------------------------------------------------

    def _asked(self, key: str, value: Mapping[str, Any] | None) -> None:
        """Somebody wants to know; who knows nothing says nothing."""
        if value is None or self._closed:
            return
        try:
            question = msgspec.convert(value, _Question)
        except msgspec.ValidationError as error:
            logger.warning("a question that is none of ours is left out", error=error)
            return
        if question.to == self._topic or not question.to.startswith(LIVE):
            return
        if found := self.trail.of(question.event, self._process):
            answering = self._answer(question.to, _Answer(key, tuple(found[-_MOST:])))
            job = asyncio.create_task(answering, name="wowevent:trail")
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _answer(self, to: str, answer: _Answer) -> None:
        try:
            await self._say(to, answer)
        except (BrokerError, Closed) as error:
            logger.warning("what was delivered here could not be told", question=answer.question, error=error)

    async def _say(self, to: str, answer: _Answer) -> None:
        await self._broker.publish([Event(topic=to, payload=msgspec.to_builtins(answer))])


def _began(delivered: Delivered) -> float:
    return delivered.at
