"""`wowevent history`: the events of the log, in its order or backwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Final

import typer
from msgspec import structs

from wowevent.broker import Broker, Query, Stored
from wowevent.cli.arguments import Time, moment
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.show import printer
from wowevent.process.loop import run
from wowevent.replay import build_query
from wowevent.rewind import newest as last_of
from wowevent.rewind import stretch
from wowevent.settings import Settings

_LAST: Final = 50
_PAGE: Final = 1_000


def history(  # noqa: PLR0917 - the options of a command
    pattern: Annotated[list[str] | None, typer.Argument(help="Patterns such as 'task.*'; all without one.")] = None,
    since: Time = None,
    until: Time = None,
    correlation_id: Annotated[str | None, typer.Option(help="Only what belongs together.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=0, help="At most so many.")] = None,
    newest: Annotated[bool, typer.Option(help="Newest first: the last 50, or as many as --limit says.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Whole envelopes, one a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what happened, oldest first. Times are those of the events."""
    settings = settle(url=url, namespace=namespace)
    query = build_query(pattern or None, moment(since), moment(until), correlation_id=correlation_id)
    run(_print(settings, query, limit, newest=newest, json=json))


async def _print(settings: Settings, query: Query, limit: int | None, *, newest: bool, json: bool) -> None:
    show = printer(json=json)
    async with open_bus(settings) as bus:
        if newest:
            log = _backwards(bus.broker, query, _LAST if limit is None else limit)
        else:
            log = bus.broker.read(structs.replace(query, limit=limit))
        async for stored in log:
            show(stored.event)


async def _backwards(broker: Broker, query: Query, limit: int) -> AsyncIterator[Stored]:
    """The last ones, from the log's end as it is now."""
    left, before = limit, None
    while left:
        page = await last_of(broker, query, await stretch(broker, query, before=before), min(left, _PAGE))
        for stored in page.found:
            yield stored
        left, before = left - len(page.found), page.before
        if before is None:
            return
