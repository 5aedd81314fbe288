"""Who comes in where clients are known by tokens: at the handshake, or by their first frame, and for how long.

handshake with a token ──────────> known ── expired, revoked ──> closed (4502)
handshake without ──> waits ── hello with a token ──> known
                        └── anything else, a bad token, 10 s ──> closed (4501)

Who waits is one of few, and takes no place of those who are known.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Final

from msgspec import Struct
from picows import WSUpgradeRequest

from wowevent.access.address import carries_token
from wowevent.access.audit import audit
from wowevent.access.keyring import Keyring
from wowevent.access.rates import Rates
from wowevent.access.rights import Identity
from wowevent.access.watch import watch
from wowevent.errors import NotPermitted, Unauthenticated
from wowevent.router.account import Account
from wowevent.router.connection import Connection
from wowevent.router.wire import LATER, OVER, UNKNOWN

PATIENCE: Final = 10.0
"""Seconds for a client to say its token."""
WAITING: Final = 100
"""So many may be about to."""
_ACCOUNTS: Final = 10_000  # of agents; of more, those that have no client here are forgotten


class Turned(Struct, frozen=True):
    """A handshake that is refused."""

    status: HTTPStatus
    reason: str


class Door:
    """The clients of one router, by whether it knows them."""

    def __init__(self, keyring: Keyring | None, max_clients: int) -> None:
        """Without a keyring everybody may come in, and nobody is known."""
        self._keyring = keyring
        self._max_clients = max_clients
        self._inside: set[Connection] = set()
        self._waiting: dict[Connection, asyncio.TimerHandle] = {}
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._rates = Rates()

    @property
    def guarded(self) -> bool:
        """Whether clients need a token."""
        return self._keyring is not None

    def ask(self, request: WSUpgradeRequest) -> Identity | Turned | None:
        """Who it is that makes this handshake, None for who may say it later; or why there is no room.

        Raises Unauthenticated for a token that is not good, NotPermitted for one in the URL.
        """
        identity = None
        if self._keyring is not None:
            _check_target(request.path.decode("ascii", "replace"))
            given = request.headers.getall("Authorization", [])
            identity = self._keyring.identify(_bearer(given)) if given else None
        return self._no_room(identity) or identity

    def _no_room(self, identity: Identity | None) -> Turned | None:
        if self._keyring is not None and identity is None:
            if len(self._waiting) < WAITING:
                return None
            return Turned(HTTPStatus.SERVICE_UNAVAILABLE, f"{WAITING} clients are about to say a token already")
        if len(self._inside) >= self._max_clients:
            return Turned(HTTPStatus.SERVICE_UNAVAILABLE, f"there are {self._max_clients} clients already")
        most = None if identity is None else identity.limits.clients
        if identity is not None and most is not None and self.account(identity.name).clients >= most:
            return Turned(HTTPStatus.TOO_MANY_REQUESTS, f"{identity.name} has {most} clients here already")
        return None

    def account(self, name: str) -> Account:
        """What the clients of an agent share."""
        account = self._accounts.setdefault(name, Account())
        self._accounts.move_to_end(name)
        if len(self._accounts) > _ACCOUNTS:
            oldest = next((each for each, kept in self._accounts.items() if not kept.clients and each != name), None)
            if oldest is not None:
                del self._accounts[oldest]
        return account

    # --- coming and going -------------------------------------------------------------------------------------------

    def enter(self, connection: Connection, identity: Identity | None) -> None:
        """A handshake is done."""
        if self.guarded and identity is None:
            loop = asyncio.get_running_loop()
            self._waiting[connection] = loop.call_later(PATIENCE, self._give_up, connection)
        else:
            self._inside.add(connection)
            if identity is not None:
                self._know(connection, identity)

    def introduce(self, connection: Connection, token: str) -> bool:
        """Whether a client that waits is let in by this token; else it is on its way out."""
        if self._keyring is None or connection not in self._waiting:
            return False
        try:
            identity = self._keyring.identify(token)
        except Unauthenticated as error:
            audit("connect", None, outcome="refused", reason=reason_of(error), peer=connection.peer)
            connection.close(UNKNOWN, str(error))
            return False
        if (turned := self._no_room(identity)) is not None:
            connection.close(LATER, turned.reason)
            return False
        self._waiting.pop(connection).cancel()
        self._inside.add(connection)
        self._know(connection, identity)
        return True

    def dismiss(self, connection: Connection, reason: str) -> None:
        """End one that does not say who it is."""
        audit("connect", None, outcome="refused", reason=reason, peer=connection.peer)
        connection.close(UNKNOWN, reason)

    def leave(self, connection: Connection) -> None:
        """It is gone."""
        if (timer := self._waiting.pop(connection, None)) is not None:
            timer.cancel()
        if connection in self._inside:
            self._inside.remove(connection)
            if connection.session.identity is not None:
                connection.session.account.clients -= 1

    def _know(self, connection: Connection, identity: Identity) -> None:
        account = self.account(identity.name)
        account.clients += 1
        connection.session.know(identity, account, self._rates)
        audit("connect", identity, peer=connection.peer)

    def _give_up(self, connection: Connection) -> None:
        self.dismiss(connection, f"no token came within {PATIENCE:g} s")

    # --- tokens that end --------------------------------------------------------------------------------------------

    async def watch(self) -> None:
        """See to it that nobody stays for longer than his token stands, until cancelled."""
        await watch(self._keyring, self._end_fallen)

    def _end_fallen(self, stands: Callable[[Identity], bool]) -> None:
        for connection in list(self._inside):
            identity = connection.session.identity
            if identity is not None and connection.connected and not stands(identity):
                self._send_away(connection, identity)

    def _send_away(self, connection: Connection, identity: Identity) -> None:
        if connection.leaving:
            return
        audit("disconnect", identity, outcome="closed", reason="expired or revoked", peer=connection.peer)
        connection.goodbye = True  # not its fault: what it holds is given back as it was
        connection.close(OVER, "your token has expired, or was revoked")


def reason_of(error: NotPermitted) -> str:
    """What our own log says, beside what is told to who asks."""
    return (error.reason if isinstance(error, Unauthenticated) else "") or str(error)


def _check_target(path: str) -> None:
    """NotPermitted for a token in the URL."""
    try:
        carried = carries_token(path)
    except ValueError as error:
        raise NotPermitted("the handshake asks for no path") from error  # which may hold a token: it is not repeated
    if carried:
        raise NotPermitted("a token in a URL ends up in logs: say Authorization: Bearer, or say it in a hello frame")


def _bearer(given: Iterable[str]) -> str:
    """The token of an Authorization header; Unauthenticated for anything else."""
    lines = list(given)
    scheme, _, token = lines[0].partition(" ")
    if len(lines) != 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("say it as Authorization: Bearer and the token, once")
    return token.strip()
