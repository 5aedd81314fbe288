"""Publishing: a batch is routed here, and stored by one script that refuses it if the routes are old."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from wowevent.broker import CONTROL, KNOWN_IDS, KNOWN_SECONDS, LIVE, URGENT, Appended, Position
from wowevent.brokers.redis.session import Session
from wowevent.codec import decode, encode
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.log import logger

_EVENTS, _BYTES = 500, 4 * 2**20  # in one call of the script
_INLINE: Final = 4
"""An event that goes to more subscriptions lies in the log only, and they refer to it."""

Item = tuple[Event, bytes]


async def publish(session: Session, events: Sequence[Event]) -> list[Appended]:
    """Store and route; one `Appended` each."""
    now = session.clock.time()
    results: dict[int, Appended] = {}
    ordinary: list[tuple[int, Item]] = []
    live: list[tuple[int, Item]] = []
    for place, event in enumerate(events):
        if event.not_before is not None and (due := event.not_before.timestamp()) > now:
            results[place] = await _hold(session, event, due)
        elif event.topic.startswith(LIVE):
            live.append((place, (event, encode(event))))
        else:
            ordinary.append((place, (event, encode(event))))
    for chunk in _chunks(ordinary):
        answers = await append(session, [item for _, item in chunk])
        results.update(zip((place for place, _ in chunk), answers, strict=True))
    if live:
        answers = await _send_live(session, [item for _, item in live])
        results.update(zip((place for place, _ in live), answers, strict=True))
    return [results[place] for place in range(len(events))]


def _chunks(items: Sequence[tuple[int, Item]]) -> Iterator[list[tuple[int, Item]]]:
    chunk: list[tuple[int, Item]] = []
    size = 0
    for item in items:
        if chunk and (len(chunk) == _EVENTS or size + len(item[1][1]) > _BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item[1][1])
    if chunk:
        yield chunk


async def append(session: Session, items: Sequence[Item], *, due: bool = False) -> list[Appended]:
    """One call of the script; `due` for delayed events whose moment has come."""
    epoch = session.epoch
    matched: list[tuple[str, ...]] = []

    def compose() -> list[Any]:
        nonlocal epoch
        epoch = session.epoch  # that of the answer, too: by then another log may be joined
        matched[:] = [session.registry.routes.match(event) for event, _ in items]
        ids = [part for event, body in items for part in (event.event_id, body)]
        head = (
            session.registry.version,
            "due" if due else "",
            KNOWN_SECONDS * 1000,
            KNOWN_IDS,
            session.known,
            len(items),
        )
        return [*head, *ids, *_lanes(session, items, matched), *_facts(items)]

    offsets = await session.routed("append", compose)
    session.learn(epoch, max(offsets))
    return [
        Appended(Position(epoch, offset), matched=ids)
        if offset > 0
        else Appended(Position(epoch, -offset) if offset else None, duplicate=True)
        for offset, ids in zip(offsets, matched, strict=True)
    ]


def _lanes(session: Session, items: Sequence[Item], matched: Sequence[tuple[str, ...]]) -> list[Any]:
    """Which events of the batch go to which lane of which subscription, as the script takes it."""
    lanes: dict[tuple[str, str, int], list[int]] = {}
    targets_of = session.registry.targets
    for place, ((event, _), ids) in enumerate(zip(items, matched, strict=True), 1):
        if not ids:
            continue
        targets = targets_of(ids)
        refer = int(len(targets) > _INLINE)
        for target in targets:
            lane = "lost" if target.lapsed else "u" if event.priority >= URGENT and target.lanes else "n"
            lanes.setdefault((target.num, lane, refer), []).append(place)
    parts: list[Any] = [len(lanes)]
    for (num, lane, refer), places in lanes.items():
        parts += (num, lane, refer, len(places), *places)
    return parts


def _facts(items: Sequence[Item]) -> list[Any]:
    """The places and topics of the facts among these; for all other batches, nothing."""
    topics = [(place, event.topic) for place, (event, _) in enumerate(items, 1) if event.topic.startswith(CONTROL)]
    return [part for fact in topics for part in fact]


async def _hold(session: Session, event: Event, due: float) -> Appended:
    epoch = session.epoch
    known = await session.call("hold", event.event_id, f"{due * 1000:.3f}", encode(event))
    if known is not None:
        return Appended(Position(epoch, int(known)) if int(known) else None, duplicate=True)
    session.soon(due - session.clock.time())
    return Appended(None, matched=session.registry.routes.match(event))


async def _send_live(session: Session, items: Sequence[Item]) -> list[Appended]:
    """Replies: into the stream of the process that they go to."""
    epoch = session.epoch
    matched: list[tuple[str, ...]] = []

    def compose() -> list[Any]:
        nonlocal epoch
        epoch = session.epoch  # that of the answer, too: by then another log may be joined
        matched[:] = [session.registry.routes.match(event) for event, _ in items]
        parts: list[Any] = [session.registry.version]
        for event, body in items:
            parts += (event.topic.split(".")[1], event.event_id, body)
        return parts

    head = await session.routed("reply", compose)
    return [Appended(Position(epoch, head), matched=ids) for ids in matched]


async def release(session: Session, bodies: Sequence[bytes]) -> None:
    """Append delayed events whose moment has come; what cannot be read stays where it is, and is said."""
    items: list[Item] = []
    for body in bodies:
        try:
            items.append((decode(body), body))
        except BusError as error:
            logger.error("a delayed event cannot be read, and stays where it is", error=error)
    if items:
        await append(session, items, due=True)
