"""A look at a NATS server from outside: what the JetStream API says of the account, the streams and their consumers."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from wowevent.broker import Examination, Retention, SubscriptionInfo
from wowevent.brokers.nats.faults import NO_STREAM, code_of
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.messages import status_of
from wowevent.brokers.nats.names import Names
from wowevent.brokers.nats.registry import Registry, read_known
from wowevent.brokers.nats.session import Session
from wowevent.brokers.nats.storage import Storage
from wowevent.clock import SystemClock
from wowevent.errors import BrokerError, BrokerUnavailable, NotPermitted, StorageDamaged, StorageFull
from wowevent.finding import CLOCK, Check, Finding, clock, size, version_of
from wowevent.presence import Presence, read

VERSION: Final = Check("nats.version", "NATS 2.12.6 or newer: older ones can lose what they confirmed")
SYNC: Final = Check("nats.sync", "sync_interval: always, else a power loss takes up to two minutes")
STREAMS: Final = Check("nats.streams", "the five streams of the log, on file storage, that refuse what does not fit")
REPLICAS: Final = Check("nats.replicas", "in a cluster, streams with three replicas, all of them there and up to date")
LIMITS: Final = Check("nats.limits", "room below the limits of the account")
RIGHTS: Final = Check("nats.rights", "a user who may publish what the log's streams take")
STORING: Final = Check("nats.storing", "streams that store what they are given: after a full disk one does not")
CHECKS: Final = (VERSION, SYNC, STREAMS, REPLICAS, LIMITS, RIGHTS, STORING, CLOCK)

_OLDEST: Final = (2, 11)
_MENDED: Final = (2, 12, 6)
_TIGHT: Final = 0.8  # of a limit
_AT_ONCE: Final = 256
_STREAMS: Final = 5  # of a log
_FEW: Final = 10  # consumers: a subscription has two, a process some
_NEVER: Final = b"Nats-Expected-Last-Sequence: 9007199254740991\r\n"
Info = Mapping[str, Any]


@asynccontextmanager
async def examine(servers: Sequence[str], options: dict[str, Any], names: Names) -> AsyncIterator[Examination]:
    """What can be looked at, by a line of its own. BrokerUnavailable if JetStream is off, too."""
    link = await Link.dial(servers, options)
    try:
        await link.ask("INFO")
        yield Patient(link, names, lambda: Link.dial(servers, options)).examination()
    finally:
        await link.close()


class Patient:
    """One server, and the names of one namespace's log."""

    def __init__(self, link: Link, names: Names, dial: Callable[[], Awaitable[Link]]) -> None:
        self._link = link
        self._names = names
        self._dial = dial

    def examination(self) -> Examination:
        """All of it."""
        looks: dict[Check, Callable[[], Awaitable[list[Finding]]]] = {
            VERSION: self._version,
            SYNC: self._sync,
            STREAMS: self._streams,
            REPLICAS: self._replicas,
            LIMITS: self._limits,
            RIGHTS: self._rights,
            STORING: self._storing,
            CLOCK: self._clock,
        }
        return Examination(looks, self.subscriptions)

    async def _version(self) -> list[Finding]:
        return [version(self._link.version)]

    async def _sync(self) -> list[Finding]:
        return [sync(await self._system("SERVER.PING.JSZ", b'{"config":true}'))]

    async def _system(self, what: str, body: bytes = b"") -> Info | None:
        """What the server says of itself, if the account may ask; by a line apart, since a refusal names nothing."""
        link = await self._dial()
        try:
            answer, headers = await link.request(f"$SYS.REQ.{what}", body)
        except NotPermitted:
            return None
        finally:
            await link.close()
        return None if status_of(headers) else msgspec.json.decode(answer, type=dict[str, Any])

    async def _infos(self) -> dict[str, Info | None]:
        """The streams of the log; None for one that is not there."""
        names = self._names
        every = (names.log, names.again, names.later, names.dead, names.control)
        return dict(zip(every, await asyncio.gather(*map(self._info, every)), strict=True))

    async def _info(self, stream: str) -> Info | None:
        try:
            return await self._link.ask(f"STREAM.INFO.{stream}")
        except BrokerError as error:
            if code_of(error) != NO_STREAM:
                raise
            return None

    async def _streams(self) -> list[Finding]:
        return [streams(await self._infos())]

    async def _replicas(self) -> list[Finding]:
        return [replicas(await self._infos(), self._link.cluster)]

    async def _limits(self) -> list[Finding]:
        return [limits(await self._link.ask("INFO"), await self._info(self._names.log))]

    async def _rights(self) -> list[Finding]:
        """By a message that no stream takes: it asks to follow one that will never be."""
        link = await self._dial()
        try:
            await link.request(f"{self._names.prefix}n.doctor", headers=_NEVER)
        except NotPermitted as error:
            return [RIGHTS.fail(str(error), f"let the user publish {self._names.prefix}>")]
        finally:
            await link.close()
        return [RIGHTS.ok(f"{self._names.prefix}> may be published")]

    async def _storing(self) -> list[Finding]:
        """By asking for the end of a message that never was, which a stream that cannot write refuses otherwise."""
        storage = Storage(self._link, self._names)
        for stream, info in (await self._infos()).items():
            if info is not None:
                storage.learn(stream, int(info["config"].get("num_replicas", 1)))
        try:
            await storage.look(everywhere=True)
        except (StorageFull, BrokerUnavailable) as error:
            return [STORING.fail(str(error), "make room on the server's disk, then restart the server")]
        return [STORING.ok("nothing says otherwise")]

    async def _clock(self) -> list[Finding]:
        asked = time.time()
        answer = await self._system("USER.INFO")
        heard, said = time.time(), time_of(str((answer or {}).get("server", {}).get("time", "")))
        if said is None:
            return [CLOCK.unknown("this user may not ask the server ($SYS.REQ.USER.INFO)", "look with: date, on both")]
        return [clock(asked, said, heard)]

    # --- subscriptions ----------------------------------------------------------------------------------------------

    async def subscriptions(self) -> Sequence[SubscriptionInfo] | None:
        """What is remembered, by the newest entries of the control stream; no consumer is made for that."""
        if await self._info(self._names.control) is None:
            return None
        clock, registry = SystemClock(), Registry()
        presence = Presence("doctor", clock)
        for note in await self._newest("c.i.>"):
            if (said := read(note[1])) is not None:
                presence.hear(said)
        for seq, body in await self._newest("c.s.>"):
            try:
                registry.fold(seq, read_known(body))
            except StorageDamaged:  # one that a newer version may understand; instances pass by it, too
                continue
        session = Session(
            self._link,
            self._names,
            registry=registry,
            presence=presence,
            retention=Retention(),
            clock=clock,
            servings={},
        )
        infos = [await session.info(id) for id in list(registry.known)]
        return [info for info in infos if info is not None]

    async def _newest(self, what: str) -> list[tuple[int, bytes]]:
        """The newest message of each subject of the control stream: its sequence, and its body."""
        control, subject = self._names.control, f"{self._names.prefix}{what}"
        state = (await self._link.ask(f"STREAM.INFO.{control}", subjects_filter=subject))["state"]
        subjects = list(state.get("subjects") or ())
        found: list[tuple[int, bytes]] = []
        for first in range(0, len(subjects), _AT_ONCE):
            page = (self._link.get(control, subject=each) for each in subjects[first : first + _AT_ONCE])
            found += [(each.seq, each.body) for each in await asyncio.gather(*page) if each is not None]
        return found


