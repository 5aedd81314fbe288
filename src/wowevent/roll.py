"""A roll: facts whose keys are many and come and go (conversations), kept by all processes in bounded room.

A fact of its own for each would leave a removal behind for ever. So 64 facts hold them all:

    _bus.{kind}, key "0" to "63"  ->  {"entries": {key: {"at": Unix seconds, "value": {…}, or null: it was dropped}}}

Of a key the entry with the later `at` holds. Two processes that write one slot at the same moment overwrite each other;
each then sees that what it said is not there, and says it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Final

from wowevent.clock import Clock
from wowevent.directory import Changed, Directory
from wowevent.ending import end
from wowevent.errors import BusError
from wowevent.log import logger

_SLOTS: Final = 64
_LATER: Final = 1e-3  # seconds: a change is later than what it changes, whatever the clocks of two processes say

_Entries = dict[str, dict[str, Any]]


class Roll:
    """What is known by all of many keys: a value each, until it is dropped, `keep` seconds old, or one too many."""

    def __init__(
        self, directory: Directory, kind: str, clock: Clock, *, most: int = 1024, keep: float = 86_400.0
    ) -> None:
        self._directory = directory
        self._kind = kind
        self._clock = clock
        self._most = max(1, most // _SLOTS)  # entries of a slot, those that say "dropped" among them
        self._keep = keep
        self._slots: dict[str, _Entries] = {}
        self._said: _Entries = {}  # by this process, while it holds
        self._watchers: list[Changed] = []
        self._jobs: set[asyncio.Task[None]] = set()
        self._closed = False
        directory.watch(kind, self._changed)

    # --- what is known ------------------------------------------------------------------------------------------

    def get(self, key: str) -> Mapping[str, Any] | None:
        """Its value; None if it has none, or none any more."""
        entry = self._slots.get(_slot(key), {}).get(key)
        return entry["value"] if entry is not None and self._holds(entry) else None

    def items(self) -> Mapping[str, Mapping[str, Any]]:
        """All that have a value."""
        entries = [pair for slot in self._slots.values() for pair in slot.items()]
        return {key: entry["value"] for key, entry in entries if entry["value"] is not None and self._holds(entry)}

    def watch(self, changed: Changed) -> None:
        """Call `changed(key, value)` for each that is there, now, and for each that changes, later.

        None is the value of one that was dropped, or gave way. One that only grew too old is not told.
        """
        self._watchers.append(changed)
        for key, value in self.items().items():
            changed(key, dict(value))

    # --- changing it --------------------------------------------------------------------------------------------

    async def add(self, key: str, value: Mapping[str, Any]) -> None:
        """Say it to all, as `Directory.put` does. Where there is no room, the oldest of its slot gives way."""
        await self._say(key, dict(value))

    async def drop(self, key: str) -> None:
        """Take it back; one that is not there is not said."""
        if self.get(key) is not None:
            await self._say(key, None)

    async def close(self) -> None:
        """Say nothing again."""
        self._closed = True
        await end(*self._jobs)

    async def _say(self, key: str, value: dict[str, Any] | None) -> None:
        slot = _slot(key)
        before = self._slots.get(slot, {}).get(key, {"at": 0.0})
        self._said[key] = {"at": max(self._clock.time(), before["at"] + _LATER), "value": value}
        await self._put(slot)

    async def _put(self, slot: str) -> None:
        """Say a slot as it is known here, with what this process said of it."""
        own = {key: entry for key, entry in self._said.items() if _slot(key) == slot}
        await self._directory.put(self._kind, slot, {"entries": self._merged(self._slots.get(slot, {}), own)})

    def _merged(self, there: _Entries, own: _Entries) -> _Entries:
        """The later entry of each key, without what grew too old, and no more than there is room for."""
        entries = there | {key: entry for key, entry in own.items() if _is_later(entry, there.get(key))}
        held = [pair for pair in entries.items() if self._holds(pair[1])]
        return dict(sorted(held, key=_age)[-self._most :])

    def _holds(self, entry: Mapping[str, Any]) -> bool:
        return bool(self._clock.time() - entry["at"] < self._keep)

    # --- what others say ----------------------------------------------------------------------------------------

    def _changed(self, slot: str, fact: dict[str, Any] | None) -> None:
        before, now = self._slots.get(slot, {}), _entries(fact)
        self._slots[slot] = now
        for key in before.keys() | now.keys():
            was, value = before.get(key, {}).get("value"), now.get(key, {}).get("value")
            if was != value:
                for changed in self._watchers:
                    changed(key, value)
        self._look_after(slot, now)

    def _look_after(self, slot: str, now: _Entries) -> None:
        """Say again what this process said and another has written over without knowing of it."""
        own = {key: entry for key, entry in self._said.items() if _slot(key) == slot}
        wanted = self._merged(now, own)
        for key, entry in own.items():
            if wanted.get(key) != entry:  # said otherwise since, too old, or it gave way
                del self._said[key]
        if any(now.get(key) != self._said[key] for key in own if key in self._said) and not self._closed:
            job = asyncio.create_task(self._say_again(slot), name="wowevent:roll")
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _say_again(self, slot: str) -> None:
        try:
            await self._put(slot)
        except BusError as error:  # the next one who writes there has the same to say
            logger.warning("a shared fact could not be said again", kind=self._kind, error=error)


def _slot(key: str) -> str:
    return str(blake2b(key.encode(errors="surrogatepass"), digest_size=1).digest()[0] % _SLOTS)


def _entries(fact: dict[str, Any] | None) -> _Entries:
    """Those of a slot; what somebody else wrote there is left out."""
    found = (fact or {}).get("entries")
    pairs = found.items() if isinstance(found, dict) else ()
    return {key: entry for key, entry in pairs if _is_entry(entry)}


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("value", 0), dict | None):
        return False
    at = entry.get("at")
    return isinstance(at, int | float) and not isinstance(at, bool)


def _is_later(entry: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    return other is None or entry["at"] > other["at"]


def _age(pair: tuple[str, Mapping[str, Any]]) -> float:
    return float(pair[1]["at"])
