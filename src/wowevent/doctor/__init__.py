"""What stands in the way of what is promised: the engine, the machine and the files of one installation, looked at.

    __init__   the round: every look with its time, none stops the others
    standing   subscriptions: lapsed, unserved, behind, dead letters
    machine    clock, file limits;   places: folders and files;   ports: who listens
    discretion what may be shown: no password

Nothing is made or changed, on the engine or on the disk. An engine's own looks are its `doctor` module.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from msgspec import Struct

from wowevent.aside import aside
from wowevent.broker import Broker
from wowevent.brokers import open_broker
from wowevent.doctor import machine, places, ports, standing
from wowevent.doctor.discretion import Discretion
from wowevent.ending import seen
from wowevent.errors import BrokerUnavailable, BusError, NotPermitted
from wowevent.finding import Check, Finding, Verdict, worst
from wowevent.settings import Settings

__all__ = ["CHECKS", "ENGINE", "LIMIT", "SETTINGS", "Report", "at_engine", "examine"]

LIMIT: Final = 5.0
"""Seconds that each look has."""
_LEAVING: Final = 3.0  # seconds to say goodbye to an engine
_HEEDED: Final = 1.0  # seconds for what is cancelled to end

SETTINGS: Final = Check("settings", "every setting has a value that it can have")
ENGINE: Final = Check("engine.reachable", "an answer within 5 s")
CHECKS: Final = (SETTINGS, ENGINE, *standing.CHECKS, *machine.CHECKS, *places.CHECKS, *ports.CHECKS)
"""What is looked at whatever the engine is."""

Holders = Callable[[], Mapping[int, str]]
"""Which ports services of ours listen on, and who that is."""


class Report(Struct, frozen=True, kw_only=True):
    """All that was found."""

    verdict: Verdict
    """The gravest."""
    engine: str
    """The engine's URL, without secrets."""
    namespace: str
    promise: str
    """One sentence: what is lost, and when, with the settings in force; empty if that is not known."""
    counts: dict[str, int]
    findings: list[Finding]


async def examine(settings: Settings, first: Finding, *, engine: bool, holders: Holders) -> Report:
    """Look at everything, all at once: 5 s to reach the engine, and as many for its looks.

    `first` says whether the settings are those that are configured. Where they are not, and the engine is thus not
    known either, it is not looked at. The findings come in the order of the checks.
    """
    discretion = Discretion(settings.engine_url())
    reached = at_engine(settings.engine_url(), settings.namespace) if engine else _not_looked_at()
    (promise, there), here = await asyncio.gather(reached, _here(settings, holders))
    findings = [discretion.of(finding) for finding in (first, *there, *here)]
    return Report(
        verdict=worst(findings),
        engine=discretion.url if engine else "",
        namespace=settings.namespace,
        promise=promise,
        counts={verdict.value: sum(each.verdict == verdict for each in findings) for verdict in Verdict},
        findings=findings,
    )


# --- the engine ---------------------------------------------------------------------------------------------------


async def at_engine(url: str, namespace: str = "default") -> tuple[str, list[Finding]]:
    """What an engine promises, and what was found of it; that may show what is secret in the URL."""
    try:
        broker = open_broker(url, namespace=namespace)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with the URL, the rest is looked at
        change = "correct the URL (--url, WOWEVENT_URL); docs/engines.md"
        return "", [ENGINE.fail(f"that is no engine: {error}", change)]
    entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    findings: list[Finding] = []
    visit = asyncio.create_task(_visit(url, broker, entered, findings), name="doctor:engine")
    try:
        await asyncio.wait([visit, entered], timeout=LIMIT, return_when=asyncio.FIRST_COMPLETED)
        if entered.done():
            await asyncio.wait([visit], timeout=LIMIT + _LEAVING)
        late = not visit.done()
    finally:
        await _leave(visit)
    promise = broker.capabilities.promise if entered.done() else ""
    return promise, findings or [_unreached(visit, late=late)]


