"""`wowevent dlq`: the dead letters: list, groups, show, redeliver, discard, resend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer
from msgspec import Raw, Struct

from wowevent.access.audit import local_user
from wowevent.broker import DeadLetter, Reason
from wowevent.bus import EventBus
from wowevent.cli.arguments import payload_of
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.progress import Told, progress
from wowevent.cli.show import counted, facts, local_time, print_json, table, text
from wowevent.cli.subscriptions import of_name
from wowevent.codec import encode, to_fields
from wowevent.dead_letter import Correction, all_named
from wowevent.errors import plain
from wowevent.event import check_name
from wowevent.fingerprint import MOST as MOST_GROUPS
from wowevent.fingerprint import LetterGroup, LetterGroups, check_fingerprint
from wowevent.process.loop import run
from wowevent.schema import SchemaRegistry
from wowevent.settings import Settings

_EVERY: Final = 2**31  # letters: no limit
_DONE: Final = {"redeliver": "redelivered", "discard": "discarded"}
_GROUP_COLUMNS: Final = ("FINGERPRINT", "COUNT", "LAST", "REASON", "SUBSCRIPTIONS", "TOPICS", "ERROR")
_COLUMNS: Final = ("ID", "BURIED", "SUBSCRIPTION", "TOPIC", "REASON", "ATTEMPTS", "ERROR")

Verb = Literal["redeliver", "discard"]
Subscription = Annotated[str | None, typer.Option(help="Only those of this subscription, or agent.")]
Why = Annotated[Reason | None, typer.Option(help="Only those that died of this.")]
EventId = Annotated[str | None, typer.Option(help="Only those of this event.")]
Correlation = Annotated[str | None, typer.Option(help="Only what belongs together.")]
Fingerprint = Annotated[str | None, typer.Option(help="Only what died of the same, as `dlq groups` names it.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Dead letters, as `dlq list` names them.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter there is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which ones, and leave them as they are.")]
Most = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="The oldest so many of them.")]
Json = Annotated[bool, typer.Option("--json", help="Whole dead letters, one a line.")]

app: typer.Typer = typer.Typer(help="Look at dead letters, send them again, forget them.", no_args_is_help=True)


class _Choice(Struct, frozen=True):
    """Which dead letters: those of these ids, or those that fit every filter."""

    ids: tuple[str, ...] = ()
    subscription: str | None = None
    reason: Reason | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    fingerprint: str | None = None
    limit: int | None = None

    @property
    def filtered(self) -> bool:
        """Whether a filter was given; a limit is none."""
        return any((self.subscription, self.reason, self.event_id, self.correlation_id, self.fingerprint))

    @property
    def filters(self) -> dict[str, Any]:
        """The filters, as the bus takes them; InvalidEvent for what can be none."""
        for name in (self.event_id, self.correlation_id):
            if name is not None:
                check_name(name)
        if self.fingerprint is not None:
            check_fingerprint(self.fingerprint)
        return {
            "subscription": self.subscription,
            "reason": self.reason,
            "event_id": self.event_id,
            "correlation_id": self.correlation_id,
            "fingerprint": self.fingerprint,
        }


@app.command("list")
def list_some(  # noqa: PLR0917 - the options of a command
    subscription: Subscription = None,
    reason: Why = None,
    event_id: EventId = None,
    correlation_id: Correlation = None,
    fingerprint: Fingerprint = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 100,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print dead letters, oldest first."""
    choice = _Choice((), subscription, reason, event_id, correlation_id, fingerprint, limit + 1)
    letters = run(_find(settle(url=url, namespace=namespace), choice))
    if json:
        for letter in letters[:limit]:
            print_json(_fields(letter))
    else:
        _show_table(letters[:limit])
    if len(letters) > limit:
        note(f"there are more than these {limit}; --limit shows them")


