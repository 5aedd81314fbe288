"""How much all processes publish and deliver: said every 2 seconds while somebody looks, and heard by whoever does.

    who looks    ──"look", for a minute──>  control log ──> everybody looks there once a second
    everybody    ──pulse, every 2 s──>      live path   ──> whoever looks, who takes a sample every 2 s

Nobody says anything where nobody looks, and nothing is counted for this that is not counted anyway. Who has looked
goes on for ten minutes, so that who comes again finds no gap. Who looks says something, too: whoever does not hear
itself any more hears nobody, and does not take that for silence.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Any, Final

import msgspec

from wowevent.broker import LIVE, Broker
from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.ear import Ear
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, BusError, Closed
from wowevent.event import Event
from wowevent.log import logger
from wowevent.metrics import EventMetrics, Lately
from wowevent.pulse import PERIOD, Desk, Pulse, Router, Vitals, pulse_of

TOPIC: Final = f"{LIVE}pulse"
"""Where processes say how much they do."""

_KIND: Final = "pulse"
_LOOK: Final = "look"
_FOR: Final = 60.0  # seconds for which a look asks,
_AGAIN: Final = 40.0  # and after which it is said again
_LINGERS: Final = 600.0  # seconds for which samples are taken after somebody wanted to see them
_ANSWERS: Final = 1.5  # seconds for all to see a look, and to say something
_HEARS: Final = 10.0  # seconds until something must be heard of what is said
_FIRST: Final = 3.0  # seconds that the first who looks waits at most
_OLD: Final = 600.0  # seconds, clocks that differ included: a look that is older when we start is nobody's any more
_YOUNG: Final = 1.0  # seconds before a process that starts says something: many do no more than one thing, and end
_GOODBYE: Final = 1.0  # seconds that a goodbye may take at most
_TOGETHER: Final = 0.05  # seconds: what changes at about the same time is said together


class Pulses:
    """This process's part in it."""

    def __init__(self, broker: Broker, directory: Directory, clock: Clock, process: str, metrics: EventMetrics) -> None:
        """`process` is what this one goes by."""
        self.routers: list[Router] = []
        """Those in front of this bus."""
        self.desks: list[Desk] = []
        """Who has jobs in the background here; `change` when one begins, ends, or is held."""
        self._broker = broker
        self._directory = directory
        self._clock = clock
        self._process = process
        self._metrics = metrics
        self.host: str = socket.gethostname()
        """Where it runs."""
        self._private = broker.capabilities.private
        self._vitals = Vitals()
        self._ear = Ear(broker, clock, TOPIC, self._hear, "pulses")
        never = float("-inf")  # monotonic seconds, here and below:
        self._wanted = never  # when somebody wanted to see them last,
        self._asked = never  # and when somebody said so to all;
        self._until = never  # up to when others want to hear this process,
        self._heard = never  # when something was heard last, be it what this process said,
        self._back = never  # and when it was after a time without
        self._told: Lately | None = None  # what they were told last
        self._own: Lately | None = None  # what the last sample has of this process
        self._answered = asyncio.Event()  # all who are there have had the time to say something
        self._ready = asyncio.Event()  # there is a sample
        self._news = asyncio.Event()  # there is something to say at once
        self._looking: asyncio.Task[None] | None = None
        self._speaking: asyncio.Task[None] | None = None
        self._started = self._left = False

    # --- life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Say from here on how much is done here, while somebody wants to hear it."""
        if not self._private and not self._started:
            self._directory.watch(_KIND, self._look_seen)
        self._started = True

    async def leave(self, timeout: float) -> None:
        """Say what was not said yet, if somebody hears it, and nothing behind it."""
        self._left = True
        if self._speaking is None or self._clock.monotonic() >= self._until:
            return
        await end(self._speaking)
        pulse = self._pulse(self._metrics.lately(self._told, ended=True), gone=True)
        if self._told is not None or any(pulse.counts):
            with suppress(BusError, TimeoutError):  # then it is missed after some seconds
                async with asyncio.timeout(min(timeout, _GOODBYE)):
                    await self._say(pulse)

    async def close(self) -> None:
        """Say nothing, and hear nobody any more."""
        self._left = True
        await end(self._speaking, self._looking)
        self._ready.set()
        await self._ear.close()

    # --- what is heard ------------------------------------------------------------------------------------------

    async def look(self) -> Vitals:
        """What all processes did of late; the first look takes a second and a half, in which they begin to say so.

        While the engine is away it is what this process did, and what was heard before; its samples say so (`whole`).
        """
        self._wanted = self._clock.monotonic()
        if not self._left and (self._looking is None or self._looking.done()):
            self._ready.clear()
            self._answered.clear()
            self._vitals, self._own = Vitals(), None
            self._heard = self._back = float("-inf")
            self._looking = asyncio.create_task(self._look_on(), name="wowevent:pulses")
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST + _ANSWERS):  # longer than the task that is waited for takes
                await self._ready.wait()
        return self._vitals

    @property
    def whole(self) -> bool:
        """Whether the other processes can be heard; else nobody knows which there are, and what they do."""
        now, deaf = self._clock.monotonic(), 2 * PERIOD
        return self._private or (now - self._heard < deaf <= now - self._back)

    @property
    def alone(self) -> bool:
        """No other process has this log."""
        return self._private

    def change(self) -> None:
        """Something changed that others want to know soon."""
        self._news.set()

    @property
    def now(self) -> float:
        """The moment of which `Vitals.there` is to be asked."""
        return self._clock.monotonic()

    async def _look_on(self) -> None:
        """Take samples, until nobody wants to see any for a while."""
        asking = None if self._private else asyncio.create_task(self._keep_asking(), name="wowevent:pulses:ask")
        try:
            if asking is not None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_FIRST):
                        await self._answered.wait()
            while self._clock.monotonic() - self._wanted < _LINGERS:
                self._sample()
                self._ready.set()
                await asyncio.sleep(PERIOD)
        finally:
            await end(asking)

    async def _keep_asking(self) -> None:
        """Until cancelled. An engine that is away keeps nobody from taking samples."""
        trouble = False
        while True:
            try:
                asked = await self._ask()
                if not self._answered.is_set():
                    await asyncio.sleep(_ANSWERS if asked else max(_ANSWERS, PERIOD))
                    self._answered.set()
                trouble = False
            except BrokerError as error:
                if not trouble:
                    logger.warning("nobody can be asked now how much is done", error=error)
                trouble = True
            except Closed:
                return
            await asyncio.sleep(PERIOD)

    async def _ask(self) -> bool:
        """See to it that all who are there say something, and that it is heard; False if they do so already."""
        if self._ear.hears and self._clock.monotonic() - self._asked < _AGAIN:
            return False
        try:
            async with asyncio.timeout(_HEARS):
                await self._ear.start(self._knock)
        except TimeoutError:
            raise BrokerUnavailable(f"nothing is heard on the live path within {_HEARS:.0f} s") from None
        await self._directory.put(_KIND, _LOOK, {"from": self._process, "at": self._clock.time(), "seconds": _FOR})
        return True

    async def _knock(self) -> None:
        """Say something of nobody, to hear it."""
        await self._say(Pulse(""))

    def _sample(self) -> None:
        now = self._clock.monotonic()
        self._own = self._metrics.lately(self._own)
        self._vitals.hear(self._pulse(self._own), now)
        self._vitals.sample(now, self._clock.time(), whole=self.whole)

    def _hear(self, event: Event) -> None:
        now = self._clock.monotonic()
        if float("-inf") < self._heard <= now - 2 * PERIOD:
            self._back = now  # the others come back, too: in a moment
        self._heard = now
        try:
            pulse = msgspec.convert(event.payload, Pulse)
        except msgspec.ValidationError as error:  # of another version, or a stranger's
            logger.warning("a pulse that is none of ours is left out", event_id=event.event_id, error=error)
            return
        if pulse.process not in {"", self._process}:
            self._vitals.hear(pulse, now)

    # --- what is said -------------------------------------------------------------------------------------------

    def _look_seen(self, _key: str, look: dict[str, Any] | None) -> None:
        """Somebody looks: say something, and go on doing so for a while."""
        young, now = not self._started, self._clock.monotonic()
        if look is None or self._left or (young and abs(self._clock.time() - _number(look.get("at"))) >= _OLD):
            return
        if not young:
            self._asked = now  # whoever it was: all know it now, and one may stand for several, of whom the others hear
        self._until = now + min(_number(look.get("seconds")), _FOR)
        if self._speaking is None or self._speaking.done():
            self._speaking = asyncio.create_task(self._speak(_YOUNG if young else 0.0), name="wowevent:pulse")
        elif look.get("from") != self._process:
            self.change()  # who looks anew waits for no longer than all need to see that

    async def _speak(self, first: float) -> None:
        """Until nobody wants to hear it. A pulse that gets lost is lost: the next one tells of other seconds."""
        trouble = False
        await asyncio.sleep(first)
        while self._clock.monotonic() < self._until:
            self._news.clear()
            self._told = self._metrics.lately(self._told)
            try:
                await self._say(self._pulse(self._told))
                trouble = False
            except BrokerError as error:
                if not trouble:
                    logger.warning("how much is done here cannot be said now", error=error)
                trouble = True
            except Closed:
                return
            await self._pause()
        self._told = None

    async def _pause(self) -> None:
        """Until the next pulse is due, or there are news; these are said together."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PERIOD):
                await self._news.wait()
                await asyncio.sleep(_TOGETHER)

    def _pulse(self, lately: Lately, *, gone: bool = False) -> Pulse:
        process = (self._process, self.host, os.getpid())
        return pulse_of(process, lately, routers=self.routers, desks=() if gone else self.desks, gone=gone)

    async def _say(self, pulse: Pulse) -> None:
        await self._broker.publish([Event(topic=TOPIC, payload=msgspec.to_builtins(pulse))])


def _number(given: object) -> float:
    """What another process said, where a number belongs."""
    return float(given) if isinstance(given, int | float) else 0.0
