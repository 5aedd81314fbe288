"""`wowevent info`: the numbers of the engine, of a subscription or of an agent."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Annotated, Any, Final

import typer

from wowevent.broker import SubscriptionInfo
from wowevent.cli.engine import Namespace, Url, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.pauses import named_pause
from wowevent.cli.show import facts, open_console, print_json, span
from wowevent.cli.subscriptions import NUMBERS, fields, number, of_name, paused_of, state
from wowevent.errors import SubscriptionNotFound, shown
from wowevent.process.loop import run
from wowevent.settings import Settings

_SUMMED: Final = ("ready", "leased", "delayed", "dead")


def info(
    name: Annotated[
        str | None, typer.Argument(help="A subscription, or an agent: its several are summed; the engine without one.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One object.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what is known of a subscription, an agent, or the engine."""
    settings = settle(url=url, namespace=namespace)
    if name is None:
        engine = run(_engine(settings))
        print_json(engine) if json else _show_engine(engine)
        return
    total, parts, paused = run(_named(settings, name))
    if json:
        numbers = {each: getattr(total, each) for each in NUMBERS}
        print_json(
            {"name": name, **numbers, "paused": bool(paused), "subscriptions": [fields(part, paused) for part in parts]}
        )
        return
    if len(parts) > 1:
        _title(f"{name}, {len(parts)} subscriptions")
        facts(_numbers(total))
    for part in parts:
        _title(part.subscription.id)
        facts(_details(part, paused))


async def _named(settings: Settings, name: str) -> tuple[SubscriptionInfo, list[SubscriptionInfo], set[str]]:
    """The sums, each subscription, and the ids of those that are paused; SubscriptionNotFound."""
    async with open_bus(settings) as bus:
        parts = of_name(await bus.subscriptions(), name)
        total, paused = await bus.info(name), paused_of(bus, parts)
    if total is None:  # removed between the two questions
        raise SubscriptionNotFound(f"no subscription or agent {shown(name)} is known")
    return total, parts, paused


async def _engine(settings: Settings) -> dict[str, Any]:
    """What the engine says of itself, and the counts of all subscriptions; null where it cannot tell one."""
    async with open_bus(settings) as bus:
        capabilities = bus.capabilities
        details = (await bus.health())["details"]
        if "error" in details:
            raise CommandError("broker_unavailable", details["error"])
        infos = await bus.subscriptions()
        paused = paused_of(bus, infos)
        pauses = await bus.pauses()
    remembered = [each for each in infos if each.subscription.durable]
    return {
        "engine": capabilities.name,
        "url": settings.shown_url(),
        "namespace": settings.namespace,
        "promise": capabilities.promise,
        "durable": capabilities.durable,
        "shared": capabilities.shared,
        "position": details["position"],
        "latency": details["latency"],
        "subscriptions": len(remembered),
        "served": sum(1 for each in remembered if each.consumers),
        "live": len(infos) - len(remembered),
        **{each: _sum(remembered, each) for each in _SUMMED},
        "lapsed": details["lapsed"],
        "paused": sorted(paused),
        "pauses": pauses,
    }


def _sum(infos: Iterable[SubscriptionInfo], name: str) -> int | None:
    counts = [getattr(each, name) for each in infos]
    return None if None in counts else sum(counts)


def _show_engine(engine: dict[str, Any]) -> None:
    wide = [named_pause(pause) for pause in engine["pauses"] if pause.scope != "subscription"]
    named = {"lapsed or lost": engine["lapsed"], "paused": [*wide, *engine["paused"]]}
    counts = ((name, number(engine[name])) for name in ("subscriptions", "served", "live", *_SUMMED))
    rows = [
        *((name, engine[name]) for name in ("engine", "url", "namespace", "promise", "position")),
        ("answers in", f"{engine['latency'] * 1000:.1f} ms"),
        *counts,
    ]
    facts([*rows, *((name, ", ".join(ids)) for name, ids in named.items() if ids)])


def _title(text: str) -> None:
    open_console().print(text, style="bold", markup=False)


def _details(part: SubscriptionInfo, paused: Collection[str]) -> list[tuple[str, str]]:
    spec = part.subscription
    given = fields(part, paused)["filter"] or {}
    wishes = "; ".join(f"{name} {', '.join(map(str, value))}" for name, value in given.items() if value is not None)
    return [
        ("agent", spec.agent or "-"),
        ("state", state(part, paused)),
        ("patterns", " ".join(spec.patterns)),
        ("filter", wishes or "-"),
        *_numbers(part),
    ]


def _numbers(part: SubscriptionInfo) -> list[tuple[str, str]]:
    counts = ("ready", "leased", "delayed", "dead", "consumers", "lost")
    return [*((name, number(getattr(part, name))) for name in counts), ("oldest", span(part.oldest))]
