"""The ports that a service would listen on: free, our own, or a stranger's."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from wowevent.finding import Check, Finding
from wowevent.settings import Settings

WEBSOCKET: Final = Check("ports.websocket", "the WebSocket port is free, or a service of ours has it")
HTTP: Final = Check("ports.http", "the HTTP port is free, or a service of ours has it")
CHECKS: Final = (WEBSOCKET, HTTP)


def looks(settings: Settings, holders: Callable[[], Mapping[int, str]]) -> dict[Check, Callable[[], list[Finding]]]:
    """By check; `holders` says which ports are ours, and whose each is."""
    asked = {WEBSOCKET: settings.port, HTTP: settings.http_port}
    return {check: partial(_look, check, settings.host, port, holders) for check, port in asked.items()}


def _look(check: Check, host: str, port: int, holders: Callable[[], Mapping[int, str]]) -> list[Finding]:
    if not port:
        return [check.ok("any that is free")]
    where = f"{host}:{port}"
    try:
        _try(host, port)
    except socket.gaierror as error:
        return [check.fail(f"{host} is no address of this machine: {error.strerror}", "say another one: --host")]
    except OSError as error:
        return [_taken(check, where, port, error, holders)]
    return [check.ok(f"{where} is free")]


def _try(host: str, port: int) -> None:
    """Bind it for a moment, without listening: nobody can connect meanwhile."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, kind) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)


def _taken(check: Check, where: str, port: int, error: OSError, holders: Callable[[], Mapping[int, str]]) -> Finding:
    if error.errno == errno.EADDRINUSE:
        if (ours := holders().get(port)) is not None:
            return check.ok(f"{where} is held by {ours}")
        return check.warn(
            f"{where} is held by another program",
            f"ss -ltnp 'sport = :{port}' says which; end it, or take another port (--port, --http-port)",
        )
    if error.errno == errno.EACCES:
        return check.fail(f"{where} may not be had by this user", "take a port of 1024 or more (--port, --http-port)")
    return check.fail(f"{where} cannot be had: {error.strerror}", "say another address: --host")
