"""What all instances have to know of subscriptions, folded from the control stream, which has the newest of each; pure.

A declaration holds for what lies behind its place in the log. Those before it hold for what they were made for, as long
as some of that may be unread.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

import msgspec
from msgspec import Struct, structs

from wowevent.broker import URGENT, Subscription
from wowevent.errors import StorageDamaged
from wowevent.event import Event
from wowevent.routing import Routes, matches, spec_of, subscription_of
from wowevent.routing import wants as lets_through
from wowevent.topic import matches_any

SPECS: Final = 16
"""Declarations of one subscription that are remembered, at most."""


class Log(Struct, frozen=True):
    """Which log this is: its epoch, and when its stream was made, by which one that was made anew is noticed."""

    epoch: str
    created: str


class Spec(Struct, frozen=True):
    """A declaration, as `spec_of` writes it, for what lies behind `behind`."""

    behind: int
    text: str


class Known(Struct, frozen=True):
    """One remembered subscription."""

    id: str
    begins: int
    """The first sequence of the log that it gets."""
    log: str = ""
    """When the log's stream was made: of which log its places are."""
    done: int = 0
    """All up to this sequence was settled, whatever a consumer says that is new."""
    since: float = 0.0
    """Of what lay in the log when it was declared, it wants the events from that moment on, Unix seconds."""
    until: int = 0
    """That was the end of the log then."""
    specs: tuple[Spec, ...] = ()
    at: float = 0.0
    """When it was served or declared last, Unix seconds."""
    born: str = ""
    """Which one of that id it is: it may have been removed and declared again."""
    again: bool = False
    """Something came to it once more, or may: it has consumers for that."""
    made: dict[str, int] = {}
    """How often the consumer of a source was made anew: what the one before gave cannot be settled."""
    lapsed: bool = False
    lost: int = 0
    """Events that the log's limits took, unread and untold."""
    untold: bool = False
    removed: bool = False


T = TypeVar("T")

_known: Final = msgspec.json.Decoder(Known)
_log: Final = msgspec.json.Decoder(Log)
pack: Final = msgspec.json.Encoder().encode


def read_log(body: bytes) -> Log:
    """Which log it is; StorageDamaged."""
    return _read(_log, body)


def read_known(body: bytes) -> Known:
    """A subscription; StorageDamaged."""
    return _read(_known, body)


def _read(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageDamaged(f"an entry of the control stream is not what was written: {error}") from error


def declared(known: Known, subscription: Subscription, head: int, unread: int, now: float) -> Known:
    """With one declaration more, for what lies behind `head`; those that were for what is read are forgotten.

    `unread` is the first sequence that may not be settled.
    """
    text = spec_of(subscription)
    specs = known.specs
    if not specs or specs[-1].text != text:
        specs = (*specs, Spec(head, text))
    first = max((n for n, spec in enumerate(specs) if spec.behind < unread), default=0)
    specs = specs[max(first, len(specs) - SPECS) :]
    return structs.replace(known, specs=specs, done=max(known.done, unread - 1), at=max(known.at, now))


def renewed(known: Known, log: str) -> Known:
    """The same in a log that was made anew, of which it wants all. What it had not read is gone."""
    specs = (Spec(0, known.specs[-1].text),)
    anew = structs.replace(known, begins=1, log=log, done=0, since=0.0, until=0, specs=specs, untold=True)
    return remade(anew, ("u", "n"))


def remade(known: Known, sources: Iterable[str]) -> Known:
    """The same, with consumers that were made anew."""
    return structs.replace(known, made={**known.made, **{source: known.made.get(source, 0) + 1 for source in sources}})


class Registry:
    """The fold."""

    def __init__(self) -> None:
        self.log: Log | None = None
        """Which log it is."""
        self.stream: str = ""
        """When the control stream was made that this was read from."""
        self.known: dict[str, Known] = {}
        """The remembered subscriptions."""
        self.revisions: dict[str, int] = {}
        """The sequence of each one's newest entry, of those that were removed, too."""
        self.routes: Routes = Routes()
        """Who gets what is published now."""
        self.offset: int = 0
        """The last entry that is in it."""
        self._read: dict[str, list[tuple[Spec, Subscription]]] = {}

    def spec(self, id: str) -> Subscription | None:
        """The newest declaration."""
        return self.routes.get(id)

    def fold(self, offset: int, known: Known) -> None:
        """Take in the entry at that offset. StorageDamaged, and nothing changes, if it cannot be one."""
        if known.removed:
            self.revisions[known.id] = offset
            self.forget(known.id)
            return
        if not known.specs:
            raise StorageDamaged(f"no declaration of subscription {known.id!r} is there")
        before = self.known.get(known.id)
        if before is None or before.specs != known.specs:
            read = [(spec, subscription_of(known.id, spec.text)) for spec in known.specs]
            self._read[known.id] = read
            self.routes.add(read[-1][1])
        self.revisions[known.id] = offset
        self.known[known.id] = known

    def forget(self, id: str) -> None:
        """It is remembered no more."""
        self.known.pop(id, None)
        self._read.pop(id, None)
        self.routes.remove(id)

    def specs(self, id: str) -> list[Subscription]:
        """All declarations that still hold for something."""
        return [subscription for _, subscription in self._read.get(id, [])]

    def held_then(self, id: str, offset: int) -> Subscription | None:
        """The declaration that held for that place in the log."""
        found = None
        for spec, subscription in self._read.get(id, []):
            if found is None or spec.behind < offset:
                found = subscription
        return found

    def wants(self, id: str, event: Event, offset: int, lane: str) -> bool:
        """Whether it goes to a subscription by the declaration that held then, and by this lane's consumer."""
        known, subscription = self.known.get(id), self.held_then(id, offset)
        if known is None or subscription is None or not _matches(subscription, event):
            return False
        if offset < known.begins or offset <= known.done:
            return False
        if offset <= known.until and event.timestamp.timestamp() < known.since:
            return False
        return lane == ("u" if event.priority >= URGENT and not subscription.exclusive else "n")


def _matches(subscription: Subscription, event: Event) -> bool:
    """`matches`, where what was found for a topic is remembered: this is asked for every delivery."""
    if subscription.keyed:
        return matches(subscription, event)
    return lets_through(subscription, event) and matches_any(subscription.patterns, event.topic)
