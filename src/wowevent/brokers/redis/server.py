"""What the server's settings promise: read when the log is joined or examined, judged, and said."""

from __future__ import annotations

from typing import Any, Final

from wowevent.brokers.redis.line import Line
from wowevent.errors import BrokerError, NotPermitted, NotSupported
from wowevent.finding import Check, Finding, Verdict, version_of
from wowevent.log import logger

PERSISTENCE: Final = Check("redis.persistence", "appendonly yes; appendfsync always, or everysec with its window")
EVICTION: Final = Check("redis.eviction", "maxmemory-policy noeviction: a full server refuses, it does not forget")
VERSION: Final = Check("redis.version", "Redis 7.0 or newer, or Valkey, without known faults")

_OLDEST: Final = (7, 0)
_ASKED: Final = (
    "appendonly",
    "appendfsync",
    "no-appendfsync-on-rewrite",
    "maxmemory",
    "maxmemory-policy",
    "save",
    "min-replicas-to-write",
    "stop-writes-on-bgsave-error",
)

_ALWAYS: Final = "What was confirmed survives the process, the server and a power loss: every write is synced first."
_EVERYSEC: Final = (
    "What was confirmed survives the process and the server; a power loss may take about the last second."
)
_PAUSED: Final = (
    "What was confirmed survives the process and the server; a power loss while the server rewrites its log, or makes "
    "a snapshot, may take what was confirmed meanwhile."
)
_OS: Final = (
    "What was confirmed survives the process and the server; a power loss may take what the system had not written."
)
_NONE: Final = (
    "What was confirmed survives the process; a restart of the server goes back to its last snapshot, or to nothing."
)
_UNKNOWN: Final = "What was confirmed survives the process; the server does not let us read its settings."

# The releases of July 2026, by major and minor version: in those before, who has a login may run code of theirs in the
# server (CVE-2025-49844 by scripts; CVE-2026-23479, CVE-2026-25243; a stream by RESTORE, CVE-2026-63639 in Valkey:
# redis/redis#15520 and #15522, the notes of Valkey 9.1.1). A minor version between these has no release that mends it.
_MENDED: Final[dict[str, dict[tuple[int, ...], int]]] = {
    "redis": {(7, 2): 15, (7, 4): 10, (8, 2): 8, (8, 4): 5, (8, 6): 5, (8, 8): 1},
    "valkey": {(7, 2): 14, (8, 0): 10, (8, 1): 9, (9, 0): 5, (9, 1): 1},
}


async def promise_of(line: Line, *, strict: bool) -> str:
    """One sentence: what is lost, and when. NotSupported for a server that is too old, or with `strict` may forget.

    A server that evicts keys would delete the log when its memory is full: that is said as an error in any case.
    """
    about = facts(await line.call("INFO", "server"))
    if (old := version(about)).verdict == Verdict.FAIL:
        raise NotSupported(f"{old.found}: {'.'.join(map(str, _OLDEST))} or newer is needed")
    try:
        settings = await settings_of(line)
    except (NotPermitted, BrokerError) as error:
        logger.warning("redis does not say its settings", error=error)
        settings = {}
    wrong = [found.found for found in (eviction(settings), persistence(settings)) if found.verdict == Verdict.FAIL]
    if wrong and strict:
        raise NotSupported(f"redis may forget what it confirmed: {'; '.join(wrong)}")
    for each in wrong:
        logger.warning("redis may forget what it confirmed", why=each)
    return promise(settings)


def promise(settings: dict[str, str]) -> str:
    """The sentence."""
    policy = settings.get("maxmemory-policy", "noeviction")
    said = _synced(settings)
    return said if policy == "noeviction" else f"{said} Full memory deletes parts of the log ({policy})."


def _synced(settings: dict[str, str]) -> str:
    if not settings:
        return _UNKNOWN
    if settings.get("appendonly") != "yes":
        return _NONE
    said = {"always": _ALWAYS, "everysec": _EVERYSEC}.get(settings.get("appendfsync", ""), _OS)
    return _PAUSED if said != _OS and settings.get("no-appendfsync-on-rewrite") == "yes" else said


def persistence(settings: dict[str, str]) -> Finding:
    """What becomes of what was confirmed."""
    found = f"appendonly is {settings.get('appendonly', 'unknown')}, appendfsync {settings.get('appendfsync')}"
    said = _synced(settings)
    if said == _ALWAYS:
        return PERSISTENCE.ok(found)
    if said == _PAUSED:
        return PERSISTENCE.warn(
            f"{found}, no-appendfsync-on-rewrite yes: nothing is synced while a rewrite or a snapshot is made",
            "redis-cli CONFIG SET no-appendfsync-on-rewrite no, and the same in redis.conf",
        )
    if said == _EVERYSEC:
        return PERSISTENCE.warn(
            f"{found}: a power loss may take about the last second",
            "if that second matters: redis-cli CONFIG SET appendfsync always, and the same in redis.conf",
        )
    return PERSISTENCE.fail(
        found,
        "redis-cli CONFIG SET appendonly yes and CONFIG SET appendfsync always, and the same in redis.conf "
        "(CONFIG REWRITE writes them there)",
    )


def eviction(settings: dict[str, str]) -> Finding:
    """What becomes of the log when memory is full."""
    policy = settings.get("maxmemory-policy", "noeviction")
    if policy == "noeviction":
        return EVICTION.ok("noeviction")
    return EVICTION.fail(
        f"maxmemory-policy is {policy}: a full server would delete parts of the log; set noeviction",
        "redis-cli CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; caches belong on another server",
    )


def version(about: dict[str, str]) -> Finding:
    """Whether the server knows what is needed, and what it is known for."""
    kind = "valkey" if about.get("server_name") == "valkey" else "redis"
    said = about.get("valkey_version") if kind == "valkey" else None
    said = said or about.get("redis_version", "0")
    found = f"{kind} {said}"
    numbers = version_of(said)
    if kind == "redis" and numbers[:2] < _OLDEST:
        return VERSION.fail(found, "install Redis 7.0 or newer; the newest of 8 is best")
    mended = _MENDED[kind]
    patch = mended.get(numbers[:2], 0 if numbers[:2] > max(mended) else 10**6)
    if (*numbers, 0, 0, 0)[2] < patch:
        fixed = ", ".join(f"{'.'.join(map(str, minor))}.{first}" for minor, first in mended.items())
        return VERSION.warn(
            f"{found}: who has a login may run code in it (mended in July 2026), unless your distribution mended it",
            f"upgrade to {fixed} or newer, or see your distribution's changelog; let no stranger reach it meanwhile",
        )
    return VERSION.ok(found)


async def settings_of(line: Line) -> dict[str, str]:
    """The server's settings that matter. NotPermitted, BrokerError where it does not let us ask."""
    found: list[bytes] = await line.call("CONFIG", "GET", *_ASKED)
    texts = [each.decode() for each in found]
    return dict(zip(texts[::2], texts[1::2], strict=True))


def facts(answer: Any) -> dict[str, str]:
    """What `INFO` says, by name."""
    lines = answer.decode().splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)
