"""Who is there, for engines whose instances tell each other: what each reads live, and what it serves; pure.

Each instance says so every few seconds, and at each change.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec
from msgspec import Struct

from wowevent.broker import Present, Subscription
from wowevent.clock import Clock
from wowevent.errors import BusError
from wowevent.routing import Routes, spec_of, subscription_of

GONE: Final = 15.0
"""Seconds of silence after which an instance is taken to be gone."""


class Note(Struct, frozen=True, omit_defaults=True):
    """What an instance says."""

    sender: str
    gone: bool = False
    """It leaves."""
    live: dict[str, str] = {}
    """Live subscriptions, as `spec_of` writes them."""
    serves: tuple[str, ...] = ()
    holds: tuple[str, ...] = ()
    """The locks that it has."""


_decoder: Final = msgspec.msgpack.Decoder(Note)
write: Final = msgspec.msgpack.Encoder().encode


def read(body: bytes) -> Note | None:
    """A note; None for what is none: a stranger's."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


class Presence:
    """What one instance knows of the others."""

    def __init__(self, instance: str, clock: Clock) -> None:
        """`instance` is the name that it goes by."""
        self.instance: str = instance
        """Its name."""
        self.reading: dict[str, Subscription] = {}
        """What this instance reads live."""
        self.serving: set[str] = set()
        """What it serves."""
        self.holding: set[str] = set()
        """The locks that it has."""
        self.routes: Routes = Routes()
        """What anyone reads live."""
        self._clock = clock
        self._heard: dict[str, tuple[float, Note]] = {}

    def note(self) -> Note:
        """What this instance has to say."""
        live = {id: spec_of(subscription) for id, subscription in self.reading.items()}
        self._fold()
        return Note(self.instance, live=live, serves=tuple(self.serving), holds=tuple(self.holding))

    def hear(self, note: Note) -> bool:
        """What another one said; True: it has let a lock go."""
        if note.sender == self.instance:
            return False
        before = self._heard.pop(note.sender, None)
        if not note.gone:
            self._heard[note.sender] = (self._clock.monotonic(), note)
        if before is None or note.gone or before[1].live != note.live:
            self._fold()
        return before is not None and not {*before[1].holds} <= {*note.holds}

    def others(self) -> set[str]:
        """Those that something was heard of, and not too long ago."""
        self._expire()
        return set(self._heard)

    def consumers(self, id: str) -> int:
        """How many instances serve it."""
        self._expire()
        return (id in self.serving) + sum(id in note.serves for _, note in self._heard.values())

    def all(self, remembered: Routes) -> list[Present]:
        """The remembered ones, and everyone's live ones, with who serves them: what each says is read once."""
        self._expire()
        serving = Counter(self.serving)
        for _, note in self._heard.values():
            serving.update(set(note.serves))
        found = [Present(each, serving[each.id]) for each in remembered.all()]
        return found + [Present(each, 1) for each in self.routes.all()]

    def present(self) -> list[Subscription]:
        """Everyone's live subscriptions."""
        self._expire()
        return self.routes.all()

    def _expire(self) -> None:
        silent = [sender for sender, (at, _) in self._heard.items() if self._clock.monotonic() - at > GONE]
        for sender in silent:
            del self._heard[sender]
        if silent:
            self._fold()

    def _fold(self) -> None:
        self.routes = Routes()
        for subscription in self.reading.values():
            self.routes.add(subscription)
        for _, note in self._heard.values():
            for id, spec in note.live.items():
                try:
                    self.routes.add(subscription_of(id, spec))
                except BusError:
                    continue  # one that a newer version may understand
