"""`wowevent copy`: all of a namespace into another one or another engine, so that it can be stopped and goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final

import typer
from msgspec import structs

from wowevent.broker import Broker
from wowevent.cli.engine import Namespace, note, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.progress import progress
from wowevent.cli.show import counted, print_json
from wowevent.clock import SystemClock
from wowevent.copying import Compared, Copied, Copy, Standing, carry_over, compare
from wowevent.errors import NotSupported
from wowevent.process.loop import run
from wowevent.settings import Settings


def copy(  # noqa: PLR0917 - the options of a command
    source: Annotated[
        str | None,
        typer.Option("--from", help="The engine to copy: a URL.", show_default="WOWEVENT_URL, else an embedded log"),
    ] = None,
    to: Annotated[str | None, typer.Option(help="The engine that gets it: a URL.", show_default="the same one")] = None,
    namespace: Namespace = None,
    to_namespace: Annotated[
        str | None, typer.Option(help="The namespace that gets it.", show_default="the same one")
    ] = None,
    subscriptions: Annotated[
        bool,
        typer.Option("--subscriptions", help="Declare the remembered subscriptions, too, where their unread begins."),
    ] = False,
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--no-verify", help="Only compare, or only copy.", show_default="copy, then compare"),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="Into a log that has events or subscriptions: these get what they match.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Copy the history and what processes share into another log: ids, times and order stay, and are compared after it.

    Run it again to go on where it was stopped, or with what has come since. Subscriptions are left out unless
    --subscriptions: give it with the last run, when nobody publishes to the source or handles its events any more.
    What is not in the history stays behind: dead letters, attempts, leases, delayed events, who listens live.
    """
    if to is None and to_namespace is None:
        raise CommandError("usage", "where to? --to URL, or --to-namespace NAME for another one of the same engine")
    if verify and (subscriptions or merge):
        raise CommandError("usage", "--verify only compares: it goes with neither --subscriptions nor --merge")
    here = settle(url=source, namespace=namespace)
    there = settle(url=to or here.engine_url(), namespace=to_namespace or here.namespace)
    move = _Move(here, there, subscriptions=subscriptions, merge=merge)
    run(move.carry_out(copies=not verify, compares=verify is not False))
    if json:
        print_json(move.fields())
    else:
        move.show()
    move.check()


class _Move:
    """One run of the command, and what came of it."""

    def __init__(self, here: Settings, there: Settings, *, subscriptions: bool, merge: bool) -> None:
        """CommandError for a way that leads nowhere."""
        self.copied: Copied | None = None
        self.compared: Compared | None = None
        self.standings: Sequence[Standing] = ()
        self._here = here
        self._there = there
        self._subscriptions = subscriptions
        self._merge = merge
        if (here.engine_url(), here.namespace) == (there.engine_url(), there.namespace):
            raise CommandError("usage", f"{_place(here)} is to be copied into itself")

    async def carry_out(self, *, copies: bool, compares: bool) -> None:
        """Copy, declare, compare: what of it is wanted."""
        async with AsyncExitStack() as stack:
            source = await stack.enter_async_context(_engine(self._here))
            target = await stack.enter_async_context(_engine(self._there))
            move = Copy(source, target)
            stack.push_async_callback(move.close)
            if not await move.open():
                raise CommandError("usage", f"{_place(self._there)} is the log that is copied, or a clone of its file")
            if copies:
                await self._copy(move)
            if copies and self._subscriptions:
                began = None if move.note is None else move.note.began
                self.standings = await carry_over(source, target, move.upto, began, SystemClock())
            if compares:
                await self._compare(move, source, target)

    async def _copy(self, move: Copy) -> None:
        if not self._merge and await move.filled():
            raise CommandError("usage", f"{_place(self._there)} is not empty: --merge adds to what it has")
        try:
            with progress({"copying": "events"}) as told:
                self.copied = await move.run(partial(told, "copying"))
        except asyncio.CancelledError:
            note("stopped; the same command goes on from there")
            raise

    async def _compare(self, move: Copy, source: Broker, target: Broker) -> None:
        known = move.note
        upto = move.upto if known is None or known.source is None else known.source
        with progress({"comparing": "events"}) as told:
            began = None if known is None else known.began
            self.compared = await compare(source, target, upto, began, partial(told, "comparing"))

    def fields(self) -> dict[str, Any]:
        """All of it for programs."""
        return {
            "from": self._here.shown_url(),
            "namespace": self._here.namespace,
            "to": self._there.shown_url(),
            "to_namespace": self._there.namespace,
            "copied": None if self.copied is None else {**structs.asdict(self.copied), "position": _position(self)},
            "subscriptions": [structs.asdict(each) for each in self.standings],
            "compared": None if self.compared is None else _compared(self.compared),
        }

    def show(self) -> None:
        """The same for people."""
        if (copied := self.copied) is not None:
            known = f" ({copied.known:,} were there)" if copied.known else ""
            print(f"copied {counted(copied.events, 'event')} and {counted(copied.facts, 'fact')}{known}", end=" ")
            print(f"into {_place(self._there)}")
        for each in self.standings:
            if each.begins != "unknown":
                print(f"subscription {each.id}: {_BEGINS[each.begins].format(each.event_id)}")
            if each.dead:
                note(f"{each.id}: {counted(each.dead, 'dead letter')} stay at the source")
        if (compared := self.compared) is not None and compared.difference is None:
            others = f", {compared.others:,} others" if compared.others else ""
            both = f"{counted(compared.events, 'event')} and {counted(compared.facts, 'fact')}"
            print(f"compared {both}{others}: the same, sha256 {compared.source}")

    def check(self) -> None:
        """CommandError, NotSupported if not all is there that should be."""
        if (compared := self.compared) is not None and compared.difference is not None:
            raise CommandError("copy_differs", str(compared.difference))
        copied = self.copied
        if copied is not None and copied.gone:
            note("the limits of the source took events that had not been copied yet")
        if copied is not None and copied.damaged:
            raise CommandError(
                "storage_damaged",
                f"{counted(copied.damaged, 'event')} of the source cannot be read; the rest is copied",
            )
        if unknown := [each.id for each in self.standings if each.begins == "unknown"]:
            raise NotSupported(
                f"not declared, since the source cannot tell what they have not handled: {', '.join(unknown)}; "
                "let their workers handle all that waits and stop them, then run this again"
            )


_BEGINS: Final = {
    "new": "declared, it had handled everything",
    "unread": "declared, it begins with {}",
    "there": "was there already, and is as it was",
}


def _position(move: _Move) -> str | None:
    return None if move.copied is None else str(move.copied.position)


def _compared(compared: Compared) -> dict[str, Any]:
    wrong = compared.difference
    shown = None if wrong is None else {**structs.asdict(wrong), "position": str(wrong.position)}
    return {**structs.asdict(compared), "position": str(compared.position), "difference": shown}


def _place(settings: Settings) -> str:
    return f"namespace {settings.namespace} of {settings.shown_url()}"


@asynccontextmanager
async def _engine(settings: Settings) -> AsyncIterator[Broker]:
    """The engine alone: the bus above it, which would look for facts all the time, is never started."""
    bus = open_bus(settings)
    try:
        yield bus.broker
    finally:
        await bus.stop(timeout=0)
