"""`wowevent dlq`: the dead letters: list, show, redeliver, discard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
import typer
from msgspec import Raw, Struct

from wowevent.broker import DeadLetter, DeadQuery, Reason
from wowevent.bus import EventBus
from wowevent.cli.consent import Yes, consent
from wowevent.cli.engine import Namespace, Url, note, open_bus, settle
from wowevent.cli.exits import CommandError
from wowevent.cli.show import counted, facts, local_time, print_json, table, text
from wowevent.cli.subscriptions import of_name
from wowevent.codec import encode, to_fields
from wowevent.errors import shown
from wowevent.event import check_name
from wowevent.service.loop import run
from wowevent.settings import Settings

_EVERY: Final = 2**31  # letters: no limit
_TOGETHER: Final = 500  # letters of one call
_DONE: Final = {"redeliver": "redelivered", "discard": "discarded"}
_COLUMNS: Final = ("ID", "BURIED", "SUBSCRIPTION", "TOPIC", "REASON", "ATTEMPTS", "ERROR")

Verb = Literal["redeliver", "discard"]
Subscription = Annotated[str | None, typer.Option(help="Only those of this subscription, or agent.")]
Why = Annotated[Reason | None, typer.Option(help="Only those that died of this.")]
EventId = Annotated[str | None, typer.Option(help="Only those of this event.")]
Correlation = Annotated[str | None, typer.Option(help="Only what belongs together.")]
Ids = Annotated[list[str] | None, typer.Argument(help="Dead letters, as `dlq list` names them.")]
All = Annotated[bool, typer.Option("--all", help="Every dead letter there is.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say which ones, and leave them as they are.")]
Most = Annotated[int | None, typer.Option("--limit", "-n", min=1, help="The oldest so many of them.")]
Json = Annotated[bool, typer.Option("--json", help="Whole dead letters, one a line.")]

app: typer.Typer = typer.Typer(help="Look at dead letters, send them again, forget them.", no_args_is_help=True)


class _Choice(Struct, frozen=True, kw_only=True):
    """Which dead letters: those of these ids, or those that fit every filter."""

    ids: tuple[str, ...] = ()
    subscription: str | None = None
    reason: Reason | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    limit: int | None = None

    @property
    def filtered(self) -> bool:
        """Whether a filter was given; a limit is none."""
        return any((self.subscription, self.reason, self.event_id, self.correlation_id))


@app.command("list")
def list_some(  # noqa: PLR0917 - the options of a command
    subscription: Subscription = None,
    reason: Why = None,
    event_id: EventId = None,
    correlation_id: Correlation = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 100,
    json: Json = False,
    url: Url = None,
    namespace: Namespace = None,
) -> None:
    """Print dead letters, oldest first."""
    choice = _Choice(
        subscription=subscription, reason=reason, event_id=event_id, correlation_id=correlation_id, limit=limit + 1
    )
    letters = run(_find(settle(url=url, namespace=namespace), choice))
    if json:
        for letter in letters[:limit]:
            print_json(_fields(letter))
    else:
        _show_table(letters[:limit])
    if len(letters) > limit:
        note(f"there are more than these {limit}; --limit shows them")


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


def _command(verb: Verb) -> Callable[..., None]:
    """Redeliver and discard are asked for in the same words."""

    def command(  # noqa: PLR0917 - the options of a command
        ids: Ids = None,
        subscription: Subscription = None,
        reason: Why = None,
        event_id: EventId = None,
        correlation_id: Correlation = None,
        all: All = False,
        limit: Most = None,
        dry_run: DryRun = False,
        yes: Yes = False,
        url: Url = None,
        namespace: Namespace = None,
    ) -> None:
        choice = _Choice(
            ids=tuple(dict.fromkeys(ids or ())),
            subscription=subscription,
            reason=reason,
            event_id=event_id,
            correlation_id=correlation_id,
            limit=limit,
        )
        _check(verb, choice, all=all)
        _resolve(verb, settle(url=url, namespace=namespace), choice, dry_run=dry_run, yes=yes)

    return command


app.command("redeliver", help="Hand dead letters to their subscriptions again, with fresh attempts.")(
    _command("redeliver")
)
app.command("discard", help="Forget dead letters, with their events.")(_command("discard"))


def _check(verb: Verb, choice: _Choice, *, all: bool) -> None:
    """CommandError unless it is clear which letters are meant: by accident, nothing is sent and nothing forgotten."""
    if [bool(choice.ids), choice.filtered, all].count(True) != 1:
        raise CommandError("usage", f"{verb} wants ids, or filters such as --subscription, or --all: one of these")
    if choice.ids and choice.limit is not None:
        raise CommandError("usage", "--limit goes with filters and --all; ids are as many as they are")


def _resolve(verb: Verb, settings: Settings, choice: _Choice, *, dry_run: bool, yes: bool) -> None:
    """Ask, and do it to exactly those letters that were counted."""
    letters = run(_find(settings, choice))
    done, many = _DONE[verb], counted(len(letters), "dead letter")
    if dry_run:
        _show_table(letters)
        print(f"{many} would be {done}")
        return
    if letters:
        consent(f"{many} will be {done}", yes=yes)
    count = run(_apply(verb, settings, [letter.id for letter in letters]))
    print(f"{done} {counted(count, 'dead letter')}")
    if count < len(letters):
        note(f"{len(letters) - count} of them were gone already")


async def _find(settings: Settings, choice: _Choice) -> Sequence[DeadLetter]:
    """The letters, oldest first; CommandError if an id has none, SubscriptionNotFound for an unknown name."""
    for name in (choice.event_id, choice.correlation_id):
        if name is not None:
            check_name(name)
    async with open_bus(settings) as bus:
        if choice.ids:
            return await _named(bus, choice.ids)
        if choice.subscription is not None:  # a misspelt one has none either, and must not look as if all were well
            of_name(await bus.subscriptions(), choice.subscription)
        return await bus.dead_letters.list(
            subscription=choice.subscription,
            reason=choice.reason,
            event_id=choice.event_id,
            correlation_id=choice.correlation_id,
            limit=choice.limit or _EVERY,
        )


async def _named(bus: EventBus, ids: Sequence[str]) -> list[DeadLetter]:
    """The letters of these ids, all of them."""
    parts = [tuple(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)]
    found = [await bus.broker.dead(DeadQuery(ids=part, limit=_TOGETHER)) for part in parts]
    there = {letter.id: letter for letters in found for letter in letters}
    if missing := [id for id in ids if id not in there]:
        raise CommandError("dead_letter_not_found", f"there is no dead letter {', '.join(map(shown, missing))}")
    return [there[id] for id in ids]


async def _apply(verb: Verb, settings: Settings, ids: Sequence[str]) -> int:
    async with open_bus(settings) as bus:
        call: Callable[..., Any] = bus.dead_letters.redeliver if verb == "redeliver" else bus.dead_letters.discard
        return sum([await call(ids[start : start + _TOGETHER]) for start in range(0, len(ids), _TOGETHER)])


def _fields(letter: DeadLetter) -> dict[str, Any]:
    """A dead letter for programs; times are Unix seconds, the event is its whole envelope."""
    return {name: getattr(letter, name) for name in letter.__struct_fields__} | {"event": Raw(encode(letter.event))}


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
    text("payload", msgspec.json.format(bytes(memoryview(letter.event.body)), indent=2).decode().splitlines())