def version(found: str) -> Finding:
    """Whether it has what is needed, and what it is known for."""
    numbers = version_of(found)
    change = "upgrade to NATS 2.12.6 or newer"
    if numbers[:2] < _OLDEST:
        return VERSION.fail(f"NATS {found}", change)
    if numbers < _MENDED:
        return VERSION.warn(f"NATS {found}: can lose what it confirmed", change)
    return VERSION.ok(f"NATS {found}")


def sync(answer: Info | None) -> Finding:
    """By what the server says of its settings, which only the system account may ask, or who imports it from there."""
    config = (answer or {}).get("data", {}).get("config")
    if config is None:
        return SYNC.unknown(
            "this account may not ask the server how often it syncs ($SYS.REQ.SERVER.PING.JSZ)",
            "look into the server's configuration: jetstream { sync_interval: always }; or, where its monitoring port "
            "is open, curl 'http://SERVER:8222/jsz?config=1' | jq .config",
        )
    if config.get("sync_always"):
        return SYNC.ok("always")
    return SYNC.warn(
        f"every {config.get('sync_interval', 0) / 1e9:,.0f} s: a power loss may take as much",
        "jetstream { sync_interval: always } in the server's configuration, and a restart; it takes about 4,000/s then",
    )


def streams(infos: Mapping[str, Info | None]) -> Finding:
    """Whether they are there, and as they are made."""
    missing = [name for name, info in infos.items() if info is None]
    if len(missing) == len(infos):
        return STREAMS.ok("no log yet: the first who publishes makes it")
    wrong = [f"{name} was deleted" for name in missing]
    for name, info in infos.items():
        config = {} if info is None else info["config"]
        if config.get("storage", "file") != "file":
            wrong.append(f"{name} is in memory, gone with the server")
        if config.get("discard", "new") != "new":
            wrong.append(
                f"{name} drops the oldest, unread or not, where it should refuse (discard {config['discard']})"
            )
    if wrong:
        return STREAMS.fail(
            "; ".join(wrong),
            "what was deleted is made again by the next WowEvent that starts, without what lay there; storage cannot "
            "be changed: wowevent copy to another namespace; discard: nats stream edit --discard=new",
        )
    events = (infos[next(iter(infos))] or {}).get("state", {}).get("messages", 0)
    return STREAMS.ok(f"{', '.join(infos)}; {events} events in the log")


