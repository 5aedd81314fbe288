"""Idempotency-Key on POST /events: a request that is sent again publishes nothing twice (the IETF httpapi draft).

Two things together see to it. Events without an id of their own get ones that are derived from the key, so that the
engine takes a repetition for what it is: at any process of the namespace, and through restarts, for as long as it knows
ids (2 minutes and the last 10,000 at least). And each process remembers its own last keys, for a day:

    a key that is unknown, or whose request failed   -> publish
    the same request is under way                    -> 409
    it was answered                                  -> the same answer, with each event marked as a duplicate
    it stood before another request                  -> 422
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from http import HTTPStatus
from typing import Final
from uuid import NAMESPACE_URL, uuid5

import msgspec
from msgspec import Struct

from wowevent.errors import InvalidEvent, shown
from wowevent.receipt import Receipt
from wowevent.service.answers import Receipts, shown_receipt
from wowevent.service.failures import Refusal

HEADER: Final = "idempotency-key"
KEYS: Final = 10_000
"""Keys that a process remembers,"""
SECONDS: Final = 86_400.0
"""for so long at most,"""
ROOM: Final = 16 * 1024 * 1024
"""and with so many bytes of answers at most: the oldest go first."""

_LONGEST: Final = 255
_BARE: Final = re.compile(r"""[!#-+\--:<-\[\]-~]+""")  # visible, and nothing that a structured field gives a meaning
_QUOTED: Final = re.compile(r'"((?:[ !#-\[\]-~]|\\["\\])*)"')  # RFC 9651, a string
_ESCAPED: Final = re.compile(r"\\(.)")
_IDS: Final = uuid5(NAMESPACE_URL, "urn:wowevent:idempotency-key")


def key_of(headers: Sequence[str]) -> str | None:
    """The key that a request names, quoted (as the draft has it) or bare; None without one. InvalidEvent."""
    if not headers:
        return None
    given = headers[0].strip(" \t")
    quoted = _QUOTED.fullmatch(given)
    key = _ESCAPED.sub(r"\1", quoted[1]) if quoted else given if _BARE.fullmatch(given) else ""
    if len(headers) > 1 or not 1 <= len(key) <= _LONGEST:
        raise InvalidEvent(
            f"Idempotency-Key: {shown(', '.join(headers))} is not one: 1 to {_LONGEST} printable ASCII characters, "
            'between quotes where there are blanks or any of " , ; \\ among them'
        )
    return key


def id_of(namespace: str, key: str, number: int, *, owner: str = "") -> str:
    """The id of the event with that number in the request, the same in every process of the namespace.

    `owner` is who asks, where that is known: what others do with the same key is another matter.
    """
    return str(uuid5(_IDS, "\n".join((namespace, str(number), key, *([owner] if owner else [])))))


def fingerprint(*parts: bytes) -> bytes:
    """What tells one request from another."""
    found = sha256()
    for part in parts:
        found.update(b"%d:" % len(part) + part)
    return found.digest()


_Owned = tuple[str, str]  # who asks, where that is known, and the key


class _Asked(Struct, eq=False):
    """What is known of one key."""

    fingerprint: bytes
    at: float
    under_way: bool = False
    answer: bytes = b""
    """What a repetition is answered; empty while there is none."""


class Keys:
    """The last keys of one process. Time is monotonic seconds."""

    def __init__(self, *, keys: int = KEYS, room: int = ROOM, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._room = room
        self._clock = clock
        self._asked: dict[_Owned, _Asked] = {}  # oldest first
        self._size = 0  # bytes of all answers

    async def once(
        self, key: str, request: bytes, publish: Callable[[], Awaitable[Sequence[Receipt]]], *, owner: str = ""
    ) -> bytes:
        """The answer to a request of `owner` with this fingerprint, as JSON; `publish` is called unless it is known.

        Raises Refusal for a key that stands, or stood, before another request, and what `publish` raises: the same
        request may then come again, and the key stays its own unless nothing at all was stored.
        """
        owned = owner, key
        asked = self._claim(owned, request)
        if asked.answer:
            return asked.answer
        asked.under_way = True
        try:
            receipts = Receipts([shown_receipt(receipt) for receipt in await publish()])
        except InvalidEvent:
            self._drop(owned, asked)
            raise
        finally:
            asked.under_way = False
        answer = msgspec.json.encode(receipts)
        for receipt in receipts.receipts:
            receipt.duplicate = True
        self._keep(owned, asked, msgspec.json.encode(receipts))
        return answer

    def _claim(self, owned: _Owned, request: bytes) -> _Asked:
        self._forget()
        asked = self._asked.get(owned)
        if asked is None:
            asked = self._asked[owned] = _Asked(request, self._clock())
            return asked
        _, key = owned
        if asked.fingerprint != request:
            message = f"the Idempotency-Key {shown(key)} stood before another request; a new request needs a new key"
            raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "idempotency_key_reused", message)
        if asked.under_way:
            message = f"the request with the Idempotency-Key {shown(key)} is under way; send it again in a moment"
            raise Refusal(HTTPStatus.CONFLICT, "idempotency_key_in_use", message, again=True)
        return asked

    def _keep(self, key: _Owned, asked: _Asked, answer: bytes) -> None:
        """Remember an answer, unless it is too large, or its key was pushed out meanwhile."""
        if self._asked.get(key) is asked and len(answer) <= self._room:
            asked.answer = answer
            self._size += len(answer)
            self._forget()

    def _forget(self) -> None:
        """Let go of what is too old or too much."""
        now = self._clock()
        while self._asked:
            key, oldest = next(iter(self._asked.items()))
            if now - oldest.at < SECONDS and len(self._asked) <= self._keys and self._size <= self._room:
                return
            self._drop(key, oldest)

    def _drop(self, key: _Owned, asked: _Asked) -> None:
        if self._asked.get(key) is asked:
            del self._asked[key]
            self._size -= len(asked.answer)