async def _not_looked_at() -> tuple[str, list[Finding]]:
    return "", [ENGINE.unknown("not looked at: which one it is stands in the settings", "correct these, or say --url")]


async def _visit(url: str, broker: Broker, entered: asyncio.Future[None], findings: list[Finding]) -> None:
    await _resolve(url)
    async with broker.examine() as examination:
        entered.set_result(None)
        looks = [within(check, look) for check, look in examination.looks.items()]
        looks.append(within(standing.LAPSED, partial(_standing, examination.subscriptions)))
        parts = await asyncio.gather(*looks)
        findings += [ENGINE.ok(f"{broker.capabilities.name} answers"), *(each for part in parts for each in part)]


async def _resolve(url: str) -> None:
    """Ask for the engine's names, aside: a driver that asks keeps the process until there is an answer, or none."""
    hosts = {urlsplit(f"//{each}").hostname for each in urlsplit(url).netloc.rpartition("@")[2].split(",")}
    asked = (aside(partial(socket.getaddrinfo, host, None)) for host in hosts if host)
    try:
        async with asyncio.timeout(LIMIT * 0.8):
            await asyncio.gather(*asked, return_exceptions=True)  # what is wrong with a name, the driver tells
    except TimeoutError:
        raise BrokerUnavailable("no name server answers") from None


async def _standing(subscriptions: Callable[[], Awaitable[Any]]) -> Sequence[Finding]:
    return standing.judge(await subscriptions())


def _unreached(visit: asyncio.Task[None], *, late: bool) -> Finding:
    change = "is it running, and is the URL right? wowevent doctor --url says what another one answers"
    if late:
        return ENGINE.fail(f"no answer within {LIMIT:.0f} s", change)
    if visit.cancelled():  # by a driver whose connection broke
        return ENGINE.fail("the connection was lost", change)
    return ENGINE.fail(_text(visit.exception()), change)


# --- here ---------------------------------------------------------------------------------------------------------


async def _here(settings: Settings, holders: Holders) -> list[Finding]:
    """What was found on this machine."""
    looks: dict[Check, Callable[[], Iterable[Finding]]] = {
        **machine.looks(),
        **places.looks(settings),
        **ports.looks(settings, holders),
    }
    parts = await asyncio.gather(
        *(within(check, partial(aside, partial(_list, look))) for check, look in looks.items())
    )
    return [finding for part in parts for finding in part]


def _list(look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    return list(look())


async def within(check: Check, look: Callable[[], Awaitable[Sequence[Finding]]]) -> Sequence[Finding]:
    """What a look finds. That it takes too long, or breaks, is a finding of its own."""
    task: asyncio.Future[Sequence[Finding]] = asyncio.ensure_future(look())
    try:
        await asyncio.wait([task], timeout=LIMIT)
        late = not task.done()
    finally:
        await _leave(task)
    if late:
        return [check.unknown(f"no answer within {LIMIT:.0f} s", "try again; what does not answer here is in trouble")]
    if task.cancelled():
        return [check.unknown("the connection was lost", "try again")]
    error = task.exception()
    if error is None:
        return task.result()
    return [check.unknown(_text(error), _advice(error))]


async def _leave(task: asyncio.Future[Any]) -> None:
    """Cancel it if it goes on. One that does not heed that is not waited for, and what it raises is nobody's."""
    task.add_done_callback(seen)
    task.cancel()
    await asyncio.wait([task], timeout=_HEEDED)


def _advice(error: BaseException) -> str:
    if isinstance(error, NotPermitted | PermissionError):
        return "give this user that right, or look by other means"
    if isinstance(error, BusError | OSError):
        return "what else is found says why, or the logs of the engine"
    return "please report this"


def _text(error: BaseException | None) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, BusError | OSError) and said else f"{type(error).__name__}: {said}"