def replicas(infos: Mapping[str, Info | None], cluster: str) -> Finding:
    """Whether a node that is lost takes something along."""
    there = {name: info for name, info in infos.items() if info is not None}
    counts = {int(info["config"].get("num_replicas", 1)) for info in there.values()}
    late, headless = [], []
    for name, info in there.items():
        group = info.get("cluster") or {}
        if cluster and not group.get("leader"):
            headless.append(name)
        late += [
            f"{peer['name']} of {name}"
            for peer in group.get("replicas") or ()
            if peer.get("offline") or not peer.get("current", True)
        ]
    if headless:
        return REPLICAS.fail(
            f"no leader: {', '.join(headless)}", "bring back the nodes that are away: most replicas have to be there"
        )
    where = f"cluster {cluster}" if cluster else "a server alone"
    found = f"{', '.join(map(str, sorted(counts))) or 'no stream yet'}; {where}"
    if late:
        return REPLICAS.warn(
            f"{found}; behind or away: {', '.join(late)}", "bring these nodes back; nats stream report"
        )
    if cluster and counts and min(counts) < 3:
        return REPLICAS.warn(
            f"{found}: a node that is lost for good takes its streams along",
            "say ?replicas=3 in the URL before the log is made; for one that is there: nats stream edit --replicas=3",
        )
    return REPLICAS.ok(found)


def limits(account: Info, log: Info | None) -> Finding:
    """How near the account, and the log, are to what they may have."""
    bound = account.get("limits") or (account.get("tiers") or {}).get("R1", {}).get("limits") or {}
    pairs: list[tuple[str, int, int, Callable[[int], str]]] = [
        ("storage of the account", int(account.get("storage", 0)), int(bound.get("max_storage", -1)), size)
    ]
    pairs += [
        (f"{what} of the account", int(account.get(what, 0)), int(bound.get(f"max_{what}", -1)), "{:,}".format)
        for what in ("streams", "consumers")
    ]
    if log is not None:
        pairs.append(("bytes of the log", int(log["state"]["bytes"]), int(log["config"].get("max_bytes", -1)), size))
    bounded = [pair for pair in pairs if pair[2] >= (0 if pair[3] is size else 1)]  # no streams is any number of them
    found = "; ".join(f"{what}: {shown(used)} of {shown(most)}" for what, used, most, shown in bounded)
    change = "raise the account's limits (max_file_store, nats account), or give the log its own (?max_bytes=)"
    if any(used >= most for _, used, most, shown in bounded if shown is size):
        return LIMITS.fail(f"{found}: publishing is refused (storage_full)", change)
    if log is None and any("streams" in what and most - used < _STREAMS for what, used, most, _ in bounded):
        return LIMITS.fail(f"{found}: a log is {_STREAMS} streams, which are not to be had", change)
    if any(used > _TIGHT * most or ("consumers" in what and most - used < _FEW) for what, used, most, _ in bounded):
        return LIMITS.warn(found, change)
    return LIMITS.ok(found or f"none; {size(int(account.get('storage', 0)))} are used")


def time_of(text: str) -> float | None:
    """A time as the server writes it, to the nanosecond, in Unix seconds."""
    found = re.match(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z", text)
    if found is None:
        return None
    return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() + float(found[2] or 0)