@app.command()
def groups(  # noqa: PLR0917 - the options of a command
    subscription: Subscription = None,
    reason: Why = None,
    correlation_id: Correlation = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST_GROUPS, help="At most so many.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="Whole groups, one a line.")] = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print what they died of: a line for each error, whatever the numbers and names in its text."""
    choice = _Choice(subscription=subscription, reason=reason, correlation_id=correlation_id, limit=limit)
    found = run(_grouped(settle(url=url, namespace=namespace), choice))
    if json:
        for group in found.groups:
            print_json(group)
    else:
        table(_GROUP_COLUMNS, map(_group_row, found.groups), right={"COUNT"})
    if found.more:
        note(f"there are more than these {len(found.groups)}; --limit shows up to {MOST_GROUPS}")


@app.command()
def show(
    id: Annotated[str, typer.Argument(help="A dead letter, as `dlq list` names it.")],
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print all that is known of one dead letter: error, traceback, attempts, event."""
    (letter,) = run(_find(settle(url=url, namespace=namespace), _Choice(ids=(id,))))
    print_json(_fields(letter)) if json else _show_letter(letter)


@app.command()
def redeliver(  # noqa: PLR0917 - the options of a command
    ids: Ids = None,
    subscription: Subscription = None,
    reason: Why = None,
    event_id: EventId = None,
    correlation_id: Correlation = None,
    fingerprint: Fingerprint = None,
    all: All = False,
    limit: Most = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="So many a second at most; else all at once.")] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Hand dead letters to their subscriptions again, with fresh attempts."""
    once = tuple(dict.fromkeys(ids or ()))
    choice = _Choice(once, subscription, reason, event_id, correlation_id, fingerprint, limit)
    _check("redeliver", choice, all=all)
    _resolve("redeliver", settle(url=url, namespace=namespace), choice, dry_run=dry_run, yes=yes, rate=rate)


@app.command()
def discard(  # noqa: PLR0917 - the options of a command
    ids: Ids = None,
    subscription: Subscription = None,
    reason: Why = None,
    event_id: EventId = None,
    correlation_id: Correlation = None,
    fingerprint: Fingerprint = None,
    all: All = False,
    limit: Most = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Forget dead letters, with their events."""
    once = tuple(dict.fromkeys(ids or ()))
    choice = _Choice(once, subscription, reason, event_id, correlation_id, fingerprint, limit)
    _check("discard", choice, all=all)
    _resolve("discard", settle(url=url, namespace=namespace), choice, dry_run=dry_run, yes=yes)


@app.command()
def resend(  # noqa: PLR0917 - the options of a command
    id: Annotated[str, typer.Argument(help="A dead letter, as `dlq list` names it.")],
    payload: Annotated[str, typer.Option(help="A file with the right payload, a JSON object; '-' is stdin.")],
    reason: Annotated[str, typer.Option(help="Why; the new event says so.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and leave it.")] = False,
    yes: Yes = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Send the event of a dead letter again with another payload, to the letter's subscription alone."""
    settings, right = settle(url=url, namespace=namespace), _payload(payload)
    (letter,) = run(_find(settings, _Choice(ids=(id,))))
    event = f"{letter.event.topic} {letter.event.event_id}"
    to = f"resent to {plain(letter.subscription)} alone, with this payload"
    if dry_run:
        text("payload", _lines(right))
        print(f"{event} would be {to}")
        return
    consent(f"{event} will be {to}", yes=yes)
    done = run(_resend(settings, id, right, reason))
    again = " duplicate: it had been resent before, as it was then" if done.duplicate else ""
    print(f"resent {done.event_id} replaces={done.replaces}{again}")


def _payload(name: str) -> dict[str, Any]:
    """The JSON object of a file, or of stdin."""
    return payload_of(sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes())


async def _resend(settings: Settings, id: str, payload: dict[str, Any], reason: str) -> Correction:
    async with open_bus(settings, SchemaRegistry()) as bus:  # so that it is held against its schema
        return await bus.dead_letters.resend(id, payload, reason=reason, by=local_user())


def _check(verb: Verb, choice: _Choice, *, all: bool) -> None:
    """CommandError unless it is clear which letters are meant: by accident, nothing is sent and nothing forgotten."""
    if [bool(choice.ids), choice.filtered, all].count(True) != 1:
        raise CommandError("usage", f"{verb} wants ids, or filters such as --subscription, or --all: one of these")
    if choice.ids and choice.limit is not None:
        raise CommandError("usage", "--limit goes with filters and --all; ids are as many as they are")


def _resolve(
    verb: Verb, settings: Settings, choice: _Choice, *, dry_run: bool, yes: bool, rate: float | None = None
) -> None:
    """Ask, and do it to exactly those letters that were counted."""
    letters = run(_find(settings, choice))
    done, many = _DONE[verb], counted(len(letters), "dead letter")
    if dry_run:
        _show_table(letters)
        print(f"{many} would be {done}")
        return
    if letters:
        pace = "" if rate is None else f", {rate:g} a second"
        consent(f"{many} will be {done}{pace}", yes=yes)
    count = run(_apply(verb, settings, [letter.id for letter in letters], rate))
    print(f"{done} {counted(count, 'dead letter')}")
    if count < len(letters):
        note(f"{len(letters) - count} of them were gone already")


async def _find(settings: Settings, choice: _Choice) -> Sequence[DeadLetter]:
    """The letters, oldest first; DeadLetterNotFound if an id has none, SubscriptionNotFound for an unknown name."""
    filters = choice.filters
    async with open_bus(settings) as bus:
        if choice.ids:
            return await all_named(bus.broker, choice.ids)
        await _check_name(bus, choice)
        return await bus.dead_letters.list(**filters, limit=choice.limit or _EVERY)


async def _grouped(settings: Settings, choice: _Choice) -> LetterGroups:
    filters = choice.filters
    async with open_bus(settings) as bus:
        await _check_name(bus, choice)
        return await bus.dead_letters.groups(**filters, limit=choice.limit or MOST_GROUPS)


async def _check_name(bus: EventBus, choice: _Choice) -> None:
    """SubscriptionNotFound for a misspelt one: it has no letters either, and must not look as if all were well."""
    if choice.subscription is not None:
        of_name(await bus.subscriptions(), choice.subscription)


async def _apply(verb: Verb, settings: Settings, ids: Sequence[str], rate: float | None) -> int:
    async with open_bus(settings) as bus:
        if verb == "discard":
            return await bus.dead_letters.discard(ids)
        with progress({"redelivering": "dead letters"}) as told:
            step = partial(_tell, told, len(ids))
            return await bus.dead_letters.redeliver(ids, rate=rate, progress=step)


def _tell(told: Told, total: int, tried: int, _done: int) -> None:
    told("redelivering", tried, tried / total)


def _fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for programs; times are Unix seconds, the event is its whole envelope."""
    return {name: getattr(letter, name) for name in letter.__struct_fields__} | {"event": Raw(encode(letter.event))}


def _group_row(group: LetterGroup) -> tuple[str, ...]:
    return (
        group.fingerprint,
        str(group.count),
        local_time(group.last),
        group.reason,
        ", ".join(group.subscriptions),
        ", ".join(group.topics),
        group.error,
    )


def _show_table(letters: Sequence[DeadLetter]) -> None:
    rows = (
        (
            letter.id,
            local_time(letter.time),
            letter.subscription,
            letter.event.topic,
            letter.reason,
            str(len(letter.attempts)),
            letter.error,
        )
        for letter in letters
    )
    table(_COLUMNS, rows, right={"ATTEMPTS"})


def _show_letter(letter: DeadLetter) -> None:
    text(f"dead letter {letter.id}", ())
    names = ("subscription", "reason", "error")
    facts([*((name, getattr(letter, name)) for name in names), ("buried", local_time(letter.time))])
    attempts = (f"{each.number}  {local_time(each.time)}  {each.error}" for each in letter.attempts)
    text("attempts", attempts if letter.attempts else ["none failed"])
    if letter.traceback:
        text("traceback", letter.traceback.splitlines())
    text("event", ())
    known = to_fields(letter.event)
    del known["payload"]
    facts((name, value) for name, value in known.items() if value not in (None, {}))
    text("payload", _lines(letter.event.payload))


def _lines(payload: dict[str, Any]) -> list[str]:
    return msgspec.json.format(msgspec.json.encode(payload), indent=2).decode().splitlines()
