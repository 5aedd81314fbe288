"""`wowevent status`: whether the service runs, where, and how it is. Answers within two seconds, also when it hangs."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import msgspec
import typer

from wowevent.access.tls import own_context
from wowevent.cli.exits import STATUS
from wowevent.cli.pidfile import find
from wowevent.cli.serve import settings_of
from wowevent.cli.show import facts, print_json, span
from wowevent.errors import BusError, Unauthenticated
from wowevent.process.loop import run
from wowevent.settings import Settings

if TYPE_CHECKING:
    from wowevent.cli.pidfile import Record

_PATIENCE: Final = 1.0  # seconds for an answer: with Python's start, an answer about one that hangs takes less than two
_GUARDED: Final = "guarded"  # it is there, and says more to who has a token
_LARGEST: Final = 1024 * 1024  # bytes of an answer

Answer = dict[str, Any] | None

_EXITS: Final = {
    "running": 0,
    "not_running": STATUS["not_running"],
    "not_answering": STATUS["not_answering"],
    "unhealthy": STATUS["unhealthy"],
}


def status(json: Annotated[bool, typer.Option("--json", help="One object.")] = False) -> int:
    """Print whether the service runs, where, and how it is.

    Ends with 0 if it runs and is well, 69 if none runs, 75 if it does not answer or is not well.
    """
    answer = run(look(Settings()))
    print_json(answer) if json else show(answer)
    return _EXITS[answer["state"]]


async def look(settings: Settings) -> dict[str, Any]:
    """Whether the service of that data directory runs, where, and how it is: what `--json` prints."""
    seen = find(settings.data_dir)
    if seen.process is None or seen.record is None:
        return {"state": "not_running", "trouble": seen.trouble or None}
    return await _look(seen.record, _tls(seen.record))


def _tls(record: Record) -> ssl.SSLContext | None:
    """What it speaks, as it was started; None where it is not TLS."""
    return own_context(settings_of(record.options)) if record.http.startswith("https:") else None


async def _look(record: Record, tls: ssl.SSLContext | None) -> dict[str, Any]:
    http, websocket, *others = await asyncio.gather(
        _in_time(_ask_http(record.http, tls)),
        _in_time(_ask_websocket(record.websocket, tls)),
        *(_in_time(_ask_http(worker.http, tls)) for worker in record.workers),
    )
    reached = http is not None and (websocket is not None or record.websocket is None)
    asked = [*others, *(each for each in (http, websocket) if each is not None)]
    well = reached and all(each is not None and each.get("status") in {"healthy", _GUARDED} for each in asked)
    state = "running" if well else "unhealthy" if reached else "not_answering"
    health: dict[str, Any] = {"http": http, "websocket": websocket}
    if record.workers:  # what the shared ports say is one of them, whichever was reached
        health["workers"] = others
    return {"state": state, **facts_of(record), "health": health}


async def _in_time(question: Coroutine[Any, Any, Answer]) -> Answer:
    """What is answered; None if nothing comes in time."""
    try:
        async with asyncio.timeout(_PATIENCE):
            return await question
    except (OSError, TimeoutError, BusError):
        return None


async def _ask_http(url: str, tls: ssl.SSLContext | None) -> Answer:
    return _body(await _get(url, "/health", tls))


async def _ask_websocket(url: str | None, tls: ssl.SSLContext | None) -> Answer:
    """How the router is; that it asks for a token, where WOWEVENT_TOKEN is none or not a good one."""
    if url is None:
        return None
    from wowevent.client import EventRouterClient

    token = Settings().token or ""
    try:
        async with EventRouterClient(url, auto_reconnect=False, timeout=_PATIENCE, token=token, ssl=tls) as client:
            return await client.get_health()
    except Unauthenticated:
        return {"status": _GUARDED}


async def _get(url: str, path: str, tls: ssl.SSLContext | None) -> bytes:
    """One request over a connection of its own, in as few words as HTTP takes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {parts.netloc}\r\nconnection: close\r\n\r\n".encode())
        answer = b""
        while len(answer) < _LARGEST and (chunk := await reader.read(_LARGEST)):
            answer += chunk
        return answer
    finally:
        writer.close()


def _body(answer: bytes) -> Answer:
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None
    return said if re.match(rb"HTTP/1\.1 (200|503) ", head) and isinstance(said, dict) else None


def facts_of(record: Record) -> dict[str, Any]:
    """What is told of a service: where it is, and since when, in seconds."""
    return {
        "pid": record.pid,
        "uptime": max(0.0, time.time() - record.created),
        "http": record.http,
        "websocket": record.websocket,
        "engine": record.engine,
        "namespace": record.namespace,
        "log": record.log,
        "version": record.version,
        **({"workers": [msgspec.to_builtins(worker) for worker in record.workers]} if record.workers else {}),
    }


def show(answer: Mapping[str, Any]) -> None:
    """The same for a person."""
    rows = {name: value for name, value in answer.items() if name not in {"health", "workers"} and value is not None}
    if "uptime" in rows:
        rows["uptime"] = span(rows["uptime"])
    if "state" in rows:
        rows["state"] = rows["state"].replace("_", " ")
    facts([*rows.items(), *_health(answer.get("health") or {}, answer.get("workers") or ())])


def _health(health: Mapping[str, Any], workers: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    said = [(f"{name} says", _said(health[name])) for name in ("http", "websocket") if name in health]
    for worker, each in zip(workers, health.get("workers", ()), strict=False):
        what = f"worker {worker['number']}"
        said.append((what, f"pid {worker['pid']}" if worker["pid"] else "is started again"))
        said.append((f"{what} says", f"{_said(each)}, at {worker['http']}"))
    return said


def _said(answer: Answer) -> str:
    return str(answer["status"]) if answer else "nothing"
