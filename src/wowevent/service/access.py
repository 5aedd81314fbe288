"""Who may ask: without tokens, whoever reaches the port, but no web page by way of a visitor's browser.

A page elsewhere can send requests to 127.0.0.1, and with a name that it points there (DNS rebinding) read the answers.
The first is told by its Origin header, the second by the Host that it asks for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wowevent.errors import NotPermitted

if TYPE_CHECKING:
    from starlette.requests import Request

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")


def check_access(request: Request) -> None:
    """NotPermitted for a Host that is not ours, and for an Origin that is neither ours nor allowed."""
    state = request.app.state
    host, origin = request.headers.get("host", ""), request.headers.get("origin")
    if state.hosts is not None and _name(f"//{host}") not in state.hosts:
        raise NotPermitted(f"this service is not known as {host!r:.80}")
    if origin is not None and origin not in state.origins and origin not in {f"http://{host}", f"https://{host}"}:
        raise NotPermitted(f"pages of {origin!r:.80} may not ask this service")


def _name(url: str) -> str | None:
    """The host name of a URL; None if it has none that can be read."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
