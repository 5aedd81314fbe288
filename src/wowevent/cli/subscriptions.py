"""`wowevent subscriptions`: what the engine remembers, and who listens live; purge and remove."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from wowevent.broker import Filter, SubscriptionInfo
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.show import counted, print_json, span, table
from wowevent.errors import SubscriptionNotFound, shown
from wowevent.service.loop import run
from wowevent.settings import Settings

NUMBERS: Final = ("ready", "leased", "delayed", "dead", "consumers", "oldest", "lost", "lapsed")
_COLUMNS: Final = (
    "SUBSCRIPTION", "STATE", "READY", "LEASED", "DELAYED", "DEAD", "CONSUMERS", "LOST", "OLDEST", "PATTERNS",
)  # fmt: skip

Name = Annotated[str, typer.Argument(help="A subscription, or an agent: all of its subscriptions.")]


class _ListsByDefault(TyperGroup):
    """Takes `subscriptions --json` as `subscriptions list --json`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See TyperGroup."""
        plain = not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names)
        return super().parse_args(ctx, ["list", *args] if plain else args)


app: typer.Typer = typer.Typer(cls=_ListsByDefault, help="List what is subscribed; purge or remove a subscription.")


@app.command("list")
def list_all(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print every subscription: the remembered ones, and the live ones that are there now."""
    infos = sorted(run(_all(settle(url=url, namespace=namespace))), key=lambda info: info.subscription.id)
    if not json:
        table(_COLUMNS, map(_row, infos), right=_COLUMNS[2:-1])
    for info in infos if json else ():
        print_json(fields(info))


@app.command()
def purge(name: Name, yes: Yes = False, url: Url = None, namespace: Namespace = None) -> None:
    """Drop what is ready; what is leased, delayed or dead stays."""
    settings = settle(url=url, namespace=namespace)
    infos = run(_remembered(settings, name))
    consent(f"{counted(_sum(infos, 'ready'), 'event')} that {name} has not handled will be dropped", yes=yes)
    print(f"purged {counted(run(_purge(settings, infos)), 'event')}")


@app.command()
def remove(name: Name, yes: Yes = False, url: Url = None, namespace: Namespace = None) -> None:
    """Forget a subscription, or all of an agent's, with what waits for it and its dead letters."""
    settings = settle(url=url, namespace=namespace)
    infos = run(_remembered(settings, name))
    waiting, dead = _sum(infos, "ready", "leased", "delayed"), _sum(infos, "dead")
    served = ", and is being served" if any(info.consumers for info in infos) else ""
    what = f"{name} will be forgotten with {counted(waiting, 'event')} and {counted(dead, 'dead letter')}{served}"
    consent(what, yes=yes)
    run(_remove(settings, infos))
    for info in infos:
        print(f"removed {info.subscription.id}")


def of_name(infos: Iterable[SubscriptionInfo], name: str) -> list[SubscriptionInfo]:
    """The subscription of that id, else those of that agent; SubscriptionNotFound if there are none."""
    known = list(infos)
    found = [info for info in known if info.subscription.id == name]
    found = found or [info for info in known if info.subscription.agent == name]
    if not found or not name:
        raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")
    return found


def fields(info: SubscriptionInfo) -> dict[str, Any]:
    """A subscription for programs: what was declared, and the numbers; null where the engine cannot tell."""
    spec = info.subscription
    return {
        "id": spec.id,
        "agent": spec.agent or None,
        "durable": spec.durable,
        "patterns": spec.patterns,
        "filter": None if spec.filter is None else _filter(spec.filter),
        **{name: getattr(info, name) for name in NUMBERS},
    }


def state(info: SubscriptionInfo) -> str:
    """In one word how it is."""
    if not info.subscription.durable:
        return "live"
    return "lapsed" if info.lapsed else "served" if info.consumers else "unserved"


def number(value: int | None) -> str:
    """A number for people; `?` where the engine cannot tell."""
    return "?" if value is None else f"{value:,}"


def _filter(wish: Filter) -> dict[str, Any]:
    names = ("types", "priorities", "sources")
    return {name: None if (value := getattr(wish, name)) is None else sorted(value) for name in names}


def _row(info: SubscriptionInfo) -> Sequence[str]:
    counts = (info.ready, info.leased, info.delayed, info.dead, info.consumers, info.lost)
    spec = info.subscription
    return (spec.id, state(info), *map(number, counts), span(info.oldest), " ".join(spec.patterns))


def _sum(infos: Iterable[SubscriptionInfo], *names: str) -> int:
    return sum(getattr(info, name) or 0 for info in infos for name in names)


async def _all(settings: Settings) -> Sequence[SubscriptionInfo]:
    async with open_bus(settings) as bus:
        return await bus.subscriptions()


async def _remembered(settings: Settings, name: str) -> list[SubscriptionInfo]:
    """Those of that name for which something is kept: a live one is its process's, and ends with it."""
    found = of_name(await _all(settings), name)
    remembered = [info for info in found if info.subscription.durable]
    if not remembered:
        raise SubscriptionNotFound(f"{shown(name)} is live: nothing is kept for it, and it ends with its process")
    return remembered


async def _purge(settings: Settings, infos: Iterable[SubscriptionInfo]) -> int:
    async with open_bus(settings) as bus:
        return sum([await bus.purge(info.subscription.id) for info in infos])


async def _remove(settings: Settings, infos: Iterable[SubscriptionInfo]) -> None:
    async with open_bus(settings) as bus:
        for info in infos:
            await bus.remove(info.subscription.id)
