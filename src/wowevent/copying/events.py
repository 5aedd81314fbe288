"""Copying facts and events, so that it can be stopped anywhere, by a kill too, and goes on there.

Events go to the target in batches, in the order of the source. Every so many, and when nothing is under way, a fact of
the target notes how far that came. Whoever goes on looks first at what the target got behind the place that the note
names, and does not send that again: no engine has to know ids for that long.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import Final

from msgspec import Struct, structs

from wowevent.broker import Broker, Position, Query, Stored
from wowevent.copying import note as notes
from wowevent.copying.note import Note
from wowevent.copying.past import Past, Told, facts, is_newer, once
from wowevent.directory import Directory
from wowevent.errors import Closed, PositionLost

NOTE_EVERY: Final = 10_000
"""Events that are sent between two notes: so many ids whoever goes on has to look at."""
_TOGETHER: Final = 500  # events of one call
_BYTES: Final = 4 * 2**20  # and payloads, about


class Copied(Struct, frozen=True, kw_only=True):
    """What one run did."""

    events: int
    """Stored at the target."""
    known: int
    """Were there already."""
    facts: int
    """Stored at the target."""
    damaged: int
    """Could not be read at the source, and were left out."""
    gone: bool
    """The limits of the source took events that had not been copied."""
    position: Position
    """Up to here of the source, all that could be copied is there."""


class Copy:
    """One log on its way into another. Only one at a time copies the same one: two would copy twice."""

    def __init__(self, source: Broker, target: Broker, *, note_every: int = NOTE_EVERY) -> None:
        """Nothing is asked before `open`."""
        self._source = source
        self._target = target
        self._every = note_every
        self._directory = Directory(target)
        self._upto: Position | None = None
        self._note: Note | None = None
        self._batch: list[Stored] = []
        self._bytes = self._sent = self._events = self._known = 0

    async def open(self) -> bool:
        """Look where both stand now; False if they are one log, or one is a clone of the other. BrokerError."""
        self._upto = (await self._source.ping()).head
        here = (await self._target.ping()).head
        await self._directory.refresh()
        self._note = notes.read(self._directory, self._upto.epoch, here.epoch)
        return self._upto.epoch != here.epoch

    @property
    def upto(self) -> Position:
        """Where the source ended when this was opened."""
        if self._upto is None:
            raise Closed("this copy was not opened")
        return self._upto

    @property
    def note(self) -> Note | None:
        """What the target knows of it; None if nothing was copied yet."""
        return self._note

    async def filled(self) -> bool:
        """Whether the target has events or remembered subscriptions that are of no copy of this source."""
        if self._note is not None:
            return False
        async with aclosing(self._target.read(Query(limit=1))) as events:
            async for _ in events:
                return True
        return any(present.subscription.durable for present in await self._target.presence())

    async def close(self) -> None:
        """The directory of the target is asked no more."""
        await self._directory.close()

    async def run(self, told: Told = lambda _count, _part: None) -> Copied:
        """Bring the target all that the source had when this was opened and it has not.

        `told` hears how many events were looked at. Raises BrokerError; PositionLost where a log was replaced
        meanwhile.
        """
        note = await self._begin()
        there = set() if note.whole else await self._under_way(note)
        note = structs.replace(note, whole=False)
        await notes.write(self._directory, self.upto.epoch, note)
        copied_facts = await self._copy_facts()
        past = Past(self._source, note.source, self.upto)
        async with aclosing(once(past.read(told))) as events:
            async for stored in events:
                if stored.event.event_id in there:
                    self._known += 1
                else:
                    await self._add(note, stored)
        await self._send()
        copied_facts += await self._copy_facts()  # those that changed meanwhile
        await self._write(note, self.upto, whole=True)
        return Copied(
            events=self._events,
            known=self._known,
            facts=copied_facts,
            damaged=past.damaged,
            gone=past.gone,
            position=self.upto,
        )

    async def _begin(self) -> Note:
        """Where it goes on: nothing was sent behind that, or only what can be found."""
        if self._note is not None and not self._note.whole:
            return self._note
        head = (await self._target.ping()).head
        if self._note is not None:
            return structs.replace(self._note, settled=head)
        return Note(began=head, settled=head, whole=True)

    async def _under_way(self, note: Note) -> set[str]:
        """The ids of what the target got since the note was written, by whomever."""
        async with aclosing(Past(self._target, note.settled).read()) as events:
            return {stored.event.event_id async for stored in events}

    async def _add(self, note: Note, stored: Stored) -> None:
        self._batch.append(stored)
        self._bytes += len(memoryview(stored.event.body))
        if len(self._batch) < _TOGETHER and self._bytes < _BYTES:
            return
        await self._send()
        if self._sent >= self._every:
            await self._write(note, stored.position, whole=False)

    async def _send(self) -> None:
        """Have the target store what gathered."""
        batch, self._batch, self._bytes = self._batch, [], 0
        if batch:
            answers = await self._target.publish([stored.event for stored in batch])
            again = sum(answer.duplicate for answer in answers)
            self._events += len(batch) - again
            self._known += again
            self._sent += len(batch)

    async def _write(self, note: Note, source: Position, *, whole: bool) -> None:
        """Note that everything is there up to that position, and nothing under way."""
        self._sent = 0
        head = (await self._target.ping()).head
        if head.epoch != note.began.epoch:
            raise PositionLost("the target was emptied or replaced while it was written to: copy again")
        self._note = structs.replace(note, source=source, settled=head, whole=whole)
        await notes.write(self._directory, self.upto.epoch, self._note)

    async def _copy_facts(self) -> int:
        """The newest of each that the target does not have, or has an older one of; how many."""
        there, here = await facts(self._target), await facts(self._source)
        missing = [
            stored.event
            for topic, stored in here.items()
            if topic not in there or is_newer(stored.event, there[topic].event)
        ]
        for start in range(0, len(missing), _TOGETHER):
            await self._target.publish(missing[start : start + _TOGETHER])
        return len(missing)
