"""`wowevent pause`, `resume` and `pauses`: hand out nothing of an agent, a topic, a conversation, or of everything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from wowevent.access.audit import local_user
from wowevent.cli.arguments import term
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.show import local_time, print_all
from wowevent.holds import Pause
from wowevent.process.loop import run
from wowevent.settings import Settings

_COLUMNS: Final = ("SCOPE", "NAME", "SINCE", "UNTIL", "BY", "REASON")

Name = Annotated[str | None, typer.Argument(help="A subscription, or an agent: the subscriptions that it has now.")]
Agent = Annotated[str | None, typer.Option(help="All of this agent's, those made later too.")]
Topic = Annotated[str | None, typer.Option(help="Events on the topics that this pattern matches, whoever gets them.")]
Conversation = Annotated[str | None, typer.Option(help="Events of this correlation id.")]
Everything = Annotated[bool, typer.Option("--everything", help="Whatever there is in the namespace.")]


def pause(  # noqa: PLR0917 - the options of a command
    name: Name = None,
    agent: Agent = None,
    topic: Topic = None,
    conversation: Conversation = None,
    everything: Everything = False,
    lasting: Annotated[
        str | None, typer.Option("--for", help="Such as 30s, 10m, 2h, 1d.", show_default="until it is resumed")
    ] = None,
    reason: Annotated[str, typer.Option(help="Shown with the pause.", show_default=False)] = "",
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Hand out nothing of one of these, in any process: it waits, and what is being handled is finished."""
    what = _chosen(name, agent, topic, conversation, everything=everything)
    until = None if lasting is None else term(lasting, "--for")
    for each in run(_pause(settle(url=url, namespace=namespace), what, until, reason)):
        end = "" if each.until is None else f" until {local_time(each.until)}"
        print(f"paused {named_pause(each)}{end}")


def resume(  # noqa: PLR0917 - the options of a command
    name: Name = None,
    agent: Agent = None,
    topic: Topic = None,
    conversation: Conversation = None,
    everything: Everything = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Go on with what was paused by the same words. Each pause ends for itself."""
    what = _chosen(name, agent, topic, conversation, everything=everything)
    ended, left = run(_resume(settle(url=url, namespace=namespace), what))
    for each in ended:
        print(f"resumed {named_pause(each)}")
    if not ended:
        note("that was not paused")
    for each in left:
        note(f"still paused: {named_pause(each)}")


def pauses(
    json: Annotated[bool, typer.Option("--json", help="One object a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what is paused: since when, until when, by whom and why."""
    print_all(run(_all(settle(url=url, namespace=namespace))), _COLUMNS, _row, json=json)


def named_pause(pause: Pause) -> str:
    """What is paused, in words: `everything`, `agent worker`; of a subscription its id."""
    return pause.name if pause.scope == "subscription" else f"{pause.scope} {pause.name}".strip()


def _chosen(
    name: str | None, agent: str | None, topic: str | None, conversation: str | None, *, everything: bool
) -> dict[str, Any]:
    given = {"name": name, "agent": agent, "topic": topic, "correlation_id": conversation}
    found: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if everything:
        found["everything"] = True
    if len(found) != 1:
        raise CommandError("usage", "one of these: NAME, --agent, --topic, --conversation, --everything")
    return found


def _row(each: Pause) -> Sequence[str]:
    until = "resumed" if each.until is None else local_time(each.until)
    return each.scope, each.name or "-", local_time(each.since), until, each.by or "-", each.reason or "-"


async def _pause(settings: Settings, what: dict[str, Any], until: float | None, reason: str) -> Sequence[Pause]:
    async with open_bus(settings) as bus:
        return await bus.pause(**what, until=until, reason=reason, by=local_user())


async def _resume(settings: Settings, what: dict[str, Any]) -> tuple[Sequence[Pause], Sequence[Pause]]:
    """What was paused by these words, and what else is."""
    async with open_bus(settings) as bus:
        return await bus.resume(**what), await bus.pauses()


async def _all(settings: Settings) -> Sequence[Pause]:
    async with open_bus(settings) as bus:
        return await bus.pauses()
