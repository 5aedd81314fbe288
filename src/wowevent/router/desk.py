"""What a session's effects come to: on the bus, in the fan-out, with a courier.

text -> wire.decode -> session.step -> effect -> one method here
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Final, cast

from wowevent.attendance import Guests
from wowevent.broker import Position, SubscriptionInfo
from wowevent.bus import EventBus
from wowevent.clock import Clock
from wowevent.ending import end
from wowevent.errors import BusError, Closed, NotPermitted, OutboxFull, SubscriptionNotFound
from wowevent.event import Event
from wowevent.log import logger
from wowevent.roster import whose
from wowevent.router import witness
from wowevent.router.connection import Connection
from wowevent.router.courier import Courier, Seat
from wowevent.router.door import Door
from wowevent.router.fanout import Fanout
from wowevent.router.intake import Intake, dropped
from wowevent.router.session import (
    Ask,
    Dismiss,
    Effect,
    Know,
    Leave,
    Listen,
    Look,
    Respond,
    Send,
    Serve,
    Settle,
    Store,
    refusal,
)
from wowevent.router.wire import (
    Answer,
    Bad,
    Health,
    Hello,
    Ref,
    Settled,
    Subscribed,
    Unsubscribed,
    decode,
)

_NOT_UTF8: Final = 1007
_TURN: Final = 500  # messages of one client that are carried out before others have their turn
_JOBS: Final = 256  # questions of one client that are answered at a time


class Desk:
    """Carries out what the clients of one router say."""

    def __init__(
        self, bus: EventBus, clock: Clock, door: Door, health: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        """`health()` is what `get_health` is answered with."""
        self.fanout: Fanout = Fanout(bus.broker, bus.feed, bus.storms.guard)
        self.intake: Intake = Intake(bus, self.fanout)
        self.couriers: dict[str, Courier] = {}
        self._bus = bus
        self._clock = clock
        self._door = door
        self._health = health
        self._loop = asyncio.get_running_loop()
        self._draining = False
        self._jobs: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()  # what clients wait to hear the end of
        self._endings: set[asyncio.Task[None]] = set()  # of couriers, which give back what they hold
        self._spawn(self.intake.run())

    async def drain(self, timeout: float) -> None:
        """Take no new events; what is on its way is stored, and what clients hold they may finish."""
        self._draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self.intake.drained()
                await asyncio.gather(*(courier.drain() for courier in self.couriers.values()))
                await asyncio.gather(*self._settling)
        await asyncio.gather(*(courier.stop() for courier in list(self.couriers.values())))

    def guests(self, agents: Iterable[str]) -> Guests:
        """Who is here: these, whose clients are connected, and for whom couriers work."""
        couriers = [courier.spec for courier in self.couriers.values()]
        serves = [*(spec.id for spec in couriers), *self.fanout.ids]
        return Guests(agents=[*agents, *map(whose, couriers)], serves=serves)

    async def close(self) -> None:
        """End everything; the clients are gone by now."""
        await self.fanout.close()
        if self._endings:
            await asyncio.wait(self._endings)
        await end(*self._jobs)

    def received(self, connection: Connection, text: bytes) -> None:
        """One message; it waits if an earlier one of this client is not carried out yet, or if others had no turn.

        A fault of ours ends the connection, which would else not be read from again.
        """
        if connection.busy or connection.carried >= _TURN:
            connection.waiting.append(text)
            connection.read(on=False)
            return
        if not connection.carried:
            self._loop.call_soon(self._next_turn, connection)
        connection.carried += 1
        try:
            frame = decode(text)
            if isinstance(frame, Bad) and not _is_utf8(text):
                connection.close(_NOT_UTF8, "text is UTF-8")
                return
            effect = connection.session.step(frame, self._clock.time())
            if connection.session.identity is not None:
                witness.note(connection, frame, effect)
            self._perform(connection, effect)
        except Exception as error:  # noqa: BLE001 - said, and the client told
            _fail(connection, error)

    def gone(self, connection: Connection) -> None:
        """A client is not there any more: what it held waits a little for it, unless it said goodbye."""
        for member in connection.members.values():
            self.fanout.leave(member)
        for courier, seat in connection.seats.values():
            courier.leave(seat, goodbye=connection.goodbye)
            self._retire(courier)
        connection.members.clear()
        connection.seats.clear()
        for asking in connection.asking:  # nobody hears the answers
            asking.cancel()

    # --- effects ------------------------------------------------------------------------------------------------

    def _perform(self, connection: Connection, effect: Effect) -> None:  # noqa: C901, PLR0912 - one case an effect
        match effect:
            case Store():
                if self._draining:
                    connection.send(dropped(effect, Closed("the router is going away")))
                else:
                    self.intake.put(connection, effect)
            case Send():
                connection.send(effect.frame)
                if isinstance(effect.frame, Hello):
                    self._bus.attendance.change()
            case Settle(ref=None):
                courier, seat = connection.seats[effect.id]
                courier.settle(seat, effect.tokens, effect.outcome)
            case Settle():
                settle = self._settle(connection, effect, *connection.seats[effect.id])
                if (settling := self._job(connection, effect.ref, settle)) is not None:
                    self._settling.add(settling)
                    settling.add_done_callback(self._settling.discard)
            case Listen() | Serve() if connection.jobs >= _JOBS:
                connection.session.forget(effect.id)
                self._refuse(connection, effect.ref)
            case Listen():
                self._listen(connection, effect)
            case Serve():
                connection.busy = True
                self._job(connection, effect.ref, self._serve(connection, effect))
            case Leave():
                self._leave(connection, effect)
            case Ask():
                if (asking := self._job(connection, effect.ref, self._ask(connection, effect))) is not None:
                    connection.asking.add(asking)
                    asking.add_done_callback(connection.asking.discard)
            case Respond():
                self._job(connection, effect.ref, self._respond(effect))
            case Look():
                self._job(connection, effect.ref, self._look(connection, effect))
            case Know():
                if self._door.introduce(connection, effect.token):
                    self._perform(connection, connection.session.step(effect.hello, self._clock.time()))
            case Dismiss():
                self._door.dismiss(connection, effect.reason)

    def _listen(self, connection: Connection, effect: Listen) -> None:
        """What is published from here on is for it; it gets that behind the answer, once the engine knows of it."""
        member = connection.members[effect.id] = self.fanout.join(connection, effect.id, effect.spec)
        answered = False

        def answer(recovered: bool, lost: int | None, position: Position) -> None:
            nonlocal answered
            answered = True
            connection.send(_subscribed(effect, recovered, lost, position=position))

        async def serve() -> None:
            try:
                await self.fanout.serve(member, effect.after, answer)
            except BusError:
                self._forget(connection, effect.id)
                raise
            if not answered:
                raise SubscriptionNotFound("unsubscribed before it was served")

        self._job(connection, effect.ref, serve())

    async def _serve(self, connection: Connection, effect: Serve) -> None:
        """A named subscription; frames behind it wait, since a publish among them must be seen by it."""
        broker, id = self._bus.broker, effect.spec.id
        try:
            before = await broker.info(id)
            _check_joining(connection, before)
            head = (await broker.ping()).head
            await broker.declare(effect.spec)
            if self._draining:  # it is told by the close of its connection, and asks the next router
                connection.session.forget(effect.id)
                return
            courier = self.couriers.get(id)
            if courier is None:
                courier = self.couriers[id] = Courier(
                    effect.spec,
                    effect.policy,
                    self._bus.tally(effect.spec),
                    clock=self._clock,
                    lasting=self._bus.capabilities.lasting_leases,
                    holds=self._bus.holds,
                    fail=self._fail,
                    guard=self._bus.storms.guard,
                    abandoned=self._retire,
                    removed=self._end,
                    buried=self._bus.tellings.buried,
                )
            courier.expected += 1
            try:
                await courier.start(effect.spec)
                if connection.session.identity is not None:
                    _check_joining(connection, await broker.info(id))  # somebody may have declared it meanwhile
                    witness.served(connection, effect)
                if connection.connected:
                    connection.send(_subscribed(effect, *_missing(before), position=head))
                    self._seat(connection, effect, courier)
            finally:
                courier.expected -= 1
                self._retire(courier)
        except BusError as error:
            connection.session.forget(effect.id)
            if isinstance(error, NotPermitted):
                witness.refused(connection, effect, error)
            raise
        finally:
            connection.busy = False
            self._resume(connection)

    def _seat(self, connection: Connection, effect: Serve, courier: Courier) -> None:
        seat = Seat(connection, effect.id, connection.session.instance, effect.credit)
        connection.seats[effect.id] = (courier, seat)
        self._bus.attendance.change()
        courier.join(seat, effect.held, effect.policy)

    def _next_turn(self, connection: Connection) -> None:
        connection.carried = 0
        if connection.waiting and not connection.busy:
            self._resume(connection)

    def _resume(self, connection: Connection) -> None:
        """Carry out what came meanwhile, a turn's worth of it."""
        while connection.waiting and not connection.busy and connection.connected and connection.carried < _TURN:
            self.received(connection, connection.waiting.popleft())
        if not connection.waiting and not connection.busy:
            connection.read(on=True)

    def _leave(self, connection: Connection, effect: Leave) -> None:
        self._forget(connection, effect.id)
        connection.send(Unsubscribed(ref=effect.ref, subscription_id=effect.id))

    def _forget(self, connection: Connection, id: str) -> None:
        """The client has this subscription no longer."""
        connection.session.forget(id)
        if (member := connection.members.pop(id, None)) is not None:
            self.fanout.leave(member)
        if (served := connection.seats.pop(id, None)) is not None:
            courier, seat = served
            courier.leave(seat, goodbye=True)
            self._retire(courier)

    def _end(self, courier: Courier) -> None:
        """Somebody has removed the subscription: its clients have it no longer."""
        for seat in list(courier.seats):
            connection = cast("Connection", seat.client)
            self._forget(connection, seat.name)
            connection.send(Unsubscribed(subscription_id=seat.name))
        self._dismiss(courier)

    def _retire(self, courier: Courier) -> None:
        """A courier that nobody needs ends; one that may be needed again is looked at later."""
        if courier.unused:
            self._dismiss(courier)

    def _dismiss(self, courier: Courier) -> None:
        if self.couriers.get(courier.spec.id) is courier:
            del self.couriers[courier.spec.id]
            self._bus.attendance.change()
        ending = self._spawn(courier.stop())
        self._jobs.discard(ending)
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _settle(self, connection: Connection, effect: Settle, courier: Courier, seat: Seat) -> None:
        settled = await courier.settle_now(seat, effect.tokens, effect.outcome)
        stale = len(effect.tokens) - settled
        connection.send(Settled(ref=effect.ref, subscription_id=effect.id, settled=settled, stale=stale))

    async def _ask(self, connection: Connection, effect: Ask) -> None:
        reply = await self._bus.request(effect.event, timeout=effect.timeout)
        connection.send(Answer(ref=effect.ref, event_id=effect.event.event_id, reply=reply))

    async def _respond(self, effect: Respond) -> None:
        asked = effect.asked
        request = Event(
            topic="request", event_id=asked.event_id, correlation_id=asked.correlation_id, reply_to=asked.reply_to
        )
        await self._bus.answer(request, effect.reply, effect.error)

    def _fail(self, request: Event, error: str) -> None:
        self._spawn(self._bus.answer(request, None, error))

    async def _look(self, connection: Connection, effect: Look) -> None:
        connection.send(Health(ref=effect.ref, health=await self._health()))

    # --- jobs ---------------------------------------------------------------------------------------------------

    def _job(self, connection: Connection, ref: Ref, job: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Carry out what takes time; what goes wrong is answered. None if a client has too many questions open."""
        if connection.jobs >= _JOBS:
            job.close()
            self._refuse(connection, ref)
            return None
        connection.jobs += 1
        return self._spawn(self._answered(connection, ref, job))

    def _refuse(self, connection: Connection, ref: Ref) -> None:
        connection.send(refusal(OutboxFull(f"{_JOBS} questions of this client are open"), ref).frame)

    async def _answered(self, connection: Connection, ref: Ref, job: Coroutine[Any, Any, None]) -> None:
        try:
            await job
        except BusError as error:
            connection.send(refusal(error, ref).frame)
        except Exception as error:  # noqa: BLE001 - said, and the client told
            _fail(connection, error)
        finally:
            connection.jobs -= 1

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(job, name="wowevent:router")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task


def _fail(connection: Connection, error: Exception) -> None:
    logger.error("a frame could not be carried out", exc_info=error)
    connection.fail()


def _check_joining(connection: Connection, info: SubscriptionInfo | None) -> None:
    """NotPermitted for a client that may not have what this subscription brings."""
    connection.session.check_joining(None if info is None else info.subscription)


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _missing(before: SubscriptionInfo | None) -> tuple[bool, int | None]:
    """Whether a named subscription is whole, and how many events it lost if it is not."""
    lost = 0 if before is None or before.lost is None else before.lost
    return not lost and not (before is not None and before.lapsed), lost or None


def _subscribed(effect: Listen | Serve, recovered: bool, lost: int | None, *, position: Position) -> Subscribed:
    return Subscribed(
        ref=effect.ref,
        subscription_id=effect.id,
        topics=effect.spec.patterns,
        recovered=recovered,
        position=str(position),
        lost=lost,
    )
