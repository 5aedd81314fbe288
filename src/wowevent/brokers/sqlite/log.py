"""Appending: what is new gets a position and goes to the subscriptions it matches; what is delayed waits outside."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wowevent.broker import CONTROL, LIVE, URGENT, Appended, Position
from wowevent.brokers.sqlite.schema import checksum, insert, one, rows
from wowevent.codec import decode, encode
from wowevent.errors import BusError, StorageDamaged

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from wowevent.brokers.sqlite.store import Store
    from wowevent.event import Event

_CHUNK: Final = 500
_NEVER: Final = 1e18
_logger: Final = logging.getLogger(__name__)


def micros(time: datetime) -> int:
    """A time as the log's columns keep it: microseconds since 1970."""
    return round(time.timestamp() * 1_000_000)


def head(store: Store) -> tuple[int, int, int]:
    """The newest position, with its `total` and `stored_at`. Trimming leaves that row, so no position comes twice."""
    found: tuple[int, int, int] | None = one(
        store.db, "SELECT offset, total, stored_at FROM log ORDER BY offset DESC LIMIT 1"
    )
    return found or (0, 0, 0)


def publish(store: Store, events: Sequence[Event]) -> list[Appended]:
    """Store what is new of these, in their order; one `Appended` each."""
    now = store.clock.time()
    known = _known(store, events)
    fresh: list[Event] = []
    places: dict[str, int] = {}  # where in `fresh` an id stands
    results: list[Appended | None] = []
    for event in events:
        id = event.event_id
        if id in known:
            results.append(Appended(known[id], duplicate=True))
        elif id in places:
            results.append(None)
        elif event.not_before is not None and (due := event.not_before.timestamp()) > now:
            known[id] = None
            results.append(_hold(store, event, due, now))
        else:
            places[id] = len(fresh)
            fresh.append(event)
            results.append(None)
    appended = _append(store, fresh, now) if fresh else []
    if len(fresh) == len(events):
        return appended
    return [result or _once(appended, places, event) for result, event in zip(results, events, strict=True)]


def _once(appended: list[Appended], places: dict[str, int], event: Event) -> Appended:
    """What became of an event of this very call: a second one of its id is a duplicate."""
    place = places[event.event_id]
    if place >= 0:
        places[event.event_id] = -1 - place
        return appended[place]
    return Appended(appended[-1 - place].position, duplicate=True)


_KNOWN: Final = (
    "SELECT id, offset FROM log WHERE id {0} UNION ALL SELECT id, offset FROM live WHERE id {0} "
    "UNION ALL SELECT id, NULL FROM delayed WHERE id {0}"
)


def _known(store: Store, events: Sequence[Event]) -> dict[str, Position | None]:
    """The ids among these that are stored already, and where."""
    if len(events) == 1:  # a publisher on its own waits for every microsecond of this
        found = rows(store.db, _KNOWN.format("= ?1"), (events[0].event_id,))
    else:
        ids = msgspec.json.encode([event.event_id for event in events]).decode()
        found = rows(store.db, _KNOWN.format("IN (SELECT value FROM json_each(?1))"), (ids,))
    epoch = store.registry.epoch
    return {id: None if offset is None else Position(epoch, offset) for id, offset in found}


def _hold(store: Store, event: Event, due: float, now: float) -> Appended:
    body = encode(event)
    store.db.execute(
        "INSERT INTO delayed(id, due, crc, body) VALUES (?, ?, ?, ?)", (event.event_id, due, checksum(body, 0), body)
    )
    store.soon(due - now)
    return Appended(None, matched=store.registry.routes.match(event))


_REPLACE_FACT: Final = "INSERT OR REPLACE INTO fact(offset, topic, stored_at, crc, body) VALUES (?, ?, ?, ?, ?)"


def _append(store: Store, events: Iterable[Event], now: float) -> list[Appended]:
    """Give each its position and its subscriptions."""
    offset, total, last = head(store)
    stored_at = max(last, int(now * 1_000_000))  # a clock set back must not disorder the log
    epoch, match, targets = store.registry.epoch, store.registry.routes.match, store.registry.targets
    values: list[Any] = []
    live: list[Any] = []
    entries: list[Any] = []
    facts: list[Any] = []
    lost: Counter[int] = Counter()
    results = []
    for event in events:
        body, id, ids = encode(event), event.event_id, match(event)
        if event.topic.startswith(LIVE):
            live += (id, event.topic, offset, stored_at, checksum(body, 0), body)
            results.append(Appended(Position(epoch, offset), matched=store.registry.live_among(ids)))
            continue
        offset += 1
        total += len(body)
        correlation = None if event.correlation_id == id else event.correlation_id
        values += (offset, id, event.topic, micros(event.timestamp), stored_at, total, correlation)
        values += (checksum(body, offset), body)
        if event.topic.startswith(CONTROL):
            facts.append((offset, event.topic, stored_at, values[-2], body))
        urgent = event.priority >= URGENT
        for target in targets(ids):
            if target.lapsed:
                lost[target.num] += 1
            else:
                entries += (target.num, 0 if urgent and target.lanes else 1, offset)
        results.append(Appended(Position(epoch, offset), matched=ids))
    insert(store.db, "log(offset, id, topic, ts, stored_at, total, correlation, crc, body)", 9, values)
    insert(store.db, "live(id, topic, offset, stored_at, crc, body)", 6, live)
    insert(store.db, "entry(sub, lane, offset)", 3, entries)
    for fact in facts:
        store.db.execute(_REPLACE_FACT, fact)
    store.woken.update(entries[::3])
    store.grew = True
    count_lost(store, lost)
    return results


def count_lost(store: Store, lost: Counter[int]) -> None:
    """Remember that these subscriptions will not see so many events."""
    for num, count in lost.items():
        store.db.execute("UPDATE subscription SET lost = lost + ? WHERE num = ?", (count, num))


def cancel(store: Store, event_id: str) -> bool:
    """Drop a delayed event; its id stays known, so that a repeated publish does not bring it back."""
    store.db.execute(
        "UPDATE delayed SET gone = ?, body = x'' WHERE id = ? AND gone IS NULL", (store.clock.time(), event_id)
    )
    return store.db.changes() > 0


def release(store: Store) -> bool:
    """Append the delayed events whose moment has come; whether there may be more."""
    now = store.clock.time()
    found = rows(
        store.db,
        "SELECT num, crc, body FROM delayed WHERE gone IS NULL AND due <= ? ORDER BY due, num LIMIT ?",
        (now, _CHUNK),
    )
    if not found:
        return False
    events = []
    for num, crc, body in found:
        try:
            events.append(checked(body, crc, 0))
            store.db.execute("DELETE FROM delayed WHERE num = ?", (num,))
        except BusError:
            # It has no position and no subscription to bury it for: keep the bytes, and say so.
            _logger.exception("delayed event %d cannot be read, and stays where it is", num)
            store.db.execute("UPDATE delayed SET gone = ? WHERE num = ?", (_NEVER, num))
    _append(store, events, now)
    return len(found) == _CHUNK


def checked(body: bytes | memoryview | None, crc: int | None, offset: int) -> Event:
    """The event of stored bytes; StorageDamaged or FormatTooNew, never another payload than was written."""
    if body is None or checksum(body, offset) != crc:
        raise StorageDamaged(f"the bytes stored at position {offset} are not what was written")
    return decode(body)
