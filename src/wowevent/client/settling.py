"""What a client holds of a named subscription, and what it says of it, until the router has heard that. No I/O.

    take -> in hand -> settle -> ready -> frames -> sent -> confirm
                                   ^                 |
                                   +--- the connection broke

A token is settled by each connection anew until one of them is known to have carried it. So an event that was handled
is not handled again because its acknowledgement got lost: neither if it comes under its old token nor under a new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

from msgspec import structs

from wowevent.router.wire import Ack, Nack

_TOKENS: Final = 1_000  # of one frame
_HELD: Final = 2_000  # tokens that a subscribe frame names

Verdict = Nack | None
"""None: it was handled. Else why not; `subscription_id` and `tokens` are filled in when it is sent."""


class Settling:
    """The tokens of one subscription."""

    def __init__(self) -> None:
        self._in_hand: dict[str, str] = {}  # event id -> the newest token
        self._ready: dict[str, tuple[str, Verdict]] = {}  # token -> event id and verdict
        self._sent: dict[str, tuple[str, Verdict]] = {}
        self._handled: dict[str, None] = {}  # event ids whose acknowledgement may have been lost

    @property
    def pending(self) -> bool:
        """Whether something is to be sent."""
        return bool(self._ready)

    @property
    def sent(self) -> int:
        """How many were sent and are not confirmed."""
        return len(self._sent)

    @property
    def held(self) -> tuple[str, ...]:
        """Tokens that the router should not hand out again."""
        return tuple(islice((*self._in_hand.values(), *self._ready, *self._sent), _HELD))

    def take(self, event_id: str, token: str) -> bool:
        """Whether an event that came is to be handled; not if it is in hand, or was handled.

        Then the new token is settled instead of the old one, or as the old one.
        """
        if event_id in self._handled:
            self._ready[token] = (event_id, None)
            return False
        fresh = event_id not in self._in_hand
        self._in_hand[event_id] = token
        return fresh

    def settle(self, event_id: str, verdict: Verdict) -> None:
        """The handler is through with an event in hand."""
        token = self._in_hand.pop(event_id, None)
        if token is None:
            return
        self._ready[token] = (event_id, verdict)
        if verdict is None:
            self._handled[event_id] = None

    def refuse(self, event_id: str, token: str, verdict: Nack) -> None:
        """It never came into anybody's hands."""
        self._ready[token] = (event_id, verdict)

    def frames(self, subscription_id: str) -> Iterator[Ack | Nack]:
        """What is to be said now, one `ack` for many; it counts as sent."""
        ready, self._ready = self._ready, {}
        self._sent.update(ready)
        done = [token for token, (_, verdict) in ready.items() if verdict is None]
        for at in range(0, len(done), _TOKENS):
            yield Ack(subscription_id=subscription_id, tokens=tuple(done[at : at + _TOKENS]))
        for token, (_, verdict) in ready.items():
            if verdict is not None:
                yield structs.replace(verdict, subscription_id=subscription_id, tokens=(token,))

    def confirm(self, count: int) -> None:
        """The first `count` of what was sent have been carried."""
        for token in list(islice(self._sent, count)):
            event_id, _ = self._sent.pop(token)
            self._handled.pop(event_id, None)

    def lose(self) -> None:
        """The connection broke: what is not confirmed is to be said again."""
        self._ready, self._sent = {**self._sent, **self._ready}, {}

    def clear(self) -> None:
        """Goodbye was said: the router takes back what is in hand."""
        self._in_hand.clear()
        self._ready.clear()
        self._sent.clear()
        self._handled.clear()
