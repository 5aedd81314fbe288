"""The directory: what the processes of a namespace share, folded from the facts of the control log and kept fresh.

A fact is an event on `_bus.{kind}.{digest of its key}`, with the payload `{"key": …, "value": {…}}`; one without a
value says that its key was removed. The newest of a topic holds, so of two processes that change a key the log's order
decides. A log that was emptied or replaced is told again what the old one had, by whoever still knows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from hashlib import blake2b
from typing import Any, Final

from msgspec import Struct

from wowevent.broker import CONTROL, Broker, Position, Query, Stored
from wowevent.ending import end, seen
from wowevent.errors import Closed, FormatTooNew, InvalidTopic, PositionLost, StorageDamaged
from wowevent.event import Event
from wowevent.log import logger

UNDELIVERABLE: Final = f"{CONTROL}undeliverable"
"""Where senders are told that nobody takes an event,"""
DEAD_LETTER: Final = f"{CONTROL}dead_letter"
"""and that one became a dead letter: events for agents among the facts, which are none themselves."""

_EVENTS: Final = frozenset({UNDELIVERABLE, DEAD_LETTER})
_LOOK: Final = 0.8  # seconds between two looks: others know within one second, the look itself included
_DAMAGE: Final = (StorageDamaged, FormatTooNew)
_DAMAGED: Final = 1_000  # in a row: then it is the log that cannot be read, not a fact of it

Changed = Callable[[str, dict[str, Any] | None], object]
"""Is told a key and its value; None where it was removed."""


class _Fact(Struct, frozen=True):
    kind: str
    key: str
    value: dict[str, Any]


class Directory:
    """What is known by all who share the log: of each kind, keys and their values."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._facts: dict[str, _Fact] = {}  # by topic, in the order of the log
        self._after: Position | None = None  # folded up to here
        self._newest: dict[str, str] = {}  # by topic, the id of what was said there last, removals included
        self._watchers: list[tuple[str, Changed]] = []
        self._look: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._trouble: frozenset[str] = frozenset()  # of the last look: what lasts is said once
        self._started = False
        self._closed = False

    # --- life ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Fold what is there, then look for news once a second. Starting twice is starting once.

        Nothing is looked for where nobody else has the log (`capabilities.private`). Raises what `refresh` does.
        """
        self._check_open()
        if not self._started:
            await self.refresh()
        if not self._started and not self._closed:
            self._started = True
            if not self._broker.capabilities.private:
                self._looking = asyncio.create_task(self._keep_looking(), name="wowevent:directory")

    async def close(self) -> None:
        """Look no more; what was folded stays."""
        self._closed = True
        await end(self._looking, self._look)

    # --- what is known ------------------------------------------------------------------------------------------

    def facts(self, kind: str) -> Mapping[str, dict[str, Any]]:
        """Keys and values of a kind, as they are now: not to be changed, and not changed later."""
        return {fact.key: fact.value for fact in self._facts.values() if fact.kind == kind}

    def stamp(self, kind: str, key: str) -> str:
        """What was said of a key last, be it a removal: the same text for all who have looked so far, another after.

        Empty for a key of which nothing was ever said.
        """
        return self._newest.get(_topic_of(kind, key), "")

    def watch(self, kind: str, changed: Changed) -> None:
        """Call `changed(key, value)` for each fact of a kind that is there, now, and for each that changes, later."""
        self._watchers.append((kind, changed))
        for key, value in self.facts(kind).items():
            _tell(changed, key, value)

    async def put(self, kind: str, key: str, value: Mapping[str, Any]) -> None:
        """Say it to all: returns when the engine has it, and this directory knows it.

        Raises BrokerError, in which case the others may know it or not: to say it again does no harm. InvalidEvent for
        what is no JSON.
        """
        await self._say(kind, {"key": key, "value": dict(value)})

    async def drop(self, kind: str, key: str) -> None:
        """Take it back, whether or not it is there. Returns and raises as `put` does."""
        await self._say(kind, {"key": key})

    async def _say(self, kind: str, payload: dict[str, Any]) -> None:
        self._check_open()
        await self._broker.publish([_event(kind, payload)])
        await self.refresh()

    # --- looking ------------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Know what the log has now. Raises BrokerError where it cannot be read, Closed."""
        before = self._look
        if before is not None and not before.done():
            await asyncio.wait([before])  # it may have begun too early to see what we are here for
        self._check_open()
        if self._look is before:  # else somebody who waited with us has begun the next
            self._look = asyncio.create_task(self._fold(), name="wowevent:directory:look")
            self._look.add_done_callback(seen)
        look = self._look
        if look is not None:
            await asyncio.wait([look])
            if look.cancelled():
                self._check_open()
            look.result()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed("this directory was closed")

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            try:
                await self.refresh()
            except Closed:
                return
            except Exception as error:  # noqa: BLE001 - whatever it was: it is said, and looked for again
                self._note({str(error)}, error)

    async def _fold(self) -> None:
        """Read what is new, or all where the log is another one; then take it in."""
        trouble: set[str] = set()
        try:
            found, anew = await self._read(self._after, trouble), False
        except PositionLost as lost:
            logger.error("shared facts are said again, the log is another one", error=lost)
            found, anew = await self._say_again(trouble), True
        self._trouble = frozenset(trouble)
        self._take(found, anew=anew)

    async def _say_again(self, trouble: set[str]) -> list[Stored]:
        """What another log has, and what was known of the one before and is not decided there."""
        found = await self._read(None, trouble)
        there = {stored.event.topic for stored in found}
        left = [fact for topic, fact in self._facts.items() if topic not in there]
        if left:
            await self._broker.publish([_event(fact.kind, {"key": fact.key, "value": fact.value}) for fact in left])
            found = await self._read(None, trouble)
        return found

    async def _read(self, after: Position | None, trouble: set[str]) -> list[Stored]:
        """The facts behind a position. What cannot be read is left out, and said the first time."""
        log, found, damaged = self._broker.read(Query(patterns=(f"{CONTROL}#",)), after=after), [], 0
        while True:
            try:
                async for stored in log:
                    found.append(stored)
                    damaged = 0
                return found
            except _DAMAGE as damage:  # the iteration goes on behind it
                damaged += 1
                if damaged == _DAMAGED:
                    raise
                trouble.add(str(damage))
                self._note({str(damage)}, damage)

    def _note(self, trouble: set[str], error: Exception) -> None:
        if not trouble <= self._trouble:
            logger.error("shared facts cannot be read", code=getattr(error, "code", None), error=error)
        self._trouble |= trouble

    def _take(self, found: list[Stored], *, anew: bool) -> None:
        """Know these, and tell what changed by that. Nothing waits in here."""
        if not found and not anew:
            return
        before, facts = self._facts, {} if anew else dict(self._facts)
        if anew:
            self._newest.clear()
        for stored in found:
            topic = stored.event.topic
            self._newest[topic] = stored.event.event_id
            facts.pop(topic, None)  # the newer one stands behind the others
            if (fact := _fact_of(stored)) is not None:
                facts[topic] = fact
            self._after = stored.position
        if not found:
            self._after = None
        self._facts = facts
        gone = [(fact, None) for topic, fact in before.items() if topic not in facts]
        changes = [*gone, *((fact, fact.value) for topic, fact in facts.items() if before.get(topic) != fact)]
        for fact, value in changes:
            for kind, changed in list(self._watchers):
                if kind == fact.kind:
                    _tell(changed, fact.key, value)


