"""Who wants what, and who is here: the cached fold of the subscription and instance tables, and what changes them.

An instance is present while it was seen less than 15 seconds ago in this boot. Each process folds these tables once and
then only what changed: the versions in `state` are looked at in every transaction.
"""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec import Struct

from wowevent.broker import Subscription
from wowevent.brokers.sqlite.schema import one
from wowevent.errors import SubscriptionNotFound
from wowevent.routing import Routes, subscription_of

if TYPE_CHECKING:
    import apsw

BEAT_SECONDS: Final = 5.0
PRESENT_SECONDS: Final = 15.0
_CACHE: Final = 1_000
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str:
    """Names this boot of this machine: monotonic times of another one mean nothing here."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux: a lease that outlasts its own length then tells another boot, see entries.expire
        return platform.node()


class Peer(Struct, frozen=True):
    """Another instance that is here."""

    num: int
    port: int
    follows: bool
    serves: frozenset[int]


class Target(Struct, frozen=True, gc=False):
    """A remembered subscription that an event goes to."""

    num: int
    lanes: bool
    lapsed: bool


class Registry:
    """What one process knows of the tables, as of its last transaction."""

    def __init__(self) -> None:
        self.epoch: str = ""
        self.trimmed: int = 0
        self.routes: Routes = Routes()
        self.nums: dict[str, int] = {}
        self.lapsed: set[str] = set()
        self._targets: dict[tuple[str, ...], tuple[Target, ...]] = {}
        self.peers: tuple[Peer, ...] = ()
        self._registry = self._removals = self._presence = -1

    def forget(self) -> None:
        """A transaction was rolled back: what was taken over from it may never have been."""
        self._registry = self._removals = self._presence = -1

    def refresh(self, db: apsw.Connection, me: int) -> None:
        """Fold what changed since the last time."""
        self.epoch, self.trimmed, registry, removals, presence = one(
            db, "SELECT epoch, trimmed, registry, removals, presence FROM state"
        )
        if removals != self._removals:
            self.routes, self.nums, self.lapsed, self._registry = Routes(), {}, set(), -1
            self._targets.clear()
        if registry != self._registry:
            rows = db.execute(
                "SELECT num, id, spec, lapsed FROM subscription WHERE version > ? ORDER BY num",
                (self._registry,),
            )
            for num, id, spec, lapsed in rows:
                self._put(num, subscription_of(id, spec), lapsed=bool(lapsed))
        self._registry, self._removals = registry, removals
        if presence != self._presence:
            self._presence = presence
            self.peers = _peers(db, me)

    def _put(self, num: int, subscription: Subscription, *, lapsed: bool) -> None:
        """Know this subscription."""
        self.nums[subscription.id] = num
        self.routes.add(subscription)
        (self.lapsed.add if lapsed else self.lapsed.discard)(subscription.id)
        self._targets.clear()

    def targets(self, ids: tuple[str, ...]) -> tuple[Target, ...]:
        """The remembered ones among the subscriptions that an event matched."""
        found = self._targets.get(ids)
        if found is None:
            if len(self._targets) >= _CACHE:
                self._targets.clear()
            found = self._targets[ids] = tuple(
                Target(self.nums[id], not spec.exclusive, id in self.lapsed)
                for id in ids
                if (spec := self.routes.get(id)) is not None and spec.durable
            )
        return found

    def live_among(self, ids: tuple[str, ...]) -> tuple[str, ...]:
        """The live ones among these."""
        return tuple(id for id in ids if (spec := self.routes.get(id)) is not None and not spec.durable)

    def num(self, id: str) -> int:
        """The number of a remembered subscription; SubscriptionNotFound."""
        num = self.nums.get(id)
        subscription = self.routes.get(id)
        if num is None or subscription is None or not subscription.durable:
            raise SubscriptionNotFound(f"no subscription {id!r} is remembered")
        return num

    @staticmethod
    def changed(db: apsw.Connection) -> int:
        """Count a change; the version for the row that changes. `refresh` takes it over, here as in other processes."""
        (version,) = one(db, "UPDATE state SET registry = registry + 1 RETURNING registry")
        return int(version)


def _peers(db: apsw.Connection, me: int) -> tuple[Peer, ...]:
    rows = db.execute(
        "SELECT num, port, follows, json_group_array(sub) FROM instance LEFT JOIN serving ON instance = num "
        "WHERE num <> ? GROUP BY num",
        (me,),
    )
    return tuple(
        Peer(num, port, bool(follows), frozenset(sub for sub in msgspec.json.decode(subs) if sub is not None))
        for num, port, follows, subs in rows
    )


def arrive(db: apsw.Connection, port: int, now: float, boot: str, *, follows: bool) -> int:
    """A new instance is here; its number, which no other one ever has."""
    (num,) = one(
        db,
        "INSERT INTO instance(port, follows, seen, boot) VALUES (?, ?, ?, ?) RETURNING num",
        (port, follows, now, boot),
    )
    count_presence(db)
    return int(num)


def count_presence(db: apsw.Connection) -> None:
    """Let every process look again at who is here."""
    db.execute("UPDATE state SET presence = presence + 1")


def leave(db: apsw.Connection, num: int) -> list[int]:
    """An instance is gone; the subscriptions whose others may now have a turn."""
    owned = [sub for (sub,) in db.execute("UPDATE subscription SET owner = NULL WHERE owner = ? RETURNING num", (num,))]
    served = [sub for (sub,) in db.execute("DELETE FROM serving WHERE instance = ? RETURNING sub", (num,))]
    db.execute("DELETE FROM instance WHERE num = ?", (num,))
    drop_unread(db, served)
    count_presence(db)
    return owned


def drop_unread(db: apsw.Connection, subs: list[int]) -> None:
    """Forget the live ones among these that nobody reads any more."""
    gone = db.execute(
        "DELETE FROM subscription WHERE num IN (SELECT value FROM json_each(?)) AND NOT durable "
        "AND NOT EXISTS (SELECT 1 FROM serving WHERE sub = num) RETURNING num",
        (str(subs),),
    ).fetchall()
    if gone:
        db.execute("UPDATE state SET registry = registry + 1, removals = removals + 1")


def absent(db: apsw.Connection, now: float, boot: str) -> list[int]:
    """The instances that are not here any more, though they never said good-bye."""
    rows = db.execute("SELECT num FROM instance WHERE boot <> ? OR seen < ?", (boot, now - PRESENT_SECONDS))
    return [num for (num,) in rows]
