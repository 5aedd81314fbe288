"""`wowevent doctor`: what does not hold of what is promised, and what to change."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from wowevent.cli.engine import Namespace, Url
from wowevent.cli.pidfile import find, is_service
from wowevent.cli.show import facts, open_console, print_json
from wowevent.errors import BusError, plain
from wowevent.finding import Finding, Verdict
from wowevent.process.exits import message_of
from wowevent.process.loop import run
from wowevent.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    from wowevent.doctor import Report

_STYLES: Final = {Verdict.OK: "green", Verdict.UNKNOWN: "cyan", Verdict.WARN: "yellow", Verdict.FAIL: "bold red"}
_INDENT: Final = " " * 9


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> int:
    """Look at the engine and at this machine: what does not hold of what is promised, and what to change.

    Changes nothing, and ends within 20 seconds. Ends with 0 if nothing fails, 1 if something does.
    """
    logging.disable(logging.CRITICAL)  # what the engines and their drivers would say is found
    given: dict[str, Any] = {
        name: value for name, value in (("url", url), ("namespace", namespace)) if value is not None
    }
    report = run(look(given))
    print_json(report) if json else _show(report)
    return int(report.verdict == Verdict.FAIL)


async def look(given: dict[str, Any]) -> Report:
    """All that is found with the settings that are configured, and these over them."""
    from wowevent.doctor import SETTINGS, examine

    try:
        settings, engine = Settings(**given), True
        first = _served(settings)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with them, the rest can be looked at
        settings, engine = _defaults(given)
        change = "wowevent configure --show says where each comes from; what follows goes by the defaults"
        first = SETTINGS.fail(message_of(error), change)
    return await examine(settings, first, engine=engine, holders=lambda: holders(settings.data_dir))


def _served(settings: Settings) -> Finding:
    """Whether a service would start with them: with its tokens, and its TLS."""
    from wowevent.access.keyring import Keyring
    from wowevent.access.tls import server_context
    from wowevent.doctor import SETTINGS

    try:
        Keyring.of(settings)
        server_context(settings)
    except (ValueError, BusError) as error:
        said = message_of(error)
        for value in filter(None, (settings.tokens, settings.jwt_keys)):  # by mistake a secret, not the name of a file
            said = said.replace(value, "the file")
        return SETTINGS.fail(said, "no service starts with that: correct it, or leave it out")
    return SETTINGS.ok("valid")


def _defaults(given: dict[str, Any]) -> tuple[Settings, bool]:
    """The defaults with what was given, and whether that names the engine."""
    try:
        return Settings.model_construct(**given), "url" in given
    except BusError:  # a namespace that is none
        return Settings.model_construct(), False


def holders(data_dir: Path) -> dict[int, str]:
    """The ports on which services of ours listen, and which service that is; OSError if the record cannot be read."""
    found = _others()
    seen = find(data_dir)
    if seen.process is not None and seen.record is not None:
        who = f"the service that is registered here, process {seen.record.pid}"
        urls = [url for url in (seen.record.websocket, seen.record.http) if url is not None]
        found |= {port: who for url in urls if (port := urlsplit(url).port) is not None}
    return found


def _others() -> dict[int, str]:
    """Those that are registered elsewhere or nowhere, as far as the system tells."""
    import psutil

    found: dict[int, str] = {}
    with suppress(psutil.Error):
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.pid is not None:
                with suppress(psutil.Error):
                    if is_service(psutil.Process(each.pid).cmdline()):
                        found[each.laddr.port] = f"a wowevent service, process {each.pid}"
    return found


def _show(report: Report) -> None:
    facts([("engine", report.engine), ("namespace", report.namespace), ("promise", report.promise or "not known")])
    width = max(len(finding.check) for finding in report.findings)
    for finding in report.findings:
        _show_one(finding, width)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in report.counts.items() if count)
    open_console().print(counts, style="bold", markup=False)


def _show_one(finding: Finding, width: int) -> None:
    console = open_console()
    console.print(f"[{_STYLES[finding.verdict]}]{finding.verdict:<7}[/]  ", end="")
    console.print(f"{finding.check:<{width}}  {plain(finding.found)}", markup=False)
    if finding.verdict != Verdict.OK:
        console.print(f"{_INDENT}promised: {plain(finding.promised)}", style="dim", markup=False)
        console.print(f"{_INDENT}change:   {plain(finding.change)}", markup=False)
