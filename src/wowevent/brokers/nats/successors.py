"""What a message becomes when its lease ends otherwise than by an acknowledgement: the copy that bears its counts.

It bears the message's own key as its id or in its subject, so that a message has one successor, whoever writes it and
however often.
"""

from __future__ import annotations

from msgspec import Struct, structs

from wowevent.broker import URGENT, Bury, Retry
from wowevent.brokers.nats.consumers import Consumers
from wowevent.brokers.nats.control import Control
from wowevent.brokers.nats.faults import is_missing
from wowevent.brokers.nats.lanes import LOG, Here
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.names import SUSPECTS, Names
from wowevent.brokers.nats.tags import copied
from wowevent.clock import Clock
from wowevent.errors import BrokerError
from wowevent.event import Event
from wowevent.tag import Tag


class Context(Struct):
    """What serving needs of an instance; the line changes when it is a new one."""

    link: Link
    control: Control
    consumers: Consumers
    names: Names
    clock: Clock
    max_age: float | None


class Successors:
    """Those of one subscription."""

    def __init__(self, id: str, context: Context) -> None:
        """Nothing is asked before `gone_on`."""
        self.context: Context = context
        """Of the line that is used now."""
        self._id = id

    @property
    def epoch(self) -> str:
        """Of the log."""
        log = self.context.control.registry.log
        return "" if log is None else log.epoch

    async def gone_on(self, here: Here) -> bool:
        """Whether it has a successor that waits or is dead. Of one that comes once more the server knows the id."""
        names, key = self.context.names, self._key(here)
        places = (
            (names.later, f"{names.retries(self._id)}.{key}"),
            (names.dead, f"{names.letters(self._id)}.{key}"),
        )
        for stream, subject in places:
            try:
                await self.context.link.ask(f"STREAM.MSG.GET.{stream}", last_by_subj=subject)
            except BrokerError as error:
                if not is_missing(error):
                    raise
            else:
                return True
        return False

    def of(self, here: Here, tag: Tag, event: Event, order: Retry | Bury) -> Message:
        """What it becomes by this order."""
        now, names = self.context.clock.time(), self.context.names
        if isinstance(order, Bury):
            return self.letter(here, tag, order)
        if order.charge:
            tag = tag.failed(now, order.error)
        lane = SUSPECTS if tag.crashes else "u" if event.priority >= URGENT else "n"
        if order.delay <= 0:
            return self.once_more(here, tag, lane)
        later = structs.replace(self._placed(here, tag), due=now + order.delay, target=names.once_more(self._id, lane))
        subject = f"{names.retries(self._id)}.{self._key(here)}"
        return copied(subject, here.item.body, later, self._id_of(here))

    def once_more(self, here: Here, tag: Tag, lane: str) -> Message:
        """It comes again, at once."""
        subject = self.context.names.once_more(self._id, lane)
        kept = structs.replace(self._placed(here, tag), due=0.0, target="")
        return copied(subject, here.item.body, kept, self._id_of(here))

    def letter(self, here: Here, tag: Tag, bury: Bury) -> Message:
        """A dead letter."""
        tag = self._placed(here, tag.buried_by(bury, self.context.clock.time()))
        subject = f"{self.context.names.letters(self._id)}.{self._key(here)}"
        return copied(subject, here.item.body, tag, self._id_of(here))

    def _placed(self, here: Here, tag: Tag) -> Tag:
        """With the event's place, and in which log that is."""
        return structs.replace(tag, place=here.place, copy=self.epoch) if here.source in LOG else tag

    def _key(self, here: Here) -> str:
        """The name of a message, which its one successor bears."""
        seq = here.item.seq
        return f"{self.epoch}l{seq}" if here.source in LOG else f"{self.context.control.again}a{seq}"

    def _id_of(self, here: Here) -> str:
        return f"{self.context.names.consumer(self._id, '')}{self._key(here)}"
