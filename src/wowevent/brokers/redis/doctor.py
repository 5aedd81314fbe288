"""A look at a Redis from outside: its settings, its health, and what the log has, by what it lets be read alone."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from wowevent.broker import Examination, SubscriptionInfo
from wowevent.brokers.redis.dial import Dial
from wowevent.brokers.redis.entries import info_of, number_of
from wowevent.brokers.redis.line import Line
from wowevent.brokers.redis.registry import Registry
from wowevent.brokers.redis.script import LOOKS
from wowevent.brokers.redis.server import EVICTION, PERSISTENCE, VERSION, facts, persistence, promise, settings_of
from wowevent.brokers.redis.server import eviction as eviction_of
from wowevent.brokers.redis.server import version as version_of_server
from wowevent.brokers.redis.session import LAYOUT
from wowevent.errors import BrokerError, BusError, NotPermitted
from wowevent.finding import CLOCK, Check, Finding, clock, size

MEMORY: Final = Check("redis.memory", "room below maxmemory: a full server refuses every publish")
WRITES: Final = Check("redis.writes", "what is confirmed gets to the disk: no write, rewrite or snapshot has failed")
SNAPSHOTS: Final = Check("redis.snapshots", "an append-only file; snapshots (`save`) beside it are what backups take")
REPLICAS: Final = Check("redis.replicas", "a primary; its replicas have what it confirmed (min-replicas-to-write)")
RIGHTS: Final = Check("redis.rights", "a user who may run scripts, and write what the log's keys hold")
LOG: Final = Check("redis.log", "a log that this version can read")
CHECKS: Final = (VERSION, PERSISTENCE, EVICTION, MEMORY, WRITES, SNAPSHOTS, REPLICAS, RIGHTS, LOG, CLOCK)

_ASK: Final = "ask whoever runs it, or a user who may: redis-cli CONFIG GET '*'"
_TIGHT: Final = 0.8  # of maxmemory
_CROWDED: Final = 0.5  # of the machine's memory, where nothing else bounds it: a snapshot may need as much again
_PAGE: Final = 100
Settings = dict[str, str]


@asynccontextmanager
async def examine(dial: Dial, key: str) -> AsyncIterator[tuple[Examination, str]]:
    """What can be looked at, by a line of its own; and what the server promises, in one sentence."""
    line = Line(dial)
    try:
        await line.call("ECHO", "doctor")  # a server whose disk fails refuses a PING
        try:
            settings: Settings | None = await settings_of(line)
        except (NotPermitted, BrokerError):
            settings = None
        yield Patient(line, key, settings).examination(), promise(settings or {})
    finally:
        await line.close()


class Patient:
    """One server, and the settings that it lets be read, if it does."""

    def __init__(self, line: Line, key: str, settings: Settings | None) -> None:
        self._line = line
        self._key = key
        self._settings = settings

    def examination(self) -> Examination:
        """All of it."""
        looks = {
            VERSION: self._by_info("server", version_of_server),
            PERSISTENCE: self._by_settings(PERSISTENCE, persistence, frozenset({"appendonly", "appendfsync"})),
            EVICTION: self._by_settings(EVICTION, eviction_of, frozenset({"maxmemory-policy"})),
            MEMORY: self._by_info("memory", memory),
            WRITES: self._by_info("persistence", lambda about: writes(about, self._settings or {})),
            SNAPSHOTS: self._by_settings(SNAPSHOTS, snapshots, frozenset({"appendonly", "save"})),
            REPLICAS: self._by_info("replication", lambda about: replicas(about, self._settings)),
            RIGHTS: self._rights,
            LOG: self._log,
            CLOCK: self._clock,
        }
        return Examination(looks, self.subscriptions)

    def _by_info(
        self, section: str, judge: Callable[[dict[str, str]], Finding]
    ) -> Callable[[], Awaitable[list[Finding]]]:
        async def look() -> list[Finding]:
            return [judge(facts(await self._line.call("INFO", section)))]

        return look

    def _by_settings(
        self, check: Check, judge: Callable[[Settings], Finding], needed: frozenset[str]
    ) -> Callable[[], Awaitable[list[Finding]]]:
        async def look() -> list[Finding]:
            if self._settings is None or not needed <= self._settings.keys():
                return [check.unknown("the server does not let us read its settings (CONFIG GET)", _ASK)]
            return [judge(self._settings)]

        return look

    async def _rights(self) -> list[Finding]:
        """By adding to a stream that is not there, which is not made by that."""
        try:
            await self._line.call("EVAL", "return 0", 1, f"{self._key}:doctor")
            await self._line.call("XADD", f"{self._key}:doctor", "NOMKSTREAM", "*", "a", "b")
        except NotPermitted as error:
            return [RIGHTS.fail(str(error), "ACL SETUSER: the keys, and the commands but those of administrators")]
        except BusError:  # that the server takes no writes now is for others to say
            pass
        return [RIGHTS.ok("scripts, and writing")]

    async def _state(self) -> dict[str, str] | None:
        found: list[bytes] = await self._line.call("HGETALL", f"{self._key}:state")
        texts = [each.decode(errors="replace") for each in found]
        return dict(zip(texts[::2], texts[1::2], strict=True)) or None

    async def _log(self) -> list[Finding]:
        return [log(await self._state(), self._key)]

    async def _clock(self) -> list[Finding]:
        asked = time.time()
        seconds, micros = await self._line.call("TIME")
        return [clock(asked, int(seconds) + int(micros) / 1e6, time.time())]

    async def subscriptions(self) -> Sequence[SubscriptionInfo] | None:
        """What is remembered, as it lies there: what fell due since the last instance left is not taken in."""
        if await self._state() is None:
            return None
        registry = Registry()
        registry.fold(await self._run("fold", registry.version, registry.removals))
        every = registry.routes.all()
        found = [SubscriptionInfo(subscription=each, consumers=1) for each in every if not each.durable]
        durable = [each for each in every if each.durable]
        for first in range(0, len(durable), _PAGE):
            page = durable[first : first + _PAGE]
            answer = await self._run("info", *(registry.nums[each.id] for each in page))
            now = time.time()
            found += [
                info_of(each, facts, _unread(facts), now)
                for each, facts in zip(page, answer, strict=True)
                if facts[0] is not None
            ]
        return found

    async def _run(self, name: str, *arguments: str) -> list[list[object]]:
        answer: list[list[object]] = await self._line.call(
            "EVAL", LOOKS[name].text, 1, self._key, "", "", "", *arguments
        )
        return answer


def _unread(facts: list[object]) -> int:
    """Of the past that it has not come to yet: an upper bound, since not all of it may match."""
    first, upto = facts[9], facts[10]
    return max(0, int(upto) - int(first) + 1) if isinstance(first, bytes) and isinstance(upto, bytes) else 0


def memory(about: dict[str, str]) -> Finding:
    """How full it is."""
    used, most = int(about.get("used_memory", 0)), int(about.get("maxmemory", 0))
    if most:
        found = f"{size(used)} of {size(most)} ({used / most:.0%})"
        change = "raise maxmemory, give the log limits (?max_age=, ?max_bytes=), or take an engine that stores on disk"
        if used >= most:
            return MEMORY.fail(found, change)
        return MEMORY.warn(found, change) if used > _TIGHT * most else MEMORY.ok(found)
    total = int(about.get("total_system_memory", 0))
    found = f"{size(used)}, and no maxmemory; the machine has {size(total)}"
    if total and used > _CROWDED * total:
        return MEMORY.warn(
            found, "set maxmemory (with noeviction) below what the machine has: else the system ends the server"
        )
    return MEMORY.ok(found)


def writes(about: dict[str, str], settings: Settings) -> Finding:
    """Whether what is written gets to the disk."""
    failed = [
        name
        for name in ("aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status")
        if about.get(name, "ok") != "ok"
    ]
    if about.get("loading") == "1":
        return WRITES.fail(
            "the server loads its log, and serves nothing until then", "wait; INFO persistence has an ETA"
        )
    if not failed:
        return WRITES.ok("the last write, rewrite and snapshot succeeded")
    found = f"failed: {', '.join(failed)}"
    change = "look at the server's log and its disk (df, permissions of `dir`), then redis-cli BGREWRITEAOF or BGSAVE"
    refuses = "rdb_last_bgsave_status" in failed and settings.get("save") and _stops(settings)
    if refuses:
        return WRITES.fail(f"{found}: every publish is refused (MISCONF)", change)
    return WRITES.fail(found, change) if "aof_last_write_status" in failed else WRITES.warn(found, change)


def _stops(settings: Settings) -> bool:
    return settings.get("stop-writes-on-bgsave-error", "yes") == "yes"


def snapshots(settings: Settings) -> Finding:
    """Whether there are any."""
    if settings.get("save"):
        return SNAPSHOTS.ok(f"save {settings['save']}")
    if settings.get("appendonly") == "yes":
        return SNAPSHOTS.ok("none; the append-only file is what a restart reads")
    return SNAPSHOTS.warn("none, and no append-only file: a restart begins with nothing", "set appendonly yes")


def replicas(about: dict[str, str], settings: Settings | None) -> Finding:
    """Who else has what is confirmed."""
    if about.get("role") != "master":
        return REPLICAS.fail(
            f"this is a replica of {about.get('master_host', '?')}:{about.get('master_port', '?')}: it takes no writes",
            "name the primary in the URL, or the Sentinels (redis+sentinel://…), which know it",
        )
    count = int(about.get("connected_slaves", 0))
    if not count:
        return REPLICAS.ok("a primary without replicas: its disk is the log, and its backups")
    least = (settings or {}).get("min-replicas-to-write")
    if least is None:
        return REPLICAS.unknown(f"a primary with {count} replicas; whether it waits for one is not told", _ASK)
    found = f"a primary with {count} replicas, min-replicas-to-write {least}"
    if least == "0":
        return REPLICAS.warn(
            f"{found}: a failover loses what it confirmed while it was cut off from them",
            "redis-cli CONFIG SET min-replicas-to-write 1, and the same in redis.conf: that narrows the window",
        )
    return REPLICAS.ok(found)


def log(state: dict[str, str] | None, key: str) -> Finding:
    """Whether there is one."""
    if state is None:
        return LOG.ok(f"no log yet under {key}: the first who publishes makes it")
    layout = int(state.get("layout", 0))
    if layout > LAYOUT:
        return LOG.fail(f"written by a newer WowEvent (layout {layout})", "upgrade this one")
    return LOG.ok(
        f"epoch {state.get('epoch')}, {state.get('head')} events so far, {size(number_of(state.get('bytes')))}"
    )
