"""What an instance has joined by one line: the streams, what all know, what it serves, what is delayed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from time import monotonic
from typing import Any, Final

from msgspec import structs

from wowevent.broker import Retention, Subscription, SubscriptionInfo
from wowevent.brokers.nats.consumers import Consumers, patience
from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.counting import NOTHING, Counting, Seen
from wowevent.brokers.nats.delays import Delays
from wowevent.brokers.nats.faults import MOST_CONSUMERS, NO_STREAM, code_of
from wowevent.brokers.nats.history import Past, Tail
from wowevent.brokers.nats.janitor import Janitor
from wowevent.brokers.nats.lanes import AGAIN
from wowevent.brokers.nats.letters import Letters
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.locks import LATER, LOCK, Locks
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.registry import Registry, remade
from wowevent.brokers.nats.serving import Serving
from wowevent.brokers.nats.storage import Storage
from wowevent.brokers.nats.successors import Context
from wowevent.clock import Clock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, Closed, StorageFull, SubscriptionNotFound
from wowevent.log import logger
from wowevent.presence import Presence
from wowevent.shared import Shared

BEAT: Final = 5.0
"""Seconds between two looks at what time has brought."""
_TOUCH: Final = 3.0  # real seconds between two times that the server is told what is ours
_SERVED: Final = 0.1  # of the time after which an unserved one lapses: how exactly it is noted when one was served
_SILENT: Final = 20.0  # seconds without a word of the control stream, not even that nothing comes
_CONSUMERS: Final = 100_000  # of a stream: two a subscription
_AT_ONCE: Final = 50  # subscriptions that are asked about at the same time
_KNOWN: Final = 120  # seconds for which the server knows an id


class Session:
    """One line, and what hangs on it."""

    def __init__(
        self,
        link: Link,
        names: Names,
        *,
        registry: Registry,
        presence: Presence,
        retention: Retention,
        clock: Clock,
        servings: dict[str, Serving],
        replicas: int = 1,
    ) -> None:
        """Nothing is asked before `join`."""
        self.link: Link = link
        self.names: Names = names
        self.registry: Registry = registry
        self.presence: Presence = presence
        self.clock: Clock = clock
        self.tails: set[Tail] = set()
        """Who reads the log's end."""
        self.pasts: set[Past] = set()
        """And who reads the rest of it."""
        self.servings: dict[str, Serving] = servings
        """What this instance serves, which outlives the line."""
        self.control: Control = Control(link, names, registry, presence)
        self.locks: Locks = Locks(link, names, presence)
        """The locks."""
        self.storage: Storage = Storage(link, names)
        """Whether the streams store what they are given."""
        self.consumers: Consumers = Consumers(link, names, self.control, self.look)
        """What the server has of each subscription."""
        self.letters: Letters = Letters(link, names, self.control, self.consumers.again)
        self.counting: Counting = Counting(link, names, self.consumers)
        """How much there is of each subscription."""
        self.delays: Delays = Delays(link, names, self.control, self.locks, clock)
        self.infos: Shared[list[SubscriptionInfo]] = Shared(self._infos)
        """All subscriptions, as they are now."""
        self._retention = retention
        self._replicas = replicas
        self._janitor = Janitor(self, retention)
        self._noted: dict[str, float] = {}
        self._streams: dict[str, str] = {}
        self._taken_over: dict[str, float] = {}
        self._timer: Timer | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._beating: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[Any]] = set()
        self.control.on_change = self._changed
        self.control.on_free = self._freed
        self.control.on_lock = self.locks.hear
        link.refuses = self.storage.refuses
        link.on_end.append(self._ended)

    @property
    def broken(self) -> bool:
        """Whether the line is of no use any more."""
        return self.link.error is not None

    # --- joining --------------------------------------------------------------------------------------------------

    async def join(self) -> None:
        """Make the streams that are not there, and know what all know."""
        names = self.names
        events = [f"{names.prefix}{lane}.>" for lane in "unUN"]
        kept = [f"{names.prefix}c.>", f"{names.prefix}k.>"]
        made = [
            await self._stream(names.log, events, duplicate_window=_KNOWN * 10**9),
            await self._stream(names.again, [f"{names.prefix}a.>"], retention="workqueue"),
            await self._stream(names.later, [f"{names.prefix}l.>"], max_msgs_per_subject=1),
            await self._stream(names.dead, [f"{names.prefix}d.>"], max_msgs_per_subject=1),
            await self._stream(names.control, kept, max_msgs_per_subject=1, allow_msg_ttl=True),
        ]
        with suppress(StorageFull, BrokerUnavailable):  # who joins now cannot wait for what will not be answered
            await self.storage.look(everywhere=True)
        self.control.again = blake2b(self._streams[names.again].encode(), digest_size=8).hexdigest()
        for serving in self.servings.values():
            serving.relink(self._context())
        await self.control.start(self._streams[names.control])
        await self._miss([name for name in made if name])
        await self.control.begin(self._streams[names.log])
        for id in list(self.servings):  # one more may come from a call that had the line before
            if id in self.registry.known:
                await self.consumers.make(id)
        await self.control.say()
        await self.delays.start()
        self._timer = self.clock.call_later(BEAT, self._begin_beat)
        self._tick()

    async def _stream(self, name: str, subjects: list[str], **more: Any) -> str:
        """Have it, and know when it was made. Its name, if that was now."""
        made = ""
        try:
            found = await self.link.ask(f"STREAM.INFO.{name}")
        except BrokerError as error:
            if code_of(error) != NO_STREAM:
                raise
            settings = {"storage": "file", "retention": "limits", "discard": "new", "allow_direct": True, **more}
            settings["num_replicas"] = self._replicas
            try:
                found = await self._make_stream(name, subjects=subjects, **settings)
                made = name
            except BrokerError:  # somebody else was faster, with other settings perhaps
                found = await self.link.ask(f"STREAM.INFO.{name}")
        if 0 < int(found["config"].get("max_consumers", -1)) < _CONSUMERS:
            with suppress(BrokerError):  # the account's own limit
                found = await self.link.ask(f"STREAM.UPDATE.{name}", **found["config"] | {"max_consumers": _CONSUMERS})
        self._streams[name] = str(found["created"])
        self.storage.learn(name, int(found["config"].get("num_replicas", 1)))
        return made

    async def _make_stream(self, name: str, **settings: Any) -> Any:
        """A server of 2.15 or newer has room for 1,000 consumers where nothing is said, which is 500 subscriptions."""
        try:
            return await self.link.ask(f"STREAM.CREATE.{name}", name=name, **settings, max_consumers=_CONSUMERS)
        except BrokerError as error:
            if code_of(error) != MOST_CONSUMERS:
                raise
            return await self.link.ask(f"STREAM.CREATE.{name}", name=name, **settings)  # the account's own limit

    async def _miss(self, made: Sequence[str]) -> None:
        """Say what is gone with the streams that had to be made though the others were there."""
        names, log = self.names, self.registry.log
        if log is None and (names.control not in made or names.log in made):  # all of it is new
            return
        for name in made:
            logger.error("a stream was deleted, and all that was in it; it is made anew", stream=name)
        if names.again in made or names.later in made:  # who has something there is not known any more
            lost = AGAIN if names.again in made else ()
            for id in [known.id for known in self.registry.known.values() if known.again]:
                await self.control.change(
                    id, lambda known: None if known is None else remade(structs.replace(known, untold=True), lost)
                )

    async def look(self) -> None:
        """Whether the streams are those that were joined. Else this line is given up, and the next one makes them."""
        found = await asyncio.gather(*map(self._created, self._streams))
        if found != [*self._streams.values()]:
            self.link.fail(BrokerUnavailable("nats: a stream was deleted"))
            raise BrokerUnavailable("nats: a stream was deleted")

    async def _created(self, stream: str) -> str:
        try:
            return str((await self.link.ask(f"STREAM.INFO.{stream}"))["created"])
        except BrokerError as error:
            if code_of(error) != NO_STREAM:
                raise
            return ""

    async def purge(self, stream: str, subject: str) -> None:
        """Nothing lies there any more."""
        await self.link.ask(f"STREAM.PURGE.{stream}", filter=subject)

    # --- serving --------------------------------------------------------------------------------------------------

    def find(self, id: str) -> Subscription:
        """The declaration of a remembered subscription."""
        spec = self.registry.spec(id)
        if spec is None:
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered")
        return spec

    def serving(self, id: str) -> Serving:
        """This instance's part in it."""
        found = self.servings.get(id)
        if found is None:
            found = self.servings[id] = Serving(id, self._context())
        return found

    def _context(self) -> Context:
        return Context(self.link, self.control, self.consumers, self.names, self.clock, self._retention.max_age)

    async def serve(self, id: str) -> None:
        """This instance is a consumer of it, and all know."""
        if id not in self.presence.serving:
            self.presence.serving.add(id)
            await self._note_served(id)
            await self.control.say()

    async def _note_served(self, id: str) -> None:
        now = self.clock.time()
        try:
            await self.control.note(id, at=now)
        except StorageFull as error:  # the next beat tries again; one that is served does not lapse meanwhile
            logger.debug("no room to note that a subscription is served", subscription=id, error=error)
        else:
            self._noted[id] = now

    async def lock(self, id: str) -> bool:
        """Whether this instance is the one that may hold leases of an exclusive subscription."""
        what = f"one.{id}"
        if not self.locks.holds(what):
            if not await self.locks.lock(what):
                return False
            await self.control.say()
            self._taken_over[id] = monotonic() + await self._others_time(id)
        return self.holds(id)

    def holds(self, id: str) -> bool:
        """Whether it is now."""
        return self.locks.holds(f"one.{id}") and monotonic() >= self._taken_over.get(id, 0.0)

    async def _others_time(self, id: str) -> float:
        """Seconds until what the one before had, and did not give back, is delivered again: it comes first."""
        known, serving = self.registry.known.get(id), self.serving(id)
        if known is None:
            return 0.0
        states = await self.consumers.states(self.consumers.wanted(known))
        held = sum(int(state.get("num_ack_pending", 0)) for state in states)
        if held <= len(serving.leases) + len(serving.lanes):
            return 0.0
        return max(0.0, patience(self.find(id).lease) - LOCK + 2 * _TOUCH)

    async def unlock(self, id: str) -> None:
        """Let another one hold leases, once none is open here."""
        serving = self.servings.get(id)
        held = f"one.{id}" in self.locks.held and id not in self.presence.serving
        if held and (serving is None or not serving.leases) and await self.locks.free(f"one.{id}"):
            await self.control.say()

    async def leave(self, ids: Sequence[str]) -> None:
        """Be no consumer of these any more."""
        left = [id for id in ids if id in self.presence.serving]
        self.presence.serving.difference_update(left)
        for id in ids:
            if id in self.servings:
                self.servings[id].lanes.news.notify()
                if id in self.registry.known:
                    await self.servings[id].stop()
                await self.unlock(id)
        for id in left:
            await self._note_served(id)
        if left:
            await self.control.say()

    def _changed(self, id: str) -> None:
        """The control stream said something of it."""
        if id not in self.registry.known:
            self.presence.serving.discard(id)
        if id in self.servings:
            self.servings[id].check()

    def _freed(self) -> None:
        for serving in self.servings.values():
            serving.lanes.news.notify()
        self.delays.look()

    def begin(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside what is done now."""
        task = asyncio.create_task(work, name="nats:job")
        self._jobs.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        say = logger.debug if isinstance(error, BrokerError | Closed) else logger.error
        say("nats does not answer now", error=error)

    # --- numbers --------------------------------------------------------------------------------------------------

    async def sync(self) -> None:
        """Know all that was said before; what is due here has happened."""
        due = [serving.expiry for serving in self.servings.values() if serving.expiry.due]  # of 1,000 none or a few
        await asyncio.gather(*(expiry.flush() for expiry in due), self.delays.flush())
        await self.control.sync()

    async def ends(self) -> tuple[int, int]:
        """The first sequence that the log still has, and its last."""
        state = (await self.link.ask(f"STREAM.INFO.{self.names.log}"))["state"]
        last = int(state["last_seq"])
        return max(1, int(state["first_seq"])) if state["messages"] else last + 1, last

    async def _infos(self) -> list[SubscriptionInfo]:
        await self.sync()
        seen, ids = await self.counting.all(), list(self.registry.known)
        infos: list[SubscriptionInfo | None] = []
        for at in range(0, len(ids), _AT_ONCE):
            infos += await asyncio.gather(*(self.info(id, seen) for id in ids[at : at + _AT_ONCE]))
        return [info for info in infos if info is not None]

    async def info(self, id: str, seen: Seen = NOTHING) -> SubscriptionInfo | None:
        """As of now, once `sync` has returned."""
        spec, known = self.registry.spec(id), self.registry.known.get(id)
        if spec is None or known is None:
            return None
        serving = self.servings.get(id)
        here = 0 if serving is None else len(serving.lanes)
        counts = await self.counting.of(known, seen)
        return SubscriptionInfo(
            subscription=spec,
            ready=here + counts.pending,
            leased=max(0, counts.given - here),
            delayed=counts.delayed,
            dead=counts.dead,
            consumers=self.presence.consumers(id),
            oldest=None,
            lost=known.lost if known.lost or not known.untold else None,
            lapsed=known.lapsed,
        )

    # --- time -----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """By the machine's clock, since it is the server's that gives away what nothing is heard of."""
        if self.broken:
            return
        for serving in self.servings.values():
            serving.lanes.look()
            if serving.holding:
                self.begin(serving.touch())
        if max(self.control.silent, self.delays.silent, *(tail.silent for tail in self.tails)) > _SILENT:
            self.link.fail(BrokerUnavailable("nats: a stream that is followed is silent"))
        if self.locks.held:
            self.begin(self._renew())
        self._ticking = asyncio.get_running_loop().call_later(_TOUCH, self._tick)

    async def _renew(self) -> None:
        for what in list(self.locks.held):
            if what != LATER:  # which is said more often
                await self.locks.lock(what)

    def _begin_beat(self) -> None:
        if not self.broken and (self._beating is None or self._beating.done()):
            self._beating = asyncio.create_task(self._beat(), name="nats:beat")
        self._timer = self.clock.call_later(BEAT, self._begin_beat)

    async def _beat(self) -> None:
        """Say that we are here, note what is served, let lapse what nobody serves, keep the log's limits.

        Each apart: where there is no room for a note, the limits make some.
        """
        for step in (self.look, self.control.say, self._note_all, self._lapse, self._unlock_all, self._janitor.trim):
            try:
                await step()
            except (BrokerError, Closed) as error:
                logger.debug("nats does not answer the beat", error=error)

    async def _note_all(self) -> None:
        now = self.clock.time()
        for id in list(self.presence.serving):
            if now - self._noted.get(id, 0.0) > self._retention.unserved_after * _SERVED:
                await self._note_served(id)

    async def _lapse(self) -> None:
        now = self.clock.time()
        for id, known in list(self.registry.known.items()):
            if not known.lapsed and now - known.at >= self._retention.unserved_after:
                await self._janitor.lapse(id)

    async def _unlock_all(self) -> None:
        for id in list(self.servings):
            await self.unlock(id)

    # --- the end --------------------------------------------------------------------------------------------------

    def _ended(self) -> None:
        for serving in self.servings.values():
            serving.lanes.news.notify()
        for tail in list(self.tails):
            tail.wake()

    async def close(self, *, goodbye: bool) -> None:
        """Leave the line; with `goodbye` in good order, as far as the server answers."""
        if self._timer is not None:
            self._timer.cancel()
        if self._ticking is not None:
            self._ticking.cancel()
        await end(self._beating)
        if goodbye and not self.broken:
            with suppress(TimeoutError):
                async with asyncio.timeout(5):
                    await self._goodbye()
        for tail in list(self.tails):
            await tail.end()
        for past in list(self.pasts):
            with suppress(BrokerError, Closed):
                await past.close()
        await end(*self._jobs)
        await self.infos.close()
        await self.delays.close()
        await self.control.close()
        await self.link.close()

    async def _goodbye(self) -> None:
        """Each step apart: others go on sooner by whatever of it the server takes."""
        steps: list[Callable[[], Awaitable[None]]] = [partial(self.leave, list(self.presence.serving))]
        for serving in self.servings.values():
            steps += [serving.stop, serving.abandon]
        steps += [self.delays.close, self._free_all, self.control.leave]
        for step in steps:
            with suppress(BrokerError, Closed):
                await step()

    async def _free_all(self) -> None:
        for what in list(self.locks.held):
            await self.locks.free(what)
