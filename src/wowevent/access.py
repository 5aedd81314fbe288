"""Who may reach us: the addresses that we listen on, and the web pages that may ask.

A page elsewhere can send requests to 127.0.0.1 by way of a visitor's browser, and with a name that it points there (DNS
rebinding) read the answers. The first is told by its Origin header, the second by the Host that it asks for.
"""

from __future__ import annotations

import socket
from collections.abc import Collection
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct

from wowevent.errors import NotPermitted

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")


class Listening(Struct, frozen=True):
    """A socket that takes connections already: that a port is free is known before anything else is started."""

    socket: socket.socket
    url: str


def listen(scheme: str, host: str, port: int, *, allow_anonymous: bool) -> Listening:
    """Listen on a port, 0 for any that is free; `scheme` is that of the URL.

    Raises NotPermitted for a host that others can reach unless that is allowed, ValueError for what is no port, OSError
    if it cannot be had.
    """
    if not is_loopback(host) and not allow_anonymous:
        raise NotPermitted(
            f"{host} can be reached by others, and whoever reaches it may publish and read everything; "
            "say --allow-anonymous (WOWEVENT_ALLOW_ANONYMOUS=true) if that is meant"
        )
    if not 0 <= port <= 65_535:  # resolvers take the lower 16 bits, and say nothing
        raise ValueError(f"port: {port} is not from 0 to 65535")
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listening = socket.create_server(address[:2], family=family, backlog=2048)
    bound = listening.getsockname()[1]
    return Listening(listening, f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_page(host: str, origin: str | None, *, hosts: Collection[str] | None, origins: Collection[str]) -> None:
    """NotPermitted for a `host` that is not ours, and for an `origin` that is neither ours nor allowed.

    `hosts` are the names under which we may be asked (None is any), `origins` the web pages that may ask.
    """
    if hosts is not None and _name(f"//{host}") not in hosts:
        raise NotPermitted(f"this service is not known as {host!r:.80}")
    if origin is not None and origin not in origins and origin not in {f"http://{host}", f"https://{host}"}:
        raise NotPermitted(f"pages of {origin!r:.80} may not ask this service")


def _name(url: str) -> str | None:
    """The host name of a URL; None if it has none that can be read."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
