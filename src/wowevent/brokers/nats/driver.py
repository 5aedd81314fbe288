"""The driver, nats-py: it keeps the connection (TLS, credentials, pings); each message goes past it to who hears it."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client

from wowevent.errors import BrokerUnavailable, NotPermitted

_PING: Final = 10  # seconds between its own looks whether the line is dead
_CONNECT: Final = 9  # seconds for one connection

Hear = Callable[[bytes, bytes, bytes, bytes], None]
"""Called with subject, reply, body, headers (empty if there are none)."""


class Connection(Client):
    """The driver, with a shorter way from its parser to us."""

    def __init__(self) -> None:
        """Not connected."""
        super().__init__()
        self.hear: dict[int, Hear] = {}
        """Who hears what comes for a subscription."""
        self.broke: Callable[[Exception], object] = lambda _: None
        """Told why it is of no use any more. What a hearer raised is a reason, too: the driver would say nothing."""
        self.forbade: Callable[[Exception], object] = lambda _: None
        """Told that something was not permitted; the server does not say what."""

    async def join(self, server: str, options: dict[str, Any]) -> None:
        """Connect, and never again by itself. Raises what the driver does."""
        await self.connect(
            servers=[server],
            allow_reconnect=False,
            max_reconnect_attempts=1,  # of the first connection, too: else it is tried until the time is up
            reconnect_time_wait=0,
            connect_timeout=_CONNECT,
            ping_interval=_PING,
            max_outstanding_pings=2,
            pending_size=0,
            skip_subject_validation=True,
            disconnected_cb=self._ended,
            closed_cb=self._ended,
            error_cb=self._said,
            **_arguments(options),
        )

    def number(self) -> int:
        """What names one subscription more, that neither we nor the driver has."""
        self._sid += 1
        return self._sid

    async def _ended(self, *_: Any) -> None:
        self.broke(BrokerUnavailable("nats: connection lost"))

    async def _said(self, error: Exception) -> None:
        if "permissions violation" in str(error):
            self.forbade(error)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        hear = self.hear.get(sid)
        if hear is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            hear(bytes(subject), bytes(reply), data, headers or b"")
        except Exception as error:  # noqa: BLE001 - whatever it is, something was not heard
            self.broke(error)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Our options as the driver's arguments. NotPermitted for a file that cannot be read."""
    given: dict[str, Any] = {name: options[name] for name in ("user", "password", "token", "name") if name in options}
    for ours, theirs in (("creds", "user_credentials"), ("nkey", "nkeys_seed")):
        if file := options.get(ours):
            _readable(file)
            given[theirs] = file
    if (files := options.get("tls")) is not None:
        for file in filter(None, files.values()):
            _readable(file)
        try:
            context = ssl.create_default_context(cafile=files.get("ca") or None)
            if cert := files.get("cert"):
                context.load_cert_chain(cert, files.get("key") or None)
        except ssl.SSLError as error:
            raise NotPermitted(f"nats: a file of TLS is none: {error}") from error
        given["tls"] = context
    return given


def _readable(file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise NotPermitted(f"nats: {error}") from error
