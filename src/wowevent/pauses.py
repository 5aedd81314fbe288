"""What somebody has paused: facts that all processes share, and the valves here that heed them.

    subscription, agent, topic, everything     a fact each: their names are few
    conversation                               entries of a roll: there is no end of them

Who looks next takes away those whose end has passed; until then they are there, and nobody heeds them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from weakref import WeakSet

import msgspec
from msgspec import Struct

from wowevent.breaker import Breaker
from wowevent.broker import Subscription
from wowevent.clock import Clock, Timer
from wowevent.directory import Directory
from wowevent.ending import end
from wowevent.errors import BrokerError, Closed, InvalidEvent, printable, shown
from wowevent.event import utc
from wowevent.holds import Holds, Pause, Scope, said
from wowevent.log import logger
from wowevent.roll import Roll
from wowevent.settler import Source
from wowevent.valve import Valve

_KINDS: Final[Mapping[Scope, str]] = {
    "subscription": "pause", "agent": "pause-agent", "topic": "pause-topic", "everything": "pause-everything",
}  # fmt: skip
_CONVERSATIONS: Final = "pause-conversation"
_MOST: Final = 4096  # conversations
_LONGEST: Final = 30 * 86_400.0  # seconds that a conversation is paused; then its entry may go
_GRACE: Final = 5.0  # seconds after its end in which a pause is left alone: somebody may be about to say it again
_LOOK: Final = 60.0  # seconds after which the clock is asked again whether a pause has ended: it may have been set
_BACKOFF: Final = (0.5, 10.0)
_PATIENCE: Final = 1.0  # seconds for what handlers asked for to be said, when the bus stops
_TEXT: Final = 500  # characters of a reason

Until = float | timedelta | datetime | str | None


class _Fact(Struct, omit_defaults=True):
    """What a fact says; an older version says only since when."""

    since: float
    until: float | None = None
    reason: str = ""
    by: str = ""


class Pauses:
    """What is paused, and the valves of this process."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self.holds: Holds = Holds(clock)
        """What is in force, as far as it is known here."""
        self._directory = directory
        self._clock = clock
        self._valves: WeakSet[Valve] = WeakSet()
        self._timer: Timer | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._roll = Roll(directory, _CONVERSATIONS, clock, most=_MOST, keep=_LONGEST + _LOOK)
        for scope, kind in _KINDS.items():
            directory.watch(kind, partial(self._changed, scope))
        self._roll.watch(partial(self._changed, "conversation"))

    async def close(self) -> None:
        """Let what handlers asked for be said, and heed nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=_PATIENCE)
        await end(*self._jobs)
        await self._roll.close()

    # --- valves -------------------------------------------------------------------------------------------------

    def valve(self, spec: Subscription, source: Source, breaker: Breaker | None = None) -> Valve:
        """That source, as long as the subscription is not paused."""
        valve = Valve(spec.id, source, self._clock, breaker, agent=spec.agent, halt=partial(self._halt, spec))
        self._valves.add(valve)
        if (why := self.holds.closing(spec.id, spec.agent)) is not None:
            valve.pause(why)
        return valve

    def _apply(self) -> None:
        """Close and open the valves here by what is in force now; look again when the first pause has ended."""
        for valve in list(self._valves):
            if (why := self.holds.closing(valve.id, valve.agent)) is not None:
                valve.pause(why)
            else:
                valve.resume()
        if self._timer is not None:
            self._timer.cancel()
        end = self.holds.next_end()
        self._timer = None if end is None else self._clock.call_later(min(end, _LOOK), self._look)

    def _look(self) -> None:
        for pause in self.holds.ended():
            _say("resumed", pause)
        self._apply()

    def _halt(self, spec: Subscription, seconds: float, reason: str) -> None:
        """A handler asks that nothing comes for a while: here at once, and in the other processes as soon as they see.

        It shortens no pause that lasts longer. One of a live subscription is nobody else's matter.
        """
        now = self._clock.time()
        known = self.holds.get("subscription", spec.id)
        if seconds <= 0 or (known is not None and (known.until is None or known.until >= now + seconds)):
            return
        since = now if known is None else known.since
        fact = _Fact(since, now + seconds, reason[:_TEXT], spec.agent or spec.id)
        self._know(_pause("subscription", spec.id, fact))
        if spec.durable:
            job = asyncio.create_task(self._tell(spec.id, fact), name="wowevent:pause")
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _tell(self, id: str, fact: _Fact) -> None:
        """Say what a handler asked for; while the engine is in trouble again, as long as it is worth saying."""
        wait = _BACKOFF[0]
        while fact.until is not None and self._clock.time() < fact.until:
            known = self.holds.get("subscription", id)
            if known is None or known.until != fact.until:
                return  # somebody has said otherwise
            try:
                await self._directory.put(_KINDS["subscription"], id, msgspec.to_builtins(fact))
            except Closed:
                return
            except BrokerError as error:
                logger.warning("a pause is not known to others yet", subscription=id, error=error, retry_in=wait)
            else:
                return
            await self._clock.sleep(wait)
            wait = min(2 * wait, _BACKOFF[1])

    # --- what is paused -----------------------------------------------------------------------------------------

    def paused(self, id: str, agent: str) -> bool:
        """Whether nothing of a subscription is handed out: by a pause of it, of its agent, or of everything."""
        return self.holds.closing(id, agent) is not None

    async def all(self) -> Sequence[Pause]:
        """What is paused now, by scope and name."""
        await self._directory.refresh()
        await self._sweep()
        return self.holds.all()

    async def pause(self, scope: Scope, names: Sequence[str], *, until: Until, reason: str, by: str) -> Sequence[Pause]:
        """Pause them; returns when every process that looks will see it. InvalidEvent for an end that is none.

        One that is paused is so from when it was, with the end and the reason that are given now.
        """
        end = self._end(scope, until)
        await self._directory.refresh()
        made = []
        for name in names:
            before = self.holds.get(scope, name)
            since = self._clock.time() if before is None else before.since
            fact = _Fact(since, end, printable(reason)[:_TEXT], printable(by)[:_TEXT])
            made.append(_pause(scope, name, fact))
            if before is None or (before.until, before.reason) != (end, fact.reason):
                await self._put(made[-1], fact)
        return made

    async def resume(self, scope: Scope, names: Sequence[str]) -> Sequence[Pause]:
        """The opposite; those that were in force."""
        await self._directory.refresh()
        ended = []
        for name in names:
            if (before := self.holds.get(scope, name)) is not None:
                ended.append(before)
            await self._drop(scope, name)
        await self._sweep()
        return ended

    def _end(self, scope: Scope, until: Until) -> float | None:
        """When it ends, in Unix seconds."""
        now = self._clock.time()
        end = _moment(until, now)
        if end is not None and end <= now:
            raise InvalidEvent(f"until: {shown(until)} is past")
        return min(end or now + _LONGEST, now + _LONGEST) if scope == "conversation" else end

    async def _put(self, pause: Pause, fact: _Fact) -> None:
        value = msgspec.to_builtins(fact)
        if pause.scope == "conversation":
            await self._roll.add(pause.name, value)
        else:
            await self._directory.put(_KINDS[pause.scope], pause.name, value)

    async def _drop(self, scope: Scope, name: str) -> None:
        """Take it away where it is said, and where it is only known here."""
        if scope == "conversation":
            await self._roll.drop(name)
        elif name in self._directory.facts(_KINDS[scope]):
            await self._directory.drop(_KINDS[scope], name)
        elif (local := self.holds.drop(scope, name)) is not None:
            _say("resumed", local)
            self._apply()

    async def _sweep(self) -> None:
        """Take away what has ended; what cannot be taken away now will be another time."""
        past = self._clock.time() - _GRACE
        facts: list[tuple[Scope, str, Mapping[str, Any]]]
        facts = [("conversation", name, value) for name, value in self._roll.items().items()]
        for scope, kind in _KINDS.items():
            facts += [(scope, name, value) for name, value in self._directory.facts(kind).items()]
        for scope, name, value in facts:
            end = _fact(value).until
            if end is not None and end < past:
                try:
                    await self._drop(scope, name)
                except BrokerError as error:
                    logger.info("a pause that has ended could not be taken away", scope=scope, name=name, error=error)
                    return

    # --- what others say ----------------------------------------------------------------------------------------

    def _changed(self, scope: Scope, name: str, value: Mapping[str, Any] | None) -> None:
        if value is not None:
            self._know(_pause(scope, name, _fact(value)))
        elif (before := self.holds.drop(scope, name)) is not None:
            _say("resumed", before)
            self._apply()

    def _know(self, pause: Pause) -> None:
        before = self.holds.get(pause.scope, pause.name)
        self.holds.put(pause)
        if self.holds.get(pause.scope, pause.name) is None:  # it had ended before it was heard of
            self.holds.drop(pause.scope, pause.name)
        elif before != pause:
            _say("paused", pause)
        self._apply()


def _pause(scope: Scope, name: str, fact: _Fact) -> Pause:
    return Pause(scope=scope, name=name, since=fact.since, until=fact.until, reason=fact.reason, by=fact.by)


def _fact(value: Mapping[str, Any]) -> _Fact:
    """What a fact says; one that cannot be read is a pause without an end, which somebody wanted."""
    try:
        return msgspec.convert(value, _Fact)
    except msgspec.ValidationError:
        return _Fact(0.0)


def _moment(until: Until, now: float) -> float | None:
    """An end in Unix seconds: of a time, or of seconds from now."""
    match until:
        case None:
            return None
        case datetime() | str():
            return utc(until, "until").timestamp()
        case timedelta():
            return now + until.total_seconds()
        case bool():
            pass
        case int() | float() if 0 < until < 10**10:
            return now + until
    raise InvalidEvent(f"until: {shown(until)} is neither a time nor a number of seconds above 0")


def _say(what: str, pause: Pause) -> None:
    """A line for what no valve says of itself."""
    if pause.scope != "subscription":
        words = said(pause) if what == "paused" else {"scope": pause.scope, "name": pause.name}
        logger.info(f"{pause.scope} {what}", **words)
