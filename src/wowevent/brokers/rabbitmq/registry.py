"""What all instances have to know, folded from the entries of the control log, in their order; pure.

Begun      which log it is                     Joined, Parted       the instances
Declared, Removed                              the subscriptions
Made       that a queue made at need is there  Served, Lapsed       whether somebody serves one
Emptied    that one was deleted                Told                 that its subscription knows
Returned   what was given back, and not by a crash
Stopped    that somebody's consumers of one end
Held, Left, Cancelled                          the events that are delayed
Snapshot   all of it, up to a place            and the facts themselves, which are events
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from wowevent.broker import Subscription
from wowevent.errors import StorageDamaged
from wowevent.event import Event
from wowevent.routing import Routes, subscription_of

LANES: Final = "lanes"
"""What was made once the queues of a subscription are old enough to survive the server's death: see `young`."""
_SPECS: Final = 8  # declarations of a subscription that are remembered, for what was routed by an older one
_RETURNED: Final = 20_000  # returns that are remembered
_STOPS: Final = 64  # ends of a subscription's consumers that are remembered
_GONE: Final = 10_000  # delayed events that left or were cancelled, remembered


class Begun(Struct, frozen=True, tag="begun"):
    """The log has this epoch; `after` is the one before, if it had one."""

    epoch: str
    after: str = ""


class Joined(Struct, frozen=True, tag="joined"):
    """An instance is there."""

    instance: str


class Parted(Struct, frozen=True, tag="parted"):
    """It is not any more."""

    instance: str


class Declared(Struct, frozen=True, tag="declared"):
    """A subscription, as `spec_of` writes it."""

    id: str
    spec: str
    at: float


class Removed(Struct, frozen=True, tag="removed"):
    """It is forgotten."""

    id: str


class Made(Struct, frozen=True, tag="made"):
    """Its queue for suspects, or for dead letters, is there; or its lanes are old enough to survive a kill."""

    id: str
    what: str


class Served(Struct, frozen=True, tag="served"):
    """Somebody served it then."""

    id: str
    at: float


class Lapsed(Struct, frozen=True, tag="lapsed"):
    """Nobody did for too long: its backlog is gone."""

    id: str


class Emptied(Struct, frozen=True, tag="emptied"):
    """A queue of it was gone, with whatever lay in it, and is made again."""

    id: str


class Told(Struct, frozen=True, tag="told"):
    """It is told so."""

    id: str


class Returned(Struct, frozen=True, tag="returned"):
    """Messages of it that were given back untouched: a redelivery of them is no crash."""

    id: str
    messages: tuple[str, ...]


class Stopped(Struct, frozen=True, tag="stopped"):
    """Consumers of it end at one instance, so many a lane at most.

    What is on its way to one then the server takes back, and counts that: what somebody had is not told from it.
    """

    id: str
    at: float
    consumers: int


class Held(Struct, frozen=True, tag="held"):
    """A delayed event is kept."""

    event_id: str


class Left(Struct, frozen=True, tag="left"):
    """It leaves now."""

    event_id: str


class Cancelled(Struct, frozen=True, tag="cancelled"):
    """It is not to leave."""

    event_id: str


class Mark(Struct, frozen=True, tag="mark"):
    """Nothing: who wrote it waits for it."""


class Snapshot(Struct, frozen=True, tag="snapshot"):
    """Everything up to and with an offset."""

    through: int
    state: bytes


Entry = (
    Begun
    | Joined
    | Parted
    | Declared
    | Removed
    | Made
    | Served
    | Lapsed
    | Emptied
    | Told
    | Returned
    | Stopped
    | Held
    | Left
    | Cancelled
    | Mark
    | Snapshot
)


class Known(Struct):
    """One subscription."""

    specs: list[tuple[int, str]] = []
    """Its declarations, with the offset of each."""
    at: float = 0.0
    """When it was served or declared last, Unix seconds."""
    since: float = 0.0
    """When it was declared first; 0 if that is long ago."""
    made: set[str] = set()
    lapsed: bool = False
    emptied: bool = False
    stops: list[tuple[int, int]] = []
    """Where in the log consumers of it ended, and how many; the newest last."""


