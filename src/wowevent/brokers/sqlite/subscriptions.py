"""Declaring, leaving and removing subscriptions, and what can be told of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from wowevent.broker import Position, Present, Subscription, SubscriptionInfo
from wowevent.brokers.sqlite import backfill
from wowevent.brokers.sqlite import registry as presence
from wowevent.brokers.sqlite.log import head
from wowevent.brokers.sqlite.schema import one
from wowevent.routing import spec_of, subscription_of

if TYPE_CHECKING:
    import apsw

    from wowevent.brokers.sqlite.store import Store


def declare(store: Store, subscription: Subscription) -> SubscriptionInfo:
    """Make it known, or renew its settings. PositionLost if it starts where the log does not go on any more."""
    spec = spec_of(subscription)
    row = one(store.db, "SELECT num, spec, durable FROM subscription WHERE id = ?", (subscription.id,))
    if row is not None and row[2] and not subscription.durable:  # nothing is kept for a live one
        remove(store, subscription.id)
        row = None
    if row is None:
        num = _add(store, subscription, spec)
    else:
        num = row[0]
        if row[1] != spec:
            _renew(store, num, subscription, spec)
    if subscription.durable:
        store.live.pop(subscription.id, None)
    else:
        store.live[subscription.id] = subscription
        store.serve(num)
    return infos(store.db, store.clock.time(), subscription.id)[0]


def _add(store: Store, subscription: Subscription, spec: str) -> int:
    if isinstance(subscription.start, Position):  # before anything is written
        backfill.check(subscription.start, store.registry.epoch, store.registry.trimmed, head(store)[0])
    (num,) = one(
        store.db,
        "INSERT INTO subscription(id, spec, durable, version, served_at) VALUES (?, ?, ?, ?, ?) RETURNING num",
        (subscription.id, spec, subscription.durable, store.registry.changed(store.db), store.clock.time()),
    )
    store.registry.refresh(store.db, store.me)
    if subscription.durable:
        backfill.begin(store, num, subscription)
    return int(num)


def _renew(store: Store, num: int, subscription: Subscription, spec: str) -> None:
    """The newest declaration holds for what is published from now on."""
    store.db.execute(
        "UPDATE subscription SET spec = ?, durable = ?, version = ?, owner = iif(?, owner, NULL) WHERE num = ?",
        (spec, subscription.durable, store.registry.changed(store.db), subscription.exclusive, num),
    )
    store.registry.refresh(store.db, store.me)
    if subscription.exclusive:  # one lane from here on; what is leased comes back to its own, and is taken first
        store.db.execute("UPDATE entry SET lane = 1 WHERE sub = ? AND lane = 0 AND lease IS NULL", (num,))
    store.woken.add(num)


def detach(store: Store, id: str) -> None:
    """This instance serves it no longer."""
    row = one(store.db, "SELECT num FROM subscription WHERE id = ?", (id,))
    store.live.pop(id, None)
    if row is None or row[0] not in store.serving:
        return
    (num,) = row
    store.serving.discard(num)
    store.runs.pop(num, None)
    store.db.execute("DELETE FROM serving WHERE sub = ? AND instance = ?", (num, store.me))
    store.db.execute("UPDATE subscription SET served_at = ? WHERE num = ?", (store.clock.time(), num))
    store.db.execute("UPDATE subscription SET owner = NULL WHERE num = ? AND owner = ?", (num, store.me))
    presence.drop_unread(store.db, [num])
    presence.count_presence(store.db)
    store.registry.refresh(store.db, store.me)
    store.woken.add(num)


def remove(store: Store, id: str) -> None:
    """Forget it; its backlog becomes an orphan, which the janitor takes away in small steps."""
    row = one(store.db, "DELETE FROM subscription WHERE id = ? RETURNING num", (id,))
    store.live.pop(id, None)
    if row is None:
        return
    (num,) = row
    for table in ("backfill", "retry", "dead", "lease", "serving"):
        store.db.execute(f"DELETE FROM {table} WHERE sub = ?", (num,))  # noqa: S608 - constants
    store.db.execute("INSERT OR IGNORE INTO orphan(sub) VALUES (?)", (num,))
    store.db.execute("UPDATE state SET registry = registry + 1, removals = removals + 1, presence = presence + 1")
    store.serving.discard(num)
    store.runs.pop(num, None)
    store.registry.refresh(store.db, store.me)
    store.woken.add(num)
    store.untidy = True
    store.soon(0)


def declare_again(store: Store) -> None:
    """The live ones of an instance that others took for gone."""
    store.returned = False
    for subscription in list(store.live.values()):
        declare(store, subscription)


def leave(store: Store) -> None:
    """This instance closes: nobody is to wait for it."""
    now = store.clock.time()
    for num in store.serving:
        store.db.execute("UPDATE subscription SET served_at = ? WHERE num = ?", (now, num))
    store.woken.update(presence.leave(store.db, store.me))


_INFO: Final = """
SELECT s.num, s.id, s.spec, s.lapsed, s.lost,
  (SELECT count(*) FROM entry WHERE sub = s.num AND lane IN (0, 1) AND lease IS NULL),
  (SELECT coalesce(sum(open), 0) FROM lease WHERE sub = s.num),
  (SELECT count(*) FROM retry WHERE sub = s.num),
  (SELECT count(*) FROM dead WHERE sub = s.num),
  (SELECT count(*) FROM serving WHERE sub = s.num),
  (SELECT stored_at FROM log WHERE offset = (SELECT min(offset) FROM (
     SELECT min(offset) AS offset FROM entry WHERE sub = s.num AND lane = 0
     UNION ALL SELECT min(offset) FROM entry WHERE sub = s.num AND lane = 1
     UNION ALL SELECT min(offset) FROM retry WHERE sub = s.num)))
FROM subscription AS s WHERE ?1 IS NULL OR s.id = ?1 ORDER BY s.num"""


_PRESENT: Final = "SELECT id, spec, (SELECT count(*) FROM serving WHERE sub = num) FROM subscription ORDER BY num"


def present(db: apsw.Connection) -> list[Present]:
    """All, with how many serve each."""
    return [Present(subscription_of(id, spec), consumers) for id, spec, consumers in db.execute(_PRESENT)]


def infos(db: apsw.Connection, now: float, id: str | None = None) -> list[SubscriptionInfo]:
    """The numbers of all, or of one. What a new one has not come to yet of the past counts as ready."""
    unseen = backfill.unseen(db)
    return [
        SubscriptionInfo(
            subscription=subscription_of(id, spec),
            ready=ready + unseen.get(num, 0),
            leased=leased,
            delayed=delayed,
            dead=dead,
            consumers=consumers,
            oldest=None if stored_at is None else max(0.0, now - stored_at / 1e6),
            lost=lost,
            lapsed=bool(lapsed),
        )
        for num, id, spec, lapsed, lost, ready, leased, delayed, dead, consumers, stored_at in db.execute(_INFO, (id,))
    ]
