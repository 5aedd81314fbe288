"""`wowevent agents`: who is there, where, what it hears and what it publishes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.show import print_all, span
from wowevent.process.loop import run
from wowevent.roster import AgentInfo
from wowevent.settings import Settings

_COLUMNS: Final = ("AGENT", "STATE", "SEEN", "READY", "DEAD", "WHERE", "SUBSCRIBES", "PUBLISHES")


def agents(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print who is there, or has a subscription that is remembered; takes a second and a half, in which all answer."""
    found, now = run(_all(settle(url=url, namespace=namespace))), time.time()
    print_all(found, _COLUMNS, lambda info: _row(info, now), json=json, right=_COLUMNS[2:5])


def _row(info: AgentInfo, now: float) -> Sequence[str]:
    patterns = dict.fromkeys(pattern for each in info.subscriptions for pattern in each.patterns)
    return (
        info.name,
        info.state,
        "-" if info.last_seen is None else span(max(0.0, now - info.last_seen)),
        f"{sum(each.ready for each in info.subscriptions):,}",
        f"{sum(each.dead for each in info.subscriptions):,}",
        " ".join(f"{each.host}:{each.pid}" for each in info.processes) or "-",
        " ".join(patterns) or "-",
        " ".join(info.publishes) or "-",
    )


async def _all(settings: Settings) -> Sequence[AgentInfo]:
    async with open_bus(settings) as bus:
        return await bus.agents()
