"""Who is there: this process says so every 5 seconds and at each change, and hears the others once somebody asks.

    serves, or publishes under a name  ──beat──>  live path  ──>  whoever follows
    `agents()`, the first time         ──hello──> control log ──> everybody looks there once a second, and beats at once

Nothing of a beat is stored. A process of which nobody asked anything hears nothing and reads nothing for this.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct, to_builtins

from wowevent.broker import LIVE, Broker
from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.ear import Ear
from wowevent.ending import end, seen
from wowevent.errors import BrokerError, BrokerUnavailable, BusError, Closed
from wowevent.event import Event
from wowevent.id import new_id
from wowevent.log import logger
from wowevent.roster import AgentInfo, Beat, Roster, Source

TOPIC: Final = f"{LIVE}roster"
"""Where processes say that they are there."""
PERIOD: Final = 5.0
"""Seconds between two beats."""

_KIND: Final = "roster"
_HELLO: Final = "hello"
_ANSWERS: Final = 1.5  # seconds for all to see a hello, a look at the control log each second, and to answer
_HEARS: Final = 10.0  # seconds until something must be heard of what is said
_TOGETHER: Final = 0.05  # seconds: what changes at about the same time is said together,
_APART: Final = 0.5  # and two beats are no nearer than this
_AGAIN: Final = 1.0  # seconds after a beat that did not reach the engine
_GOODBYE: Final = 1.0  # seconds that a goodbye may take at most
_MOST: Final = 2_000  # subscriptions and agents that a beat names
_SOURCES: Final = 200
_TOPICS: Final = 32  # of one source, the latest


class Guests(Struct, frozen=True):
    """Who is here beside the bus's own subscriptions, as a router's clients are."""

    agents: Iterable[str] = ()
    serves: Iterable[str] = ()
    """Ids of subscriptions."""


class Attendance:
    """This process's part in it."""

    def __init__(self, broker: Broker, directory: Directory, clock: Clock, own: Callable[[], Guests]) -> None:
        """`own()` is who the bus itself stands for, and serves."""
        self.process: str = new_id()
        """What this process goes by."""
        self.topics: dict[str, dict[str, None]] = {}
        """Whose events were published here, and on which topics; `learn` adds to it."""
        self.front: bool = False
        """This bus publishes for others: that it is there says nothing of them. Set before `start`."""
        self.guests: list[Callable[[], Guests]] = [own]
        """Asked at each beat; `change` when the answer is another."""
        self._broker = broker
        self._directory = directory
        self._clock = clock
        self._private = broker.capabilities.private
        self._roster = Roster()
        self._ear = Ear(broker, clock, TOPIC, self._hear, "the roster")
        self._times: dict[str, float] = {}  # when a source published last, where it is not us
        self._host = socket.gethostname()
        self._news = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None
        self._meeting: asyncio.Task[None] | None = None
        self._said = False  # else nobody has to be told that we go
        self._asked = False

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say from here on who is here. Where nobody else can hear it, nothing is said."""
        if self._beating is None and not self._private:
            self._beating = asyncio.create_task(self._beat(), name="wowevent:beat")
            self._directory.watch(_KIND, self._greeted)

    def change(self) -> None:
        """Somebody came or went: say it soon."""
        self._news.set()

    async def leave(self, timeout: float) -> None:
        """Say goodbye, and nothing behind it."""
        await end(self._beating)
        if self._said:
            self._said = False
            with suppress(BusError, TimeoutError):  # then it is missed after some seconds
                async with asyncio.timeout(min(timeout, _GOODBYE)):
                    await self._publish(Beat(self.process, gone=True))

    async def close(self) -> None:
        """Say nothing, and hear nobody any more."""
        await end(self._beating, self._meeting)
        await self._ear.close()

    # --- what is said -------------------------------------------------------------------------------------------

    def learn(self, event: Event) -> None:
        """Its source publishes on its topic; whose event is replayed here need not be here."""
        if event.replay_of is not None:
            return
        known = self.topics.get(event.source_agent)
        if known is None:
            if len(self.topics) >= _SOURCES:
                gone = next(iter(self.topics))
                del self.topics[gone]
                self._times.pop(gone, None)
            known = self.topics[event.source_agent] = {}
            self.change()
        elif len(known) >= _TOPICS:
            del known[next(iter(known))]
        known[event.topic] = None

    def heard(self, events: Iterable[Event]) -> None:
        """Where others publish by way of this bus: they did so now."""
        self._times.update(dict.fromkeys([event.source_agent for event in events], self._clock.monotonic()))

    def beat(self) -> Beat:
        """What this process has to say."""
        now, guests = self._clock.monotonic(), [ask() for ask in self.guests]
        agents = dict.fromkeys(name for each in guests for name in each.agents if name)
        serves = dict.fromkeys(id for each in guests for id in each.serves)
        return Beat(
            self.process,
            self._host,
            os.getpid(),
            agents=tuple(agents)[:_MOST],
            serves=tuple(serves)[:_MOST],
            publishes=tuple(
                Source(name, tuple(topics), now - self._times.get(name, now) if self.front else 0.0)
                for name, topics in self.topics.items()
            ),
        )

    async def _beat(self) -> None:
        """Until cancelled. A beat that gets lost is made up for by the next one."""
        trouble, loop = False, asyncio.get_running_loop()
        before, due = Beat(self.process), 0.0
        while True:
            self._news.clear()
            beat, pause = self.beat(), 0.0
            changed = self._asked or not _alike(beat, before)
            if (changed or loop.time() >= due) and (self._said or not beat.empty):
                try:
                    await self._say(beat)
                    trouble, self._asked, before, due = False, False, beat, loop.time() + PERIOD
                    pause = _APART
                except Closed:
                    return
                except BrokerError as error:
                    if not trouble:
                        logger.warning("that this process is there cannot be said now", error=error)
                    trouble, pause = True, _AGAIN
            await asyncio.sleep(pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(_TOGETHER, due - loop.time()) if self._said else None):
                    await self._news.wait()
                    await asyncio.sleep(_TOGETHER)

    async def _say(self, beat: Beat) -> None:
        self._said = True
        await self._publish(beat)

    async def _publish(self, beat: Beat) -> None:
        await self._broker.publish([Event(topic=TOPIC, payload=to_builtins(beat))])

    def _greeted(self, _key: str, hello: dict[str, Any] | None) -> None:
        """Somebody wants to know who is there."""
        if hello is not None and hello.get("from") != self.process:
            self._asked = True
            self.change()

    # --- what is heard ------------------------------------------------------------------------------------------

    async def agents(self) -> Sequence[AgentInfo]:
        """Everybody. The first call takes a second and a half, in which all answer; it goes on hearing them.

        Raises BrokerError, Closed.
        """
        if not self._private:
            await self._meet()
        infos, now = await self._broker.subscriptions(), self._clock.monotonic()
        own = self.beat()
        if not own.empty or self._said:
            self._roster.hear(own, now)
        return self._roster.agents(infos, now, self._clock.time())

    async def _meet(self) -> None:
        """Return once those that are there have had the time to say so; whoever asks meanwhile waits along."""
        if self._meeting is None:
            self._meeting = asyncio.create_task(self._greet(), name="wowevent:roster")
            self._meeting.add_done_callback(seen)
        meeting = self._meeting
        await asyncio.wait([meeting])
        if meeting.cancelled():
            raise Closed("this bus was stopped")
        if meeting.exception() is not None and self._meeting is meeting:
            self._meeting = None
        meeting.result()

    async def _greet(self) -> None:
        try:
            async with asyncio.timeout(_HEARS):
                await self._ear.start(self._knock)
        except TimeoutError:
            raise BrokerUnavailable(f"nothing is heard on the live path within {_HEARS:.0f} s") from None
        await self._directory.put(_KIND, _HELLO, {"from": self.process, "at": self._clock.time()})
        await asyncio.sleep(_ANSWERS)

    async def _knock(self) -> None:
        """Say something, to hear it; a process that has nothing to say is not taken to be there for that."""
        await self._publish(self.beat() if self._said else Beat(self.process, gone=True))

    def _hear(self, event: Event) -> None:
        try:
            beat = msgspec.convert(event.payload, Beat)
        except msgspec.ValidationError as error:  # of another version, or a stranger's
            logger.warning("a beat that is none of ours is left out", event_id=event.event_id, error=error)
            return
        if beat.process != self.process:
            self._roster.hear(beat, self._clock.monotonic())


def _alike(beat: Beat, other: Beat) -> bool:
    """Whether both say the same, but for times."""
    said = [(each.agents, each.serves, [(one.agent, one.topics) for one in each.publishes]) for each in (beat, other)]
    return said[0] == said[1]
