"""What the server's settings promise: read when the log is joined, and said."""

from __future__ import annotations

from typing import Any, Final

from wowevent.brokers.redis.line import Line
from wowevent.errors import BrokerError, NotPermitted, NotSupported
from wowevent.log import logger

_OLDEST: Final = (7, 0)
_ASKED: Final = ("appendonly", "appendfsync", "maxmemory", "maxmemory-policy")

_ALWAYS: Final = "What was confirmed survives the process, the server and a power loss: every write is synced first."
_EVERYSEC: Final = (
    "What was confirmed survives the process and the server; a power loss may take about the last second."
)
_OS: Final = (
    "What was confirmed survives the process and the server; a power loss may take what the system had not written."
)
_NONE: Final = (
    "What was confirmed survives the process; a restart of the server goes back to its last snapshot, or to nothing."
)
_UNKNOWN: Final = "What was confirmed survives the process; the server does not let us read its settings."


async def promise_of(line: Line, *, strict: bool) -> str:
    """One sentence: what is lost, and when. NotSupported for a server that is too old, or with `strict` may forget.

    A server that evicts keys would delete the log when its memory is full: that is said as an error in any case.
    """
    facts = _facts(await line.call("INFO", "server"))
    version = facts.get("valkey_version") or facts.get("redis_version", "0")
    if facts.get("server_name") != "valkey" and tuple(map(int, version.split(".")[:2])) < _OLDEST:
        raise NotSupported(f"redis {version}: {'.'.join(map(str, _OLDEST))} or newer is needed")
    settings = await _settings(line)
    wrong = []
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy != "noeviction":
        wrong.append(f"maxmemory-policy is {policy}: a full server would delete parts of the log; set noeviction")
    promise = _promise(settings)
    if promise not in {_ALWAYS, _EVERYSEC}:
        wrong.append(
            f"appendonly is {settings.get('appendonly', 'unknown')}, appendfsync {settings.get('appendfsync')}"
        )
    if wrong and strict:
        raise NotSupported(f"redis may forget what it confirmed: {'; '.join(wrong)}")
    for each in wrong:
        logger.warning("redis may forget what it confirmed", why=each)
    return promise if policy == "noeviction" else f"{promise} Full memory deletes parts of the log ({policy})."


def _promise(settings: dict[str, str]) -> str:
    if not settings:
        return _UNKNOWN
    if settings.get("appendonly") != "yes":
        return _NONE
    return {"always": _ALWAYS, "everysec": _EVERYSEC}.get(settings.get("appendfsync", ""), _OS)


async def _settings(line: Line) -> dict[str, str]:
    """The server's settings that matter; empty where it does not let us ask."""
    try:
        found: list[bytes] = await line.call("CONFIG", "GET", *_ASKED)
    except (NotPermitted, BrokerError) as error:
        logger.warning("redis does not say its settings", error=error)
        return {}
    texts = [each.decode() for each in found]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def _facts(answer: Any) -> dict[str, str]:
    lines = answer.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
