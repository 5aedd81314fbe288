"""What is ready for a subscription, and leased: fetching, and what becomes ready again by itself.

    append ──► ready ──fetch──► leased ──Ack──► gone
                 ▲                │ ├──Bury──► dead ──Redeliver──► ready
                 │                │ ├──Retry, delay──► retry ──due──► ready
                 └──Retry, lease ends (crashes + 1)──┘

Settling is in `settling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from wowevent.broker import URGENT_RUN, Lease, Position
from wowevent.brokers.sqlite import backfill, dead
from wowevent.brokers.sqlite.log import checked, head
from wowevent.brokers.sqlite.schema import insert, one, rows
from wowevent.errors import BusError, PositionLost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wowevent.brokers.sqlite.store import Store
    from wowevent.event import Event

_CHUNK: Final = 500
_STEP: Final = 2_000
_ENDED: Final = "the lease ended unsettled"
_ANY: Final = 2**63 - 1


class _Row(Struct, array_like=True, gc=False):
    """One candidate of a fetch, without its body."""

    offset: int
    failures: int
    crashes: int
    redelivered: int
    attempts: str | None
    crc: int | None
    size: int | None


_decoder: Final = msgspec.json.Decoder(list[_Row])

# All in one row: APSW gives up the interpreter's lock for each (see schema.insert).
_READY: Final = """
SELECT json_group_array(json_array(offset, failures, crashes, redelivered, attempts, crc, length(body))),
       CAST(group_concat(CAST(body AS TEXT), '') AS BLOB)
