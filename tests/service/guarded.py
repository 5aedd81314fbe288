"""A service that asks for tokens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette

from wowevent import EventBus
from wowevent.access.keyring import Keyring
from wowevent.access.rights import Limits
from wowevent.access.tokens import Tokens, encode_tokens, issue, revoke
from wowevent.service import create_app


class Guarded:
    """An application that asks for tokens, and the file of these."""

    def __init__(self, bus: EventBus, file: Path) -> None:
        self.bus = bus
        self.tokens = Tokens()
        self.file = file
        self._write()
        self.keyring = Keyring("default", tokens=str(file))
        self.app: Starlette = create_app(bus, hosts=("bus",), origins=("https://ui.example",), keyring=self.keyring)

    def token(
        self, name: str = "worker", limits: Limits | None = None, expires: float | None = None, **grants: Any
    ) -> str:
        """The secret of a token with these grants."""
        self.tokens, token, secret = issue(
            self.tokens, name, time.time(), grants=grants, limits=limits, expires=expires, namespace="default"
        )
        self._write()
        self.keyring.refresh()
        self.ids = {**getattr(self, "ids", {}), secret: token.id}
        return secret

    def revoke(self, secret: str) -> None:
        """As `wowevent token revoke` does; the service looks for itself."""
        self.tokens = revoke(self.tokens, self.ids[secret], time.time()) or self.tokens
        self._write()

    def client(self, secret: str | None = None, **headers: str) -> httpx.AsyncClient:
        own = headers if secret is None else {"authorization": f"Bearer {secret}", **headers}
        return httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://bus", headers=own)

    def having(self, name: str = "worker", **grants: Any) -> httpx.AsyncClient:
        return self.client(self.token(name, **grants))

    def _write(self) -> None:
        draft = self.file.with_suffix(".new")
        draft.write_bytes(encode_tokens(self.tokens))
        draft.replace(self.file)