class _Kept(Struct):
    epoch: str
    known: dict[str, Known]
    facts: dict[str, tuple[int, float, bytes]]
    returned: list[tuple[str, str, int]]
    held: list[str]
    gone: list[tuple[str, str]]
    instances: set[str]
    origin: str = ""


T = TypeVar("T")

_decoder: Final[msgspec.msgpack.Decoder[Entry]] = msgspec.msgpack.Decoder(Entry)
_encode: Final = msgspec.msgpack.Encoder().encode
_kept: Final = msgspec.msgpack.Decoder(_Kept)


def pack(entry: Entry) -> bytes:
    """An entry as the log has it."""
    return _encode(entry)


def unpack(data: bytes) -> Entry:
    """An entry of the log; StorageDamaged if it is none."""
    return _read(_decoder, data)


def _read(decoder: msgspec.msgpack.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise StorageDamaged(f"an entry of the control log is not what was written: {error}") from error


class Registry:
    """The fold."""

    def __init__(self) -> None:
        self.offset: int = -1
        """The last entry that is in it."""
        self.bytes: int = 0
        """Of the entries since the last snapshot."""
        self._clear()

    def _clear(self) -> None:
        self.epoch: str = ""
        """Of the log; empty before it has begun."""
        self.origin: str = ""
        """The first epoch of this control log: another one's is another."""
        self.instances: set[str] = set()
        """Who is there, and who left without a word."""
        self.known: dict[str, Known] = {}
        """The remembered subscriptions."""
        self.routes: Routes = Routes()
        """Who gets what."""
        self.facts: dict[str, tuple[int, float, bytes]] = {}
        """The newest fact of each topic: its offset here, when it was stored, the event; in the order of offsets."""
        self._specs: dict[str, list[tuple[int, Routes]]] = {}  # each alone: many patterns cost no more than one there
        self._returned: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._held: set[str] = set()
        self._gone: OrderedDict[str, str] = OrderedDict()
        self._recent: list[tuple[int, Entry]] = []
        self._through = -1

    # --- reading --------------------------------------------------------------------------------------------------

    def spec(self, id: str) -> Subscription | None:
        """The newest declaration."""
        return self.routes.get(id)

    def stands(self, id: str, spec: str, since: float) -> bool:
        """Whether its newest declaration is this one, and it has not lapsed, but was served or declared since then."""
        known = self.known.get(id)
        return known is not None and not known.lapsed and known.at >= since and known.specs[-1][1] == spec

    def wants(self, id: str, event: Event, seen: int) -> bool:
        """Whether it goes to a subscription by one of the declarations that held when it was published, or later."""
        specs = self._specs.get(id, [])
        since = max((offset for offset, _ in specs if offset <= seen), default=-1)
        return any(routes.match(event) for offset, routes in specs if offset >= since)

    def returns(self, id: str, message: str) -> int:
        """How often it was given back untouched."""
        return self._returned.get((id, message), 0)

    def stops(self, id: str, seen: int) -> int:
        """How many of its consumers, of one lane, ended behind that place of the log; none, where none is known."""
        known = self.known.get(id)
        return 0 if known is None or seen < 0 else sum(consumers for offset, consumers in known.stops if offset > seen)

    def delayed(self, event_id: str) -> str:
        """held, left, cancelled, or nothing."""
        return "held" if event_id in self._held else self._gone.get(event_id, "")

    # --- folding --------------------------------------------------------------------------------------------------

    def fold(self, offset: int, entry: Entry) -> Any:
        """Take in the entry at that offset; what it changed, for who wrote it."""
        self.offset = offset
        match entry:
            case Snapshot(through, state):
                return self._restore(through, state)
            case Mark():
                return None
        changed = self._apply(offset, entry)
        self._recent.append((offset, entry))  # last: one that cannot be read is not to be read again
        return changed

    def fold_fact(self, offset: int, topic: str, at: float, body: bytes) -> None:
        """Take in a fact."""
        self.offset = offset
        self.facts.pop(topic, None)
        self.facts[topic] = (offset, at, body)

    def _apply(self, offset: int, entry: Entry) -> Any:
        match entry:
            case Begun(epoch, after):
                self.epoch = epoch if self.epoch == after else self.epoch
                self.origin = self.origin or epoch
            case Joined(instance):
                self.instances.add(instance)
            case Parted(instance):
                self.instances.discard(instance)
            case Declared(id, spec, at):
                self._declare(offset, id, spec, at)
            case Removed(id):
                self._remove(id)
            case Held() | Left() | Cancelled():
                return self._delay(entry)
            case Made() | Served() | Lapsed() | Emptied() | Told() | Returned() | Stopped():
                return self._change(offset, entry)
        return None

    def _change(self, offset: int, entry: Made | Served | Lapsed | Emptied | Told | Returned | Stopped) -> Any:
        """What became of a subscription; nothing, of one that is forgotten."""
        known = self.known.get(entry.id)
        if known is None:
            return None
        match entry:
            case Made(_, what):
                known.made.add(what)
            case Served(_, at):
                known.at, known.lapsed = max(known.at, at), False
            case Lapsed():
                was, known.lapsed = known.lapsed, True
                return not was
            case Emptied():
                known.emptied = True
                known.made.discard(LANES)
            case Told():
                was, known.emptied = known.emptied, False
                return was
            case Returned(id, messages):
                for message in messages:
                    self._returned[id, message] = self._returned.pop((id, message), 0) + 1
                _bound(self._returned, _RETURNED)
            case Stopped(_, at, consumers):
                known.at = max(known.at, at)
                known.stops = [*known.stops[1 - _STOPS :], (offset, consumers)]
        return None

    def _declare(self, offset: int, id: str, spec: str, at: float) -> None:
        subscription = subscription_of(id, spec)
        known = self.known.setdefault(id, Known(since=at))
        known.at = max(known.at, at)
        if not known.specs or known.specs[-1][1] != spec:
            known.specs = [*known.specs[1 - _SPECS :], (offset, spec)]
            self._specs[id] = [*self._specs.get(id, [])[1 - _SPECS :], (offset, _alone(subscription))]
            self.routes.add(subscription)

    def _remove(self, id: str) -> None:
        self.known.pop(id, None)
        self._specs.pop(id, None)
        self.routes.remove(id)

    def _delay(self, entry: Held | Left | Cancelled) -> str:
        """What it was before: the first who cancels it or lets it leave decides."""
        id, before = entry.event_id, self.delayed(entry.event_id)
        if isinstance(entry, Held):
            if not before:
                self._held.add(id)
        elif before in {"", "held"}:
            self._held.discard(id)
            if before or isinstance(entry, Left):  # what nobody holds cannot be cancelled
                self._gone[id] = "left" if isinstance(entry, Left) else "cancelled"
                _bound(self._gone, _GONE)
        return before

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """All of it."""
        kept = _Kept(
            self.epoch,
            self.known,
            self.facts,
            [(id, message, count) for (id, message), count in self._returned.items()],
            sorted(self._held),
            list(self._gone.items()),
            self.instances,
            self.origin,
        )
        return Snapshot(self.offset, _encode(kept))

    def _restore(self, through: int, state: bytes) -> None:
        """A snapshot stands for what went before it; what its writer had not read yet is done again."""
        if through < self._through:  # its writer lagged behind that of another one, which is in it
            return
        facts = {topic: fact for topic, fact in self.facts.items() if fact[0] > through}
        later = [(offset, entry) for offset, entry in self._recent if offset > through]
        kept = _read(_kept, state)
        read = {id: [(at, subscription_of(id, spec)) for at, spec in known.specs] for id, known in kept.known.items()}
        self._clear()  # it can be read
        self._through, self.bytes = through, len(state)
        self.epoch, self.known, self.instances = kept.epoch, kept.known, kept.instances
        self.origin = kept.origin
        self._specs = {id: [(at, _alone(spec)) for at, spec in specs] for id, specs in read.items()}
        for specs in read.values():
            self.routes.add(specs[-1][1])
        self._returned.update(((id, message), count) for id, message, count in kept.returned)
        self._held = set(kept.held)
        self._gone.update(kept.gone)
        self.facts = {topic: fact for topic, fact in kept.facts.items() if topic not in facts} | facts
        for offset, entry in later:
            self._recent.append((offset, entry))
            self._apply(offset, entry)


def _alone(subscription: Subscription) -> Routes:
    routes = Routes()
    routes.add(subscription)
    return routes


def _bound(table: OrderedDict[Any, Any], most: int) -> None:
    while len(table) > most:
        table.popitem(last=False)
