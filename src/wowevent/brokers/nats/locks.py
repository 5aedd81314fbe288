"""What only one instance may do at a time: a message each that its holder writes anew, and that nobody else can.

A lock that is not said again expires. One that others watch is theirs sooner: they hear each word of its holder, and
who has heard none for a while writes over the last one, by compare and set. Its holder goes by its own clock, which
began before they heard it, so that it knows first.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Final

from wowevent.brokers.nats.faults import WRONG_SEQUENCE, is_missing, refusal
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import Message
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.tags import expecting, living
from wowevent.errors import BrokerError
from wowevent.presence import Presence

LOCK: Final = 15.0
"""Seconds after which a lock is free whose holder says nothing."""
LATER: Final = "later"
"""The lock of who sends on what is delayed, which all watch,"""
BRIEF: Final = 2.0
"""and the seconds without a word after which somebody else takes it over."""


class Locks:
    """Those of one instance by one link."""

    def __init__(self, link: Link, names: Names, presence: Presence) -> None:
        """None is held."""
        self.held: dict[str, int] = {}
        """The locks that this instance has: the sequence of each."""
        self._link = link
        self._names = names
        self._presence = presence
        self._until: dict[str, float] = {}
        self._heard = (0, 0.0)
        self._locking = asyncio.Lock()

    def hear(self, subject: str, seq: int) -> None:
        """The holder of a watched lock said that it has it, there in the control stream."""
        if subject == self._names.lock(LATER):
            self._heard = (seq, monotonic())

    @property
    def watched(self) -> bool:
        """Whether somebody else seems to live who has the watched lock: it need not be asked for."""
        return LATER not in self.held and monotonic() - self._heard[1] <= BRIEF

    def forget(self) -> None:
        """Who had the watched lock has let it go, perhaps."""
        self._heard = (0, 0.0)

    def holds(self, what: str) -> bool:
        """Whether nobody else can have it yet, whatever the server has heard of us."""
        return what in self.held and monotonic() < self._until.get(what, 0.0)

    async def lock(self, what: str) -> bool:
        """Whether this instance has the lock now, and goes on having it as long as it says so in time.

        StorageFull: nobody can write it, and it ends in its time.
        """
        async with self._locking:  # of two that renew it at once, one would take itself for somebody else
            began = monotonic()
            seq = await self._claim(what, self.held.get(what, 0))
            if not seq:
                found = await self._link.get(self._names.control, subject=self._names.lock(what))
                # It may be ours all the same, where an answer was lost with the line before.
                own = found is not None and found.body.decode("utf-8", "replace") == self._presence.instance
                if found is not None and (own or self._silent(what, found.seq)):
                    seq = await self._claim(what, found.seq)
        if seq:
            self.held[what], self._until[what] = seq, began + (BRIEF if what == LATER else LOCK)
            self._presence.holding.add(what)
        else:
            self._drop(what)
        return bool(seq)

    def _silent(self, what: str, seq: int) -> bool:
        """Whether that is the last word of its holder, and was heard long ago."""
        heard, at = self._heard
        return what == LATER and seq == heard and monotonic() - at > BRIEF

    async def _claim(self, what: str, before: int) -> int:
        """The sequence of the lock, if that was the one before."""
        headers = expecting(before) + living(LOCK)
        message = Message(self._names.lock(what), self._presence.instance.encode(), headers)
        (confirm,) = await self._link.publish([message])
        if confirm.error is not None and confirm.error.get("err_code") != WRONG_SEQUENCE:
            raise refusal(confirm.error)
        return 0 if confirm.error is not None else confirm.seq

    async def free(self, what: str) -> bool:
        """Let a lock go; whether it was ours to let go."""
        async with self._locking:
            seq = self._drop(what)
        if seq is None:
            return False
        try:
            await self._link.ask(f"STREAM.MSG.DELETE.{self._names.control}", seq=seq, no_erase=True)
        except BrokerError as error:
            if not is_missing(error):
                raise
        return True

    def _drop(self, what: str) -> int | None:
        self._until.pop(what, None)
        self._presence.holding.discard(what)
        return self.held.pop(what, None)
