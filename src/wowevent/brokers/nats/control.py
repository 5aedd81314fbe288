"""The control stream: the newest of each thing that all instances must know, changed only by who knows the newest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from msgspec import structs

from wowevent.brokers.nats.faults import WRONG_SEQUENCE, is_missing, refusal
from wowevent.brokers.nats.link import SILENCE, Link
from wowevent.brokers.nats.locks import LATER
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.registry import Known, Log, Registry, pack, read_known, read_log, renewed
from wowevent.brokers.nats.stream import Follower, Item
from wowevent.brokers.nats.tags import expecting, living
from wowevent.ending import end
from wowevent.errors import BrokerError, BrokerUnavailable, BusError, StorageDamaged, StorageFull
from wowevent.log import logger
from wowevent.presence import Note, Presence, read, write
from wowevent.shared import Shared
from wowevent.wakeup import Wakeup

_TOMBSTONE: Final = 86_400.0  # seconds for which it is known that a subscription was removed
_NOTE: Final = 60.0  # seconds after which the server forgets what an instance said
_TRIES: Final = 100


class Control:
    """The stream, as one instance sees it by one link."""

    def __init__(self, link: Link, names: Names, registry: Registry, presence: Presence) -> None:
        """Nothing is read before `start`."""
        self.registry: Registry = registry
        self.on_change: Callable[[str], object] = lambda _: None
        """Told the id of a subscription of which something was said."""
        self.on_free: Callable[[], object] = lambda: None
        """Told that a lock was let go."""
        self.on_lock: Callable[[str, int], object] = lambda _subject, _seq: None
        """Told what the holder of a watched lock wrote: subject and sequence."""
        self.sync: Shared[None] = Shared(self._sync)
        """Returns once all is folded that was written before the call."""
        self.say: Shared[None] = Shared(self._say)
        """Returns once all can know what this instance reads, serves and holds; where there is no room, that is later.

        It names all of that each time: of 50 calls that begin to serve something at once, one says it for all.
        """
        self.again: str = ""
        """Which one the stream of what comes once more is: its sequences are names of messages."""
        self._link = link
        self._names = names
        self._presence = presence
        self._news = Wakeup()
        self._folded = Wakeup()
        self._follower: Follower | None = None
        self._task: asyncio.Task[None] | None = None
        self._unsaid = False
        link.on_end.append(self._folded.notify)
        link.on_end.append(self._news.notify)

    async def start(self, created: str) -> None:
        """Read all that there is, and go on. `created` is when the stream was made."""
        registry = self.registry
        registry.offset = 0
        registry.revisions.clear()
        subjects = [f"{self._names.prefix}c.>", self._names.lock(LATER)]
        self._follower = await Follower.follow(self._link, self._names.control, subjects, news=self._news)
        self._task = asyncio.create_task(self._follow(self._follower), name="nats:control")
        await self.sync()
        anew = registry.stream not in ("", created)
        registry.stream = created
        for id in [id for id in registry.known if id not in registry.revisions]:
            if anew:
                await self._restore(self._names.subscription(id), pack(registry.known[id]))
            else:  # it was removed so long ago that nobody knows
                registry.forget(id)
                self.on_change(id)
        if anew and registry.log is not None:
            await self._restore(f"{self._names.prefix}c.log", pack(registry.log))
        if anew:
            await self.sync()

    async def _restore(self, subject: str, body: bytes) -> None:
        """What this instance knew is there again, unless another one has said more."""
        (confirm,) = await self._link.publish([Message(subject, body, expecting(0))])
        if confirm.error is not None and confirm.error.get("err_code") != WRONG_SEQUENCE:
            raise refusal(confirm.error)

    async def _follow(self, follower: Follower) -> None:
        while True:
            item = await follower.next()
            try:
                self._fold(item)
            except BusError as error:
                logger.error("an entry of the control stream cannot be read", subject=item.subject, error=error)
            self.registry.offset = item.seq
            self._folded.notify()

    def _fold(self, item: Item) -> None:
        if item.subject == self._names.lock(LATER):
            self.on_lock(item.subject, item.seq)
            return
        kind, _, _ = item.subject[len(self._names.prefix) + 2 :].partition(".")
        if kind == "s":
            known = read_known(item.body)
            if item.subject != self._names.subscription(known.id):
                raise StorageDamaged(f"an entry of subscription {known.id!r} is where another one's belongs")
            self.registry.fold(item.seq, known)
            self.on_change(known.id)
        elif kind == "i":
            note = read(item.body)
            if note is not None and self._presence.hear(note):
                self.on_free()
        elif kind == "log":
            self.registry.log = read_log(item.body)

    async def _sync(self) -> None:
        try:
            answer = await self._link.ask(
                f"STREAM.MSG.GET.{self._names.control}", last_by_subj=f"{self._names.prefix}c.>"
            )
        except BrokerError as error:
            if is_missing(error):
                return
            raise
        await self.reached(int(answer["message"]["seq"]))

    async def reached(self, seq: int) -> None:
        """Return once that entry is folded."""
        try:
            async with asyncio.timeout(SILENCE):
                while self.registry.offset < seq:
                    if self._link.error is not None:
                        raise BrokerUnavailable("nats: the connection was lost")
                    await self._folded.wait()
        except TimeoutError:
            self._link.fail(BrokerUnavailable(f"nats: no answer within {SILENCE:g} s"))
            raise BrokerUnavailable("nats: the control stream does not go on") from None

    # --- changing -------------------------------------------------------------------------------------------------

    async def begin(self, created: str) -> None:
        """Which log it is: a new one, or the one that it was. `created` is when its stream was made."""
        log = self.registry.log
        if log is None or log.created != created:
            subject, body = f"{self._names.prefix}c.log", pack(Log(uuid4().hex[:12], created))
            before = 0 if log is None else await self._last(subject)
            (confirm,) = await self._link.publish([Message(subject, body, expecting(before))])
            if confirm.error is not None and confirm.error.get("err_code") != WRONG_SEQUENCE:
                raise refusal(confirm.error)
            await self.sync()
        for id in [known.id for known in self.registry.known.values() if known.log != created]:
            logger.error("the log was made anew, what was unread is gone", subscription=id)
            await self.change(
                id, lambda known: None if known is None or known.log == created else renewed(known, created)
            )

    async def change(self, id: str, change: Callable[[Known | None], Known | None]) -> Known | None:
        """Make of the newest entry of a subscription what `change` says; None: leave it. Returns what is there then.

        `change` may be called again, with what another one was faster to write.
        """
        subject = self._names.subscription(id)
        for _ in range(_TRIES):
            known = self.registry.known.get(id)
            new = change(known)
            if new is None or new == known:
                return known
            more = living(_TOMBSTONE) if new.removed else b""
            headers = expecting(self.registry.revisions.get(id, 0)) + more
            (confirm,) = await self._link.publish([Message(subject, pack(new), headers)])
            if confirm.error is None:
                await self.reached(confirm.seq)
                return new
            if confirm.error.get("err_code") != WRONG_SEQUENCE:
                raise refusal(confirm.error)
            await self.sync()
            if self.registry.revisions.get(id, 0) and not await self._last(subject):
                self.registry.revisions[id] = 0  # the server has forgotten that it was removed
        raise BrokerUnavailable(f"nats: {id!r} is changed by others all the time")

    async def note(self, id: str, **fields: Any) -> None:
        """Change fields of what is known of a subscription, if it is remembered."""
        await self.change(id, lambda known: None if known is None else structs.replace(known, **fields))

    async def _last(self, subject: str) -> int:
        try:
            answer = await self._link.ask(f"STREAM.MSG.GET.{self._names.control}", last_by_subj=subject)
        except BrokerError as error:
            if is_missing(error):
                return 0
            raise
        return int(answer["message"]["seq"])

    async def leave(self) -> None:
        """Say that this instance is gone; it says nothing more."""
        await self.say.close()
        await self._say(gone=True)

    async def _say(self, *, gone: bool = False) -> None:
        note = self._presence.note()
        if gone:
            note = Note(note.sender, gone=True)
        subject = f"{self._names.prefix}c.i.{note.sender}"
        try:
            (confirm,) = await self._link.store([Message(subject, write(note), living(5 if gone else _NOTE))])
        except StorageFull as error:  # what is stored can be read and acknowledged all the same
            if not self._unsaid:
                logger.warning("no room for a note: others do not know what this instance serves", error=error)
            self._unsaid = True
            return
        self._unsaid = False
        await self.reached(confirm.seq)

    async def close(self) -> None:
        """Follow no more."""
        await self.say.close()
        await self.sync.close()
        await end(self._task)
        if self._follower is not None:
            await self._follower.close()

    @property
    def silent(self) -> float:
        """Seconds since the server said anything here."""
        return 0.0 if self._follower is None else self._follower.silent
