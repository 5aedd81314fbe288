"""What the steps of a transaction work with: the connection, this instance, what it knows, whom the commit wakes."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from wowevent.brokers.sqlite import registry as presence
from wowevent.brokers.sqlite.registry import BEAT_SECONDS, Registry, boot_id
from wowevent.brokers.sqlite.schema import insert

if TYPE_CHECKING:
    import apsw

    from wowevent.broker import Retention, Subscription
    from wowevent.clock import Clock


class Store:
    """The writer thread's own; nothing else touches it once the thread runs."""

    def __init__(self, db: apsw.Connection, clock: Clock, retention: Retention, port: int) -> None:
        self.db = db
        self.clock = clock
        self.retention = retention
        self.boot: str = boot_id()
        self.registry: Registry = Registry()
        self.me: int = 0
        self.serving: set[int] = set()
        self.live: dict[str, Subscription] = {}  # declared here, and gone with this instance
        self.returned: bool = False  # others took this instance for gone: its live ones have to be declared again
        self.runs: dict[int, int] = {}  # urgent ones in a row, by subscription
        self.woken: set[int] = set()  # subscriptions that this transaction made something ready for
        self.grew: bool = False  # whether it appended
        self.untidy = False  # the janitor has something to do now
        self.due: float = 0.0  # monotonic: when there is something to do that nobody asks for
        self.beat_at: float = 0.0  # monotonic: when this instance has to say again that it is here
        self._new = False
        self._port = port
        self._follows = False
        self._leases = itertools.count(1)
        self._before: tuple[set[int], dict[str, Subscription], bool] = (set(), {}, False)

    def begin(self) -> None:
        """The first step of every transaction."""
        self._before = (set(self.serving), dict(self.live), self._follows)
        if not self.me:
            self.beat()
        self.registry.refresh(self.db, self.me)

    def forget(self) -> None:
        """The transaction was rolled back: what is known here is what the rows say again."""
        self.serving, self.live, self._follows = self._before
        self.woken = set()
        self.grew = False
        self.registry.forget()
        if self._new:  # its row was never committed
            self.me = 0

    def committed(self) -> None:
        """The transaction is durable."""
        self.woken = set()
        self.grew = self._new = False

    def soon(self, seconds: float) -> None:
        """Something is due so many seconds from now."""
        self.due = min(self.due, self.clock.monotonic() + seconds)

    def new_lease(self) -> int:
        """A number that no other lease of this log ever had."""
        return self.me << 32 | next(self._leases)

    def serve(self, num: int) -> None:
        """This instance fetches from that subscription, or reads live for it."""
        if num not in self.serving:
            self.serving.add(num)
            self.db.execute("INSERT OR IGNORE INTO serving(sub, instance) VALUES (?, ?)", (num, self.me))
            presence.count_presence(self.db)

    def follow(self) -> None:
        """This instance wants to hear of every append."""
        if not self._follows:
            self._follows = True
            self.db.execute("UPDATE instance SET follows = 1 WHERE num = ?", (self.me,))
            presence.count_presence(self.db)

    def beat(self) -> None:
        """Say that this instance is here, and take away those that are not."""
        now = self.clock.monotonic()
        self.beat_at = now + BEAT_SECONDS
        self.db.execute("UPDATE instance SET seen = ?, boot = ? WHERE num = ?", (now, self.boot, self.me))
        if not self.db.changes():
            self._arrive(now)
        self.db.execute(
            "UPDATE subscription SET served_at = ? WHERE num IN (SELECT sub FROM serving WHERE instance = ?)",
            (self.clock.time(), self.me),
        )
        for gone in presence.absent(self.db, now, self.boot):
            self.woken.update(presence.leave(self.db, gone))

    def _arrive(self, now: float) -> None:
        """Be here, for the first time, or again after others took this instance for gone (it was stopped too long)."""
        self._new = True
        self.me = presence.arrive(self.db, self._port, now, self.boot, follows=self._follows)
        self._leases = itertools.count(1)
        insert(self.db, "serving(sub, instance)", 2, [value for num in self.serving for value in (num, self.me)])
        self.returned = bool(self.live)