FROM (
  SELECT e.offset, e.failures, e.crashes, e.redelivered, e.attempts,
         iif(e.body IS NULL, l.crc, e.crc) AS crc, coalesce(e.body, l.body) AS body
  FROM entry AS e LEFT JOIN log AS l ON l.offset = e.offset
  WHERE e.sub = ? AND e.lane = ? AND e.lease IS NULL AND e.offset < ?
  ORDER BY e.offset LIMIT ?
)"""


class _Found(Struct, gc=False):
    """A candidate: its row, its lane and its bytes."""

    row: _Row
    lane: int
    body: bytes | None


def wanted(store: Store, id: str) -> bool:
    """Whether a fetch of it would write: asked outside a transaction, so that an idle bus commits nothing."""
    num = store.registry.num(id)
    if num not in store.serving:
        return True
    row = one(
        store.db,
        "SELECT lapsed OR lost, owner, EXISTS (SELECT 1 FROM backfill WHERE sub = num) OR "
        "EXISTS (SELECT 1 FROM entry WHERE sub = num AND lane = 0 AND lease IS NULL) OR "
        "EXISTS (SELECT 1 FROM entry WHERE sub = num AND lane = 1 AND lease IS NULL) FROM subscription WHERE num = ?",
        (num,),
    )
    if row is None:  # removed by another process; the transaction will find out
        return True
    reported, owner, ready = row
    return bool(reported or ready) and (owner in (None, store.me) or not _is_here(store, owner))


def fetch(store: Store, id: str, limit: int) -> list[Lease]:
    """Lease up to `limit`; a suspect comes alone. SubscriptionNotFound, PositionLost."""
    num = store.registry.num(id)
    store.serve(num)
    if limit <= 0:
        return []
    lapsed, lost, owner, behind, urgent = one(
        store.db,
        "SELECT lapsed, lost, owner, (SELECT next FROM backfill WHERE sub = num), "
        "EXISTS (SELECT 1 FROM entry WHERE sub = num AND lane = 0 AND lease IS NULL) FROM subscription WHERE num = ?",
        (num,),
    )
    subscription = store.registry.routes.get(id)
    if subscription is None or (subscription.exclusive and not _own(store, num, owner)):
        return []
    if lapsed or lost:
        report_loss(store, num, id, lost)
    if behind is not None:
        behind = backfill.advance(store, num)
        urgent = True  # perhaps now
    found = _take(store, num, limit, _ANY if behind is None else behind, urgent=bool(urgent))
    return _lease(store, num, found, subscription.lease)


def report_loss(store: Store, num: int, id: str, lost: int) -> None:
    """Raise PositionLost for what was dropped, once; a lapsed subscription is served again from here on."""
    store.db.execute(
        "UPDATE subscription SET lapsed = 0, lost = 0, served_at = ?, version = ? WHERE num = ?",
        (store.clock.time(), store.registry.changed(store.db), num),
    )
    store.registry.refresh(store.db, store.me)
    store.woken.add(num)  # the next fetch need not wait
    raise PositionLost(f"{id}: {lost} unread events were dropped by the log's limits", lost)


def _is_here(store: Store, instance: int) -> bool:
    return any(peer.num == instance for peer in store.registry.peers)


def _own(store: Store, num: int, owner: int | None) -> bool:
    """Whether this instance may lease from an exclusive subscription now; it becomes the owner if there is none."""
    if owner == store.me:
        return True
    if owner is not None and _is_here(store, owner):
        return False
    foreign = "SELECT min(until) FROM lease WHERE sub = ? AND id >> 32 <> ?"
    (until,) = one(store.db, foreign, (num, store.me))
    if until is not None:  # an owner that is gone may still be at work on these
        store.soon(until - store.clock.monotonic())
        return False
    store.db.execute("UPDATE subscription SET owner = ? WHERE num = ?", (store.me, num))
    return True


def _take(store: Store, num: int, limit: int, before: int, *, urgent: bool) -> list[_Found]:
    """The candidates in their order, cut so that a suspect is alone."""
    first = _ready(store, num, 0, before, limit) if urgent else []
    if not first:
        store.runs.pop(num, None)
        found = _ready(store, num, 1, before, limit)
    else:
        room = limit - len(first) + (store.runs.get(num, 0) + limit) // URGENT_RUN + 1
        found = _mixed(store, num, limit, first, _ready(store, num, 1, before, min(room, limit)))
    suspect = next((at for at, item in enumerate(found) if item.row.crashes), None)
    return found if suspect is None else found[: max(suspect, 1)]


def _ready(store: Store, num: int, lane: int, before: int, limit: int) -> list[_Found]:
    text, bodies = one(store.db, _READY, (num, lane, before, limit))
    found, at = [], 0
    for row in _decoder.decode(text):
        if row.size is None:
            found.append(_Found(row, lane, None))
        else:
            found.append(_Found(row, lane, bodies[at : at + row.size]))
            at += row.size
    return found


def _mixed(store: Store, num: int, limit: int, urgent: list[_Found], other: list[_Found]) -> list[_Found]:
    """Urgent first, and one other after every eight of those."""
    run = store.runs.get(num, 0)
    found: list[_Found] = []
    first, second = iter(urgent), iter(other)
    while len(found) < limit:
        item = next(second if run >= URGENT_RUN else first, None)
        if item is None:  # that lane has no more: the other one, if it has
            item = next(first if run >= URGENT_RUN else second, None)
        if item is None:
            break
        run = 0 if item.lane else run + 1
        found.append(item)
    store.runs[num] = run
    return found


def _lease(store: Store, num: int, found: list[_Found], seconds: float) -> list[Lease]:
    """Make the candidates ours. Bytes that are not what was written become a dead letter instead."""
    good: list[tuple[_Found, Event]] = []
    for item in found:
        try:
            good.append((item, checked(item.body, item.row.crc, item.row.offset)))
        except BusError as error:
            _bury_damaged(store, num, item, error)
    epoch = store.registry.epoch
    leases: dict[int, int] = {}
    for lane in {item.lane for item, _ in good}:
        offsets = [item.row.offset for item, _ in good if item.lane == lane]
        leases[lane] = open_lease(store, num, lane, offsets, seconds)
        store.db.execute(
            "UPDATE entry SET lease = ? WHERE sub = ? AND lane = ? AND offset BETWEEN ? AND ? AND lease IS NULL",
            (leases[lane], num, lane, offsets[0], offsets[-1]),
        )
    return [
        Lease(
            event=event,
            token=f"{leases[item.lane]}.{item.lane}.{item.row.offset}",
            position=Position(epoch, item.row.offset),
            failures=item.row.failures,
            crashes=item.row.crashes,
            attempts=dead.attempts_of(item.row.attempts),
            redelivered=bool(item.row.redelivered),
        )
        for item, event in good
    ]


def open_lease(store: Store, num: int, lane: int, offsets: Sequence[int], seconds: float) -> int:
    """A lease on these from now on."""
    id, now = store.new_lease(), store.clock.monotonic()
    store.db.execute(
        "INSERT INTO lease(id, sub, lane, low, high, open, until, seconds, boot) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (id, num, lane, min(offsets), max(offsets), len(offsets), now + seconds, seconds, store.boot),
    )
    store.soon(seconds)
    return id


def _bury_damaged(store: Store, num: int, item: _Found, error: BusError) -> None:
    key = (num, item.lane, item.row.offset)
    store.db.execute("DELETE FROM entry WHERE sub = ? AND lane = ? AND offset = ?", key)
    if not dead.bury_damaged(store, key, item.body, item.row.attempts, str(error)):
        # Not even the row of the log is there: nothing could be shown of it, so it counts as lost.
        store.db.execute("UPDATE subscription SET lost = lost + 1 WHERE num = ?", (num,))
    store.woken.add(num)


# ------------------------------------------------------------------------------------------ what ends by itself


def expire(store: Store) -> bool:
    """End the leases whose time is over: a crash for each entry. Whether there may be more.

    A lease that lasts longer from now than it was made for is of another boot too, where boots cannot be told apart.
    """
    now = store.clock.monotonic()
    ended = rows(
        store.db,
        "SELECT id, sub, lane, low, high FROM lease WHERE until <= ?1 OR boot <> ?2 OR until > ?1 + seconds + 1 "
        "LIMIT ?3",
        (now, store.boot, _CHUNK),
    )
    for id, num, lane, low, high in ended:
        store.db.execute(
            "UPDATE entry SET lease = NULL, token = NULL, crashes = crashes + 1, "
            "attempts = json_insert(coalesce(attempts, '[]'), '$[#]', "
            "json_object('number', failures + crashes + 1, 'time', ?, 'error', ?)) "
            "WHERE sub = ? AND lane = ? AND offset BETWEEN ? AND ? AND lease = ?",
            (store.clock.time(), _ENDED, num, lane, low, high, id),
        )
        store.db.execute("DELETE FROM lease WHERE id = ?", (id,))
        store.woken.add(num)
    return len(ended) == _CHUNK


def revive(store: Store) -> bool:
    """Make the retries ready whose time has come; whether there may be more."""
    due = rows(
        store.db,
        "DELETE FROM retry WHERE (sub, lane, offset) IN "
        "(SELECT sub, lane, offset FROM retry WHERE due <= ? ORDER BY due LIMIT ?) "
        "RETURNING sub, lane, offset, failures, crashes, attempts, redelivered, crc, body",
        (store.clock.time(), _CHUNK),
    )
    values: list[Any] = [value for row in due for value in row]
    insert(store.db, "entry(sub, lane, offset, failures, crashes, attempts, redelivered, crc, body)", 9, values)
    store.woken.update(row[0] for row in due)
    return len(due) == _CHUNK


def drop_ready(store: Store, num: int, upto: int) -> int:
    """Drop some of what is ready at positions up to that one; how many, 0 when nothing is left."""
    dropped = 0
    for lane in (0, 1):
        store.db.execute(
            "DELETE FROM entry WHERE sub = ?1 AND lane = ?2 AND lease IS NULL AND offset <= (SELECT max(offset) FROM "
            "(SELECT offset FROM entry WHERE sub = ?1 AND lane = ?2 AND lease IS NULL AND offset <= ?3 "
            "ORDER BY offset LIMIT ?4))",
            (num, lane, upto, _STEP),
        )
        dropped += store.db.changes()
    return dropped


def purge(store: Store, id: str, upto: int | None) -> tuple[int, int, bool]:
    """Drop some of what was ready when purging began: how many, up to where for the next call, and if there is more."""
    num = store.registry.num(id)
    last = head(store)[0] if upto is None else upto
    unseen = backfill.advance(store, num)
    dropped = drop_ready(store, num, last)
    return dropped, last, dropped > 0 or unseen is not None