def _event(kind: str, payload: dict[str, Any]) -> Event:
    return Event(topic=_topic_of(kind, payload["key"]), payload=payload)


def _topic_of(kind: str, key: str) -> str:
    """Where its facts lie: keys may have what topics must not, and be longer."""
    if "." in kind:
        raise InvalidTopic(f"{kind!r}: a kind of facts is one word")
    return f"{CONTROL}{kind}.{blake2b(key.encode(errors='surrogatepass'), digest_size=16).hexdigest()}"


def _fact_of(stored: Stored) -> _Fact | None:
    """The fact of an event; None for a removal and for what is none. What somebody else wrote there is said."""
    topic, payload = stored.event.topic, stored.event.payload
    if topic in _EVENTS:
        return None
    kind = topic.removeprefix(CONTROL).partition(".")[0]
    if isinstance(payload, dict):  # an engine without checksums gives what is there
        key, value = payload.get("key"), payload.get("value", {})
        if isinstance(key, str) and isinstance(value, dict) and topic == _topic_of(kind, key):
            return _Fact(kind, key, value) if "value" in payload else None
    logger.warning("a fact that is none of ours is left out", topic=topic, event_id=stored.event.event_id)
    return None


def _tell(changed: Changed, key: str, value: dict[str, Any] | None) -> None:
    try:
        changed(key, value)
    except Exception as error:  # noqa: BLE001 - one watcher's fault must not keep the others from knowing
        logger.error("what watches shared facts failed", key=key, error=error, exc_info=True)
