"""What one instance has joined: the log's epoch, its own number, the registry, its wake-ups, and its beat."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from wowevent.broker import Position, Retention, Subscription
from wowevent.brokers.redis.dial import Dial
from wowevent.brokers.redis.faults import Refused
from wowevent.brokers.redis.line import Line
from wowevent.brokers.redis.registry import Registry, text_of
from wowevent.brokers.redis.script import SCRIPTS
from wowevent.clock import Clock, SystemClock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, Closed, FormatTooNew, SubscriptionNotFound
from wowevent.log import logger

LAYOUT: Final = 1
_BEAT: Final = 1.0  # seconds between looks at what is due
_RENEW: Final = 5.0  # seconds between signs of life, which hold for 15, and between looks at the limits
_RECONNECT: Final = (0.05, 1.0)
_PATIENCE: Final = 3.0  # seconds that a call waits for another log to be joined
_DUE: Final = 500  # delayed events that one look gives at most
_STALE: Final = 50  # times that a registry may change under one call

Release = Callable[[Sequence[bytes]], Any]
"""Appends delayed events whose moment has come."""


class Session:
    """One instance of the engine, joined to its log."""

    def __init__(self, dial: Dial, key: str, retention: Retention, clock: Clock) -> None:
        self.key = key
        self.clock = clock
        self.epoch: str = ""
        self.instance: str = ""
        self.registry: Registry = Registry()
        self.serving: set[str] = set()
        self.lost: dict[str, list[str]] = {}
        """By subscription, the fetches whose answers were lost."""
        self.declared: dict[str, Subscription] = {}
        self.known: int = 0
        """The last position that we were told of: the log must not end before it."""
        self._dial = dial
        self._retention = retention
        self._own_clock = not isinstance(clock, SystemClock)
        self.line: Line = Line(dial, [("SCRIPT", "LOAD", script.text) for script in SCRIPTS.values()])
        self._fetches = 0
        self._waiting: dict[str, list[asyncio.Future[None]]] = {}
        self._listener: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None
        self._timer: Timer | None = None
        self._beat_at = 0.0
        self._renewed = float("-inf")
        self._rejoining: asyncio.Task[None] | None = None
        self._release: Release | None = None
        self.closed: bool = False
        self.broken: bool = False
        """Never: it mends its own line, and joins another log by itself."""

    # --- joining ------------------------------------------------------------------------------------------------

    async def join(self, release: Release) -> None:
        """Join the log, which is made if there is none; from here on wake-ups are heard, and time has effects."""
        self._release = release
        await self._open()
        await self.line.call("PUBLISH", f"{self.key}:wake:", "")  # who may not must not begin: scripts would break off
        await self.fold()
        self._listener = asyncio.create_task(self._listen(), name="redis:wake")
        self._renewed = self.clock.monotonic()
        self.soon(0.0)

    async def _open(self) -> None:
        epoch, instance, layout = await self.call("open", secrets.token_hex(4))
        if int(layout) > LAYOUT:
            raise FormatTooNew(f"the log was written by a newer WowEvent (layout {int(layout)})")
        if epoch.decode() != self.epoch:
            self.known = 0  # at once: positions of the log before, told to this one, would look as if it lost its end
        self.epoch, self.instance = epoch.decode(), str(instance)

    def learn(self, epoch: str, offset: int) -> None:
        """The log of that epoch has this position. An answer may come when another log is joined already."""
        if epoch == self.epoch:
            self.known = max(self.known, offset)

    async def rejoin(self) -> None:
        """The log is not the one that we joined: say so, join the new one, and declare again what we declared."""
        if self._rejoining is None or self._rejoining.done():
            self._rejoining = asyncio.create_task(self._rejoin(), name="redis:rejoin")
        await asyncio.wait([self._rejoining], timeout=_PATIENCE)

    async def joined(self) -> None:
        """Return when no other log is being joined; BrokerUnavailable if that takes too long."""
        if self._rejoining is not None and not self._rejoining.done():
            await asyncio.wait([self._rejoining], timeout=_PATIENCE)
            if not self._rejoining.done():
                raise BrokerUnavailable("redis: the log that is there now cannot be joined yet")

    async def found(self, epoch: str, head: int, known: int) -> None:
        """A reader that has come to position `known` found that the log ends at `head`, or that it is another one."""
        if head < known:
            self.learn(epoch, known)
        with suppress(BrokerUnavailable):  # it says so once it has joined
            await self.call("beat", self.instance, 0, self.known)

    async def _rejoin(self) -> None:
        """Until it is done: half of it would be silence."""
        was, left = self.epoch, [self.instance, 1, *self._served()]
        while True:
            try:
                await self._open()
                if self.epoch == was:
                    return
                self.registry = Registry()  # the old one's numbers mean others here
                await self.ask("detach", *left)
                await self._declare_again()
                break
            except (BrokerError, Refused) as error:
                logger.warning("the log cannot be joined anew now", error=error, retry_in=_RECONNECT[1])
                await asyncio.sleep(_RECONNECT[1])
        text = "the log was emptied or replaced, or lost its end: positions of before are lost"
        logger.error(text, was=was, now=self.epoch)
        if self._listener is not None:  # our number is another one
            self._listener.cancel()
            self._listener = asyncio.create_task(self._listen(), name="redis:wake")
        self.wake_all()

    async def _declare_again(self) -> None:
        """What we declared, from the new log's beginning; who is served by it is told once that something is lost."""
        for subscription in list(self.declared.values()):
            instance = "" if subscription.durable else self.instance
            await self.ask("declare", subscription.id, text_of(subscription), instance, "first", "", 1)
        registry = Registry()
        registry.fold(await self.ask("fold", registry.version, registry.removals))
        self.registry = registry
        self.serving.clear()
        self.lost.clear()

    def _served(self) -> list[str]:
        """The numbers of what we serve; one that somebody removed has none."""
        return [self.registry.nums[id] for id in self.serving if id in self.registry.nums]

    async def close(self) -> None:
        """Leave, with what was asked for before; wait for nothing that does not come."""
        if self._timer is not None:
            self._timer.cancel()
        await end(self._listener, self._beating, self._rejoining)
        served = self._served()
        self.serving.clear()
        try:
            with suppress(BrokerError, Refused, Closed):
                await self.ask("detach", self.instance, 1, *served)  # another log is not joined for this
        finally:
            self.closed = True
            self.wake_all()
            await self.line.close()

    # --- calls --------------------------------------------------------------------------------------------------

    def times(self) -> tuple[str, str]:
        """Now, in milliseconds of the clock that was given; nothing where that is the server's own."""
        if not self._own_clock:
            return ("", "")
        return (f"{self.clock.time() * 1000:.3f}", f"{self.clock.monotonic() * 1000:.3f}")

    def ask(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        """Run a script; its answer is the future's result, or Refused."""
        return self.line.call("EVALSHA", SCRIPTS[name].sha, 1, self.key, self.epoch, *self.times(), *arguments)

    async def call(self, name: str, *arguments: Any) -> Any:
        """`ask`, and what can be done about a refusal: another log is joined, and the caller may try again."""
        try:
            return await self.ask(name, *arguments)
        except Refused as refused:
            if refused.word != "EPOCH":
                raise
        await self.rejoin()
        raise BrokerUnavailable("redis: the log was emptied or replaced; it begins anew")

    async def routed(self, name: str, compose: Callable[[], Sequence[Any]]) -> Any:
        """A script that goes by the registry, composed anew when that was old."""
        for _ in range(_STALE):
            try:
                return await self.call(name, *compose())
            except Refused as refused:
                if refused.word != "STALE":
                    raise
            await self.fold()
        raise BrokerUnavailable("redis: the subscriptions change faster than events can be routed")

    async def fold(self) -> None:
        """Know the registry as it is now."""
        registry = self.registry
        answer = await self.call("fold", registry.version, registry.removals)
        if registry is self.registry:
            registry.fold(answer)

    async def find(self, id: str) -> tuple[str, Subscription]:
        """The number and the declaration of a remembered subscription."""
        subscription = self.registry.routes.get(id)
        if subscription is None:
            await self.joined()  # until then it is not declared there
            await self.fold()
            subscription = self.registry.routes.get(id)
        if subscription is None or not subscription.durable:
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered")
        return self.registry.nums[id], subscription

    def next_prefix(self) -> str:
        """What the tokens of the next fetch begin with."""
        self._fetches += 1
        return f"{self.instance}.{self._fetches}"

    async def head(self) -> Position:
        """Where the log ends now."""
        epoch, head = await self.line.call("HMGET", f"{self.key}:state", "epoch", "head")
        if epoch is None or epoch.decode() != self.epoch:
            await self.rejoin()
            epoch, head = await self.line.call("HMGET", f"{self.key}:state", "epoch", "head")
        place = Position(self.epoch if epoch is None else epoch.decode(), int(head or 0))
        self.learn(place.epoch, place.offset)
        return place

    # --- wake-ups -----------------------------------------------------------------------------------------------

    def waiter(self, num: str) -> asyncio.Future[None]:
        """Done when there may be something for this subscription."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(num, []).append(future)
        return future

    def wake(self, num: str) -> None:
        """Let those who wait for it look again."""
        for future in self._waiting.pop(num, ()):
            if not future.done():
                future.set_result(None)

    def wake_all(self) -> None:
        """Let all look again."""
        for num in list(self._waiting):
            self.wake(num)

    def leave_waiting(self, num: str, future: asyncio.Future[None]) -> None:
        """It is not waited for any more."""
        left = [each for each in self._waiting.get(num, ()) if each is not future]
        if left:
            self._waiting[num] = left
        else:
            self._waiting.pop(num, None)

    async def _listen(self) -> None:
        """Hear wake-ups, on a connection of its own; what was said before it was there is looked for."""
        pause = _RECONNECT[0]
        while True:
            try:
                connection = await self._dial()
                try:
                    await connection.send_command("SUBSCRIBE", f"{self.key}:wake:{self.instance}")
                    await connection.read_response(disable_decoding=True, timeout=_BEAT)
                    self.wake_all()
                    pause = _RECONNECT[0]
                    await self._hear(connection)
                finally:
                    await connection.disconnect(nowait=True)
            except Exception as error:  # noqa: BLE001 - whatever it was: it is said, and tried again
                logger.debug("wake-ups are not heard now", error=error, retry_in=pause)
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RECONNECT[1])

    async def _hear(self, connection: AbstractConnection) -> None:
        """Until it breaks, or says nothing even when it is asked: a line can die in silence."""
        asked = False
        while True:
            said = await connection.read_response(disable_decoding=True, timeout=_RENEW)
            if said is not None and said[0] == b"message":
                self.wake(said[2].decode())
            elif said is None and asked:
                raise BrokerUnavailable("redis does not answer where it sends wake-ups")
            asked = said is None
            if asked:
                await connection.send_command("PING")

    # --- time ---------------------------------------------------------------------------------------------------

    def soon(self, seconds: float) -> None:
        """Something is due then: the next beat is not later."""
        at = self.clock.monotonic() + min(seconds, _BEAT)
        if self.closed or (self._timer is not None and self._beat_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._beat_at = at
        self._timer = self.clock.call_later(max(0.0, at - self.clock.monotonic()), self._begin_beat)

    def _begin_beat(self) -> None:
        self._timer = None
        if self._beating is None or self._beating.done():
            self._beating = asyncio.create_task(self._beat(), name="redis:beat")
        else:
            self.soon(_BEAT)

    async def _beat(self) -> None:
        """Release what is due, say that we are here, keep the limits, and look whether a wake-up got lost."""
        left = _BEAT
        try:
            renew = self.clock.monotonic() - self._renewed >= _RENEW
            if renew:
                self._renewed = self.clock.monotonic()
            answer = await self.call("beat", self.instance, int(renew), self.known, *self._waiting)
            events, due, news, back, taken = answer
            for id in taken:
                logger.error("a delayed event is lost: the server has it no longer", event_id=id.decode())
            if back:
                await self._come_back()
            for num in news:
                self.wake(num.decode())
            if renew:  # first: where memory is full, nothing can be released before the limits have made room
                await self._retain()
            if events and self._release is not None:
                await self._release(events)
                left = 0.0 if len(events) >= _DUE else left
            if int(due) >= 0:
                left = min(left, int(due) / 1000)
        except (BrokerError, Refused) as error:
            logger.debug("redis does not answer the beat", error=error)
            self._renewed = float("-inf")
        except Closed:
            return
        finally:
            self.soon(left)

    async def _come_back(self) -> None:
        """We were silent for so long that others took us to be gone: what we serve is served again."""
        for subscription in self.declared.values():
            if not subscription.durable:
                await self.call("declare", subscription.id, text_of(subscription), self.instance, "new", "")
        self.serving.clear()
        self.wake_all()

    async def _retain(self) -> None:
        limits = self._retention
        age = "" if limits.max_age is None else limits.max_age * 1000
        most = "" if limits.max_bytes is None else limits.max_bytes
        count = "" if limits.max_count is None else limits.max_count
        while await self.call("retain", age, most, count, limits.unserved_after * 1000):
            pass
