"""Entries and dead letters as the scripts keep them (drawn in `prelude.lua`), read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wowevent.broker import Attempt, DeadLetter, Lease, Position, Subscription, SubscriptionInfo
from wowevent.codec import decode
from wowevent.errors import BusError, StorageDamaged
from wowevent.event import Event
from wowevent.reading import reason_of

_attempts: Final = msgspec.json.Decoder(tuple[Attempt, ...])


def offset_of(raw: bytes) -> int:
    """The position of an entry."""
    return int(raw[: raw.index(b" ")])


def lease_of(raw: bytes, prefix: str, epoch: str) -> Lease:
    """The lease of an entry; StorageDamaged, FormatTooNew if its event cannot be read."""
    head, _, rest = raw.partition(b"\n")
    offset, _, _, failures, crashes, redelivered, length = head.split(b" ")
    size = int(length)
    return Lease(
        event=decode(rest[size:]),
        token=f"{prefix}.{offset.decode()}",
        position=Position(epoch, int(offset)),
        failures=int(failures),
        crashes=int(crashes),
        attempts=attempts_of(rest[:size]) if size else (),
        redelivered=redelivered == b"1",
    )


def attempts_of(text: bytes) -> tuple[Attempt, ...]:
    """The attempts of an entry."""
    try:
        return _attempts.decode(b"[%b]" % text)
    except msgspec.MsgspecError as error:
        raise StorageDamaged("the attempts of an entry are not what was written") from error


def letter_of(id: str, subscription: str, found: list[bytes]) -> DeadLetter:
    """A dead letter from the fields of its stream entry. What cannot be read of its event is stood in for."""
    fields: dict[bytes, bytes] = dict(zip(found[::2], found[1::2], strict=True))
    head, _, rest = fields[b"e"].partition(b"\n")
    size, time = int(head.split(b" ")[6]), float(fields[b"at"]) / 1000
    attempts = attempts_of(rest[:size])
    try:
        event = decode(rest[size:])
    except BusError:
        event = Event(topic="damaged", timestamp=datetime.fromtimestamp(time, UTC), event_id=f"damaged-{id}")
    return DeadLetter(
        id=id,
        event=event,
        subscription=subscription,
        reason=reason_of(fields[b"r"].decode()),
        error=msgspec.json.decode(fields[b"x"]) if fields[b"x"] else attempts[-1].error if attempts else "",
        traceback=fields[b"t"].decode(errors="replace"),
        attempts=attempts,
        time=time,
    )


def json_of(text: str) -> bytes:
    """An error as the scripts take it."""
    return msgspec.json.encode(text.encode(errors="replace").decode())


def number_of(value: Any) -> int:
    """A number that the server gives as text, or not at all."""
    return int(float(value)) if value else 0


def info_of(subscription: Subscription, facts: list[Any], unseen: int, now: float) -> SubscriptionInfo:
    """The numbers of a subscription, as the script `info` gives them; `unseen` are those of the past still to come."""
    lost, oldest = number_of(facts[2]), facts[8]
    return SubscriptionInfo(
        subscription=subscription,
        ready=facts[3] + unseen,
        leased=facts[4],
        delayed=facts[5],
        dead=facts[6],
        consumers=facts[7],
        oldest=None if oldest is None else max(0.0, now - int(oldest) / 1000),
        lost=None if lost < 0 else lost,
        lapsed=facts[1] == b"1",
    )
