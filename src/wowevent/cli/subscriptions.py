"""`wowevent subscriptions`: what the engine remembers, and who listens live; pause, purge and remove."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Annotated, Any, Final

import typer

from wowevent.access.audit import local_user
from wowevent.broker import Filter, SubscriptionInfo
from wowevent.bus import EventBus
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.listing import ListsByDefault
from wowevent.cli.show import counted, print_all, span
from wowevent.errors import SubscriptionNotFound, shown
from wowevent.process.loop import run
from wowevent.settings import Settings

NUMBERS: Final = ("ready", "leased", "delayed", "dead", "consumers", "oldest", "lost", "lapsed")
_COLUMNS: Final = (
    "SUBSCRIPTION", "STATE", "READY", "LEASED", "DELAYED", "DEAD", "CONSUMERS", "LOST", "OLDEST", "PATTERNS",
)  # fmt: skip

Name = Annotated[str, typer.Argument(help="A subscription, or an agent: all of its subscriptions.")]


app: typer.Typer = typer.Typer(cls=ListsByDefault, help="List what is subscribed; pause, purge, remove subscriptions.")


@app.command("list")
def list_all(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print every subscription: the remembered ones, and the live ones that are there now."""
    found, paused = run(_all(settle(url=url, namespace=namespace)))
    infos = sorted(found, key=lambda info: info.subscription.id)
    print_all(
        infos,
        _COLUMNS,
        lambda info: _row(info, paused),
        json=json,
        fields=lambda info: fields(info, paused),
        right=_COLUMNS[2:-1],
    )


@app.command()
def pause(name: Name, url: Url = None, namespace: Namespace = None) -> None:
    """Give nobody its events until it is resumed, in any process; they wait, and what is being handled is finished."""
    settings = settle(url=url, namespace=namespace)
    for id in run(_pause(settings, name, paused=True)):
        print(f"paused {id}")


@app.command()
def resume(name: Name, url: Url = None, namespace: Namespace = None) -> None:
    """Go on with a subscription that was paused."""
    settings = settle(url=url, namespace=namespace)
    for id in run(_pause(settings, name, paused=False)):
        print(f"resumed {id}")


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


def fields(info: SubscriptionInfo, paused: Collection[str]) -> dict[str, Any]:
    """A subscription for programs: what was declared, and the numbers; null where the engine cannot tell."""
    spec = info.subscription
    return {
        "id": spec.id,
        "agent": spec.agent or None,
        "durable": spec.durable,
        "patterns": spec.patterns,
        "filter": None if spec.filter is None else _filter(spec.filter),
        **{name: getattr(info, name) for name in NUMBERS},
        "paused": spec.id in paused,
    }


def state(info: SubscriptionInfo, paused: Collection[str]) -> str:
    """In one word how it is; `paused` are the ids that are."""
    if info.subscription.id in paused:
        return "paused"
    if not info.subscription.durable:
        return "live"
    return "lapsed" if info.lapsed else "served" if info.consumers else "unserved"


def number(value: int | None) -> str:
    """A number for people; `?` where the engine cannot tell."""
    return "?" if value is None else f"{value:,}"


def _filter(wish: Filter) -> dict[str, Any]:
    names = ("types", "priorities", "sources")
    return {name: None if (value := getattr(wish, name)) is None else sorted(value) for name in names}


def _row(info: SubscriptionInfo, paused: Collection[str]) -> Sequence[str]:
    counts = (info.ready, info.leased, info.delayed, info.dead, info.consumers, info.lost)
    spec = info.subscription
    return (spec.id, state(info, paused), *map(number, counts), span(info.oldest), " ".join(spec.patterns))


def _sum(infos: Iterable[SubscriptionInfo], *names: str) -> int:
    return sum(getattr(info, name) or 0 for info in infos for name in names)


def paused_of(bus: EventBus, infos: Iterable[SubscriptionInfo]) -> set[str]:
    """The ids of those that are paused by hand: themselves, with their agent, or with everything."""
    specs = [info.subscription for info in infos]
    return {spec.id for spec in specs if bus.paused(spec.id, spec.agent)}


async def _all(settings: Settings) -> tuple[Sequence[SubscriptionInfo], set[str]]:
    """What is subscribed, and the ids of what is paused."""
    async with open_bus(settings) as bus:
        infos = await bus.subscriptions()
        return infos, paused_of(bus, infos)


async def _remembered(settings: Settings, name: str) -> list[SubscriptionInfo]:
    """Those of that name for which something is kept: a live one is its process's, and ends with it."""
    found = of_name((await _all(settings))[0], name)
    remembered = [info for info in found if info.subscription.durable]
    if not remembered:
        raise SubscriptionNotFound(f"{shown(name)} is live: nothing is kept for it, and it ends with its process")
    return remembered


async def _pause(settings: Settings, name: str, *, paused: bool) -> list[str]:
    """Pause the subscriptions of that name, or resume them; their ids."""
    ids = [info.subscription.id for info in await _remembered(settings, name)]
    async with open_bus(settings) as bus:
        for id in ids:
            await (bus.pause(id, by=local_user()) if paused else bus.resume(id))
    return ids


async def _purge(settings: Settings, infos: Iterable[SubscriptionInfo]) -> int:
    async with open_bus(settings) as bus:
        return sum([await bus.purge(info.subscription.id) for info in infos])


async def _remove(settings: Settings, infos: Iterable[SubscriptionInfo]) -> None:
    async with open_bus(settings) as bus:
        for info in infos:
            await bus.remove(info.subscription.id)
