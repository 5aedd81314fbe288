"""Who may reach us: the addresses that we listen on, and the web pages that may ask.

A page elsewhere can send requests to 127.0.0.1 by way of a visitor's browser, and with a name that it points there (DNS
rebinding) read the answers. The first is told by its Origin header, the second by the Host that it asks for.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Container
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from msgspec import Struct

from wowevent.errors import NotPermitted

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "::1")

_SECRET_NAMES: Final = frozenset({"token", "access_token", "api_key", "authorization"})
_BACKLOG: Final = 2048  # connections that wait to be taken


class Listening(Struct, frozen=True):
    """A socket that is bound before anything else is started: that its port is free is known by then. And its URL."""

    socket: socket.socket
    url: str


def listen(scheme: str, host: str, port: int, *, allow_anonymous: bool, authenticated: bool = False) -> Listening:
    """Listen on a port, 0 for any that is free; `scheme` is that of the URL.

    Raises NotPermitted for a host that others can reach, unless that is allowed or who asks is asked for a token;
    ValueError for what is no port, OSError if it cannot be had.
    """
    check_host(host, allow_anonymous=allow_anonymous, authenticated=authenticated)
    family, address = _address(host, port)
    listening = socket.create_server(address, family=family, backlog=_BACKLOG)
    return Listening(listening, _url(scheme, host, listening))


def claim(scheme: str, host: str, port: int, *, allow_anonymous: bool, authenticated: bool = False) -> Listening:
    """Take a port for sockets of several processes, which `beside` makes; this one never listens.

    As long as it is open nobody else gets the port, whether or not one of them listens. Raises what `listen` does.
    """
    check_host(host, allow_anonymous=allow_anonymous, authenticated=authenticated)
    family, address = _address(host, port)
    if port:  # others of this user, that share it among themselves, would let us in
        socket.create_server(address, family=family).close()
    claimed = _sharing(family, address)
    return Listening(claimed, _url(scheme, host, claimed))


def beside(claimed: Listening) -> Listening:
    """One more socket at a claimed port, which does not listen yet; the kernel deals connections to those that do."""
    return Listening(_sharing(claimed.socket.family, claimed.socket.getsockname()[:2]), claimed.url)


def _sharing(family: int, address: tuple[Any, ...]) -> socket.socket:
    sharing = socket.socket(family, socket.SOCK_STREAM)
    try:
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sharing.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sharing.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sharing.bind(address)
    except BaseException:
        sharing.close()
        raise
    return sharing


def check_host(host: str, *, allow_anonymous: bool, authenticated: bool) -> None:
    """NotPermitted for a host that others can reach, unless that is allowed or who asks is asked for a token."""
    if not is_loopback(host) and not allow_anonymous and not authenticated:
        raise NotPermitted(
            f"{host} can be reached by others, and whoever reaches it may publish and read everything; name a file of "
            "tokens (--tokens, WOWEVENT_TOKENS), or say --allow-anonymous (WOWEVENT_ALLOW_ANONYMOUS=true) if that is "
            "meant"
        )


def _address(host: str, port: int) -> tuple[socket.AddressFamily, tuple[Any, ...]]:
    if not 0 <= port <= 65_535:  # resolvers take the lower 16 bits, and say nothing
        raise ValueError(f"port: {port} is not from 0 to 65535")
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address[:2]


def _url(scheme: str, host: str, bound: socket.socket) -> str:
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound.getsockname()[1]}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches it."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def carries_token(url: str) -> bool:
    """Whether there is a token in the query of a URL, or of its path: logs and histories keep those, so it is spent."""
    return any(name.lower() in _SECRET_NAMES for name, _ in parse_qsl(urlsplit(url).query, keep_blank_values=True))


class Names(Struct, frozen=True):
    """Under which names a server may be asked."""

    names: frozenset[str]
    addresses: bool
    """Under any IP address, too: it takes a name to be led elsewhere, and nobody can list the addresses of pods."""

    def __contains__(self, name: object) -> bool:
        """Whether that is one of them; in small letters."""
        return name in self.names or (self.addresses and isinstance(name, str) and _is_address(name))


def names_of(host: str, hosts: Collection[str]) -> Names | None:
    """The names of a server at `host`: `hosts`, exactly, beside loopback's; None is any.

    Where others reach it and no names are given it cannot know under which they do.
    """
    near = is_loopback(host)
    if not hosts and not near:
        return None
    return Names(frozenset((*LOOPBACK_NAMES, *(name.lower() for name in hosts))), addresses=not near)


def check_page(host: str, origin: str | None, *, hosts: Container[str | None] | None, origins: Collection[str]) -> None:
    """NotPermitted for a `host` that is not ours, and for an `origin` that is neither ours nor allowed.

    `hosts` are the names under which we may be asked (None is any), `origins` the web pages that may ask.
    """
    if hosts is not None and _name(f"//{host}") not in hosts:
        raise NotPermitted(f"this service is not known as {host!r:.80}")
    if origin is not None and origin not in origins and origin not in {f"http://{host}", f"https://{host}"}:
        raise NotPermitted(f"pages of {origin!r:.80} may not ask this service")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _name(url: str) -> str | None:
    """The host name of a URL; None if it has none that can be read."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
