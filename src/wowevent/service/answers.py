"""The shapes of what is asked and answered; GET /openapi.json describes them from here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.responses import Response

from wowevent.broker import Attempt, DeadLetter, Reason, Stored, SubscriptionInfo
from wowevent.codec import to_fields
from wowevent.dead_letter import LONGEST, LetterCount
from wowevent.errors import printable
from wowevent.fingerprint import PATTERN, LetterGroup, LetterGroups
from wowevent.holds import Pause
from wowevent.receipt import Receipt
from wowevent.roster import AgentInfo
from wowevent.schedule import ScheduleInfo
from wowevent.schema import EventSchema, SchemaBreak
from wowevent.storm import Limit, Step, Storm

_LINE_ENDS: Final = "\u2028\u2029\u0085"  # JSON escapes the others itself

EventFields = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/Event"})]
EventGiven = Annotated[dict[str, Any], Meta(extra_json_schema={"$ref": "#/components/schemas/EventIn"})]
PositionText = Annotated[
    str, Meta(description="A place in the log, as `after` takes it.", extra_json_schema={"example": "1f0c2a9e-42"})
]
UnixSeconds = Annotated[float, Meta(description="Unix seconds.")]


Fingerprint = Annotated[
    str, Meta(description="What letters died of: a group, as GET /dead-letters/groups names it.", pattern=PATTERN)
]
JobState = Literal["running", "paused", "done", "cancelled", "failed"]


class Failure(Struct):
    """Why something ended early."""

    error: Annotated[str, Meta(description="A stable code, as in problems.")]
    message: str


class ReceiptShown(Struct):
    """That the engine has one event, as durably as it promises."""

    event_id: str
    position: PositionText | None
    duplicate: Annotated[bool, Meta(description="An event of that id was there already; nothing was added.")]
    matched: Annotated[int, Meta(description="How many known subscriptions it goes to.")]
    unserved: Annotated[int, Meta(description="How many of those nobody serves now, as was known some seconds ago.")]


class Receipts(Struct):
    """One receipt an event, in their order."""

    receipts: list[ReceiptShown]


class StoredEvent(Struct):
    """One event of the log."""

    event: EventFields
    position: PositionText
    stored_at: UnixSeconds


class History(Struct):
    """A page of the log; `next`, if not null, goes on: with `?after=`, newest first with `?before=`."""

    events: list[StoredEvent]
    next: PositionText | None


class SchemaNamed(Struct):
    """The schema that a payload is held against now."""

    version: str


class DeliveryShown(Struct):
    """One delivery of an event to one subscription, as the process remembers it that made it."""

    subscription: str
    agent: str | None
    at: Annotated[float, Meta(description="When it was handed over, Unix seconds.")]
    seconds: Annotated[float, Meta(description="How long the handler took.")]
    attempt: Annotated[int, Meta(description="1 for the first.")]
    outcome: Annotated[
        Literal["acked", "retried", "dead", "dropped"],
        Meta(description="`dropped`: failed for good where no dead letters are kept."),
    ]
    error: Annotated[str | None, Meta(description="For who may see dead letters of its topic.")]
    process: str


class EventShown(Struct):
    """One event, and what became of it."""

    event: EventFields
    position: Annotated[PositionText | None, Meta(description="Null: only a dead letter has it any more.")]
    stored_at: float | None
    schema: SchemaNamed | None
    deliveries: Annotated[list[DeliveryShown], Meta(description="Of those that processes remember, the oldest first.")]
    dead_letters: Annotated[list[str], Meta(description="Their ids.")]
    matched: Annotated[list[str], Meta(description="The ids of the subscriptions that it matches now.")]


class LatencyShown(Struct):
    """How long handlers took within the last ten seconds."""

    p50: float
    p95: float
    p99: float


class SampleShown(Struct):
    """Events a second of all processes at one moment, and the p95 of seconds that handlers took."""

    at: UnixSeconds
    published: Annotated[float | None, Meta(description="Null, as the others: the other processes were not heard.")]
    delivered: float | None
    failed: float | None
    p95: float | None


class Overview(Struct):
    """All processes of the namespace together.

    Null is what is not known: numbers of the engine's if it does not answer, and those of the processes while they
    cannot be heard.
    """

    engine: str
    url: Annotated[str | None, Meta(description="Without credentials; for who administers.")]
    health: Literal["healthy", "unhealthy"]
    processes: Annotated[
        int | None, Meta(description="Those that were heard of in the last 6 seconds, this one included.")
    ]
    since: Annotated[float | None, Meta(description="When samples began to be taken, Unix seconds.")]
    published_per_second: float | None
    delivered_per_second: float | None
    failed_per_second: float | None
    latency: LatencyShown | None
    subscriptions: int | None
    ready: int | None
    leased: int | None
    delayed: int | None
    dead: int | None
    series: Annotated[list[SampleShown], Meta(description="One every 2 seconds, of 10 minutes at most.")]


class ConnectionShown(Struct):
    """One client of a router."""

    name: str | None
    address: str
    since: UnixSeconds
    subscriptions: int
    outbox_bytes: Annotated[int, Meta(description="What waits for it to read.")]


class RouterShown(Struct):
    """One router, as it said some seconds ago."""

    process: str
    host: Annotated[str | None, Meta(description="For who administers.")]
    clients: int
    named: Annotated[int, Meta(description="Named subscriptions that it serves.")]
    events_processed: Annotated[int, Meta(description="Published by its clients since it serves.")]
    since: UnixSeconds
    connections: Annotated[list[ConnectionShown] | None, Meta(description="Null of routers in other processes.")]


class Routers(Struct):
    """The routers of the namespace, by process."""

    routers: list[RouterShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


class TopicShown(Struct):
    """What was published on one topic, of the events that were looked at."""

    topic: str
    count: int
    event_types: Annotated[list[str], Meta(description="What happened there, by name.")]
    last_position: PositionText
    last_stored_at: UnixSeconds


class Topics(Struct):
    """The topics of the last events of the log, by name; `events` is the sum of their counts."""

    topics: list[TopicShown]
    events: int


class Wishes(Struct):
    """What a subscription wants of the topics it matches; null is no wish."""

    types: list[str] | None
    priorities: list[int] | None
    sources: list[str] | None


class SubscriptionShown(Struct):
    """One subscription as the engine sees it now; a number is null where the engine cannot tell it."""

    id: str
    agent: str | None
    durable: Annotated[bool, Meta(description="False: it is live, nothing is kept for it.")]
    patterns: list[str]
    filter: Wishes | None
    ready: int
    leased: int | None
    delayed: int | None
    dead: int
    consumers: int
    oldest: Annotated[float | None, Meta(description="Seconds since the oldest unsettled event was stored.")]
    lost: Annotated[int | None, Meta(description="Unread events that were dropped and not yet reported.")]
    lapsed: Annotated[bool, Meta(description="Unserved for too long: nothing is kept for it until it is served again.")]
    paused: Annotated[bool, Meta(description="By hand, itself, its agent or everything: nobody is given its events.")]
    delivered_per_second: Annotated[
        float | None,
        Meta(
            description="Of the last 5 to 10 seconds, in all processes, as are the next two. Null where `rates` was "
            "not asked for, of a live one, and where a process has more subscriptions at work than it names."
        ),
    ]
    failed_per_second: Annotated[float | None, Meta(description="Each attempt counts.")]
    error_rate: Annotated[float | None, Meta(description="The fraction that failed; 0 where nothing came.")]


class Subscriptions(Struct):
    """All that the engine remembers, and the live ones that are there now, by id."""

    subscriptions: list[SubscriptionShown]


class Agents(Struct):
    """Who is there or has a subscription that is remembered, by name."""

    agents: list[AgentInfo]


class PauseChoice(Struct, forbid_unknown_fields=True, kw_only=True):
    """What is meant; exactly one of these has to be given."""

    name: Annotated[str | None, Meta(description="A subscription, or an agent: those that it has now.")] = None
    agent: Annotated[str | None, Meta(description="All of an agent's, those made later too.")] = None
    topic: Annotated[str | None, Meta(description="Events on the topics that this pattern matches.")] = None
    correlation_id: Annotated[str | None, Meta(description="Events of one conversation.")] = None
    everything: bool = False


class PauseOrder(PauseChoice, forbid_unknown_fields=True, kw_only=True):
    """What is to be paused, and for how long; without an end until it is resumed."""

    until: Annotated[str | None, Meta(description="ISO 8601; naive is UTC.")] = None
    seconds: Annotated[float, Meta(description="From now; excludes `until`.", gt=0)] | None = None
    reason: Annotated[str, Meta(max_length=500)] = ""


class PauseShown(Struct):
    """One pause that is in force."""

    scope: Literal["subscription", "agent", "topic", "conversation", "everything"]
    name: Annotated[str, Meta(description="An id, an agent, a pattern; empty for everything.")]
    since: UnixSeconds
    until: Annotated[float | None, Meta(description="Unix seconds; null: until it is resumed.")]
    reason: str
    by: Annotated[str, Meta(description="Who asked for it, by the token's name; empty where nobody is known.")]


class Pauses(Struct):
    """Pauses, by scope and name."""

    pauses: list[PauseShown]


class Purged(Struct):
    """How many events were dropped."""

    purged: int


class DeadLetterShown(Struct):
    """One event that one subscription could not handle."""

    id: str
    event: EventFields
    subscription: str
    reason: Reason
    error: str
    traceback: str
    attempts: list[Attempt]
    time: UnixSeconds


class DeadLetters(Struct):
    """Dead letters, oldest first; `more` says whether there are others behind the limit."""

    dead_letters: list[DeadLetterShown]
    more: bool


class Span(Struct):
    """From the least to the most."""

    least: int
    most: int


class LetterGroupShown(Struct):
    """Dead letters that died of the same."""

    fingerprint: Fingerprint
    count: int
    reason: Reason
    error: Annotated[str, Meta(description="Of the newest.")]
    traceback: Annotated[str, Meta(description="Of the newest; its end, where it is long.")]
    subscriptions: Annotated[list[str], Meta(description="Where they died, the most first; 100 at most.")]
    topics: Annotated[list[str], Meta(description="Of their events, the most first; 100 at most.")]
    first: Annotated[float, Meta(description="When the oldest was buried, Unix seconds.")]
    last: Annotated[float, Meta(description="When the newest was buried, Unix seconds.")]
    attempts: Annotated[Span, Meta(description="How many failed at one of them.")]
    newest: Annotated[str, Meta(description="A dead letter.")]
    ids: Annotated[list[str], Meta(description="The newest hundred, the newest first.")]


class LetterGroupsShown(Struct):
    """Dead letters by what they died of, the largest group first; `more` says that groups were left out."""

    groups: list[LetterGroupShown]
    more: bool


class Choice(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters: `ids`, or filters, of which at least one must be given."""

    ids: list[str] | None = None
    subscription: Annotated[str | None, Meta(description="An id, or the name of an agent.")] = None
    reason: Reason | None = None
    event_id: str | None = None
    correlation_id: str | None = None
    fingerprint: Fingerprint | None = None


class DiscardOrder(Choice, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to forget."""

    dry_run: Annotated[bool, Meta(description="Only say how many, and change nothing.")] = False


class RedeliverOrder(DiscardOrder, forbid_unknown_fields=True, kw_only=True):
    """Which dead letters to hand to their subscriptions again, and how fast."""

    rate: Annotated[float, Meta(gt=0, le=10_000, description="So many a second at most, in the background.")] | None = (
        None
    )


class LetterCountShown(Struct):
    """How many dead letters it would be."""

    count: int
    by_subscription: dict[str, int]


class RedeliveryShown(Struct):
    """Dead letters that are handed to their subscriptions again at a rate, as far as that is now."""

    id: str
    process: Annotated[str, Meta(description="The id of the process that has it; it ends with that.")]
    state: JobState
    order: Annotated[RedeliverOrder, Meta(description="Without the ids, of which `total` says how many there were.")]
    total: Annotated[int, Meta(description="How many fitted when it began; those that come later are left alone.")]
    redelivered: int
    gone: Annotated[int, Meta(description="How many somebody else had taken.")]
    rate: Annotated[float, Meta(description="A second, at most.")]
    started_at: UnixSeconds
    ended_at: Annotated[float | None, Meta(description="Unix seconds.")]
    failure: Failure | None


class Redeliveries(Struct):
    """The redeliveries of all processes, the newest first."""

    redeliveries: list[RedeliveryShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


class ResendOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the event of a dead letter should have said."""

    payload: dict[str, Any]
    reason: Annotated[str, Meta(max_length=LONGEST, description="Why, for the audit log and the event.")] = ""


class Resent(Struct):
    """That the letter's subscription, and nobody else, gets a corrected event."""

    event_id: Annotated[str, Meta(description="Of the new event.")]
    replaces: Annotated[str, Meta(description="The id of the event that could not be handled.")]
    duplicate: Annotated[bool, Meta(description="It had been sent before, as it was then; nothing was added.")]


class Redelivered(Struct):
    """How many were handed to their subscriptions again."""

    redelivered: int


class Discarded(Struct):
    """How many were forgotten."""

    discarded: int


class StormShown(Struct):
    """One conversation that went too far, and is parked."""

    id: Annotated[str, Meta(description="The event that it began with.")]
    correlation_id: Annotated[str, Meta(description="Of the event that was beyond the limit.")]
    limit: Limit
    most: Annotated[int, Meta(description="How much the limit allows.")]
    path: Annotated[list[Step], Meta(description="The way to that event, in the order of the first visits.")]
    since: UnixSeconds
    who: Annotated[str, Meta(description="Who would have handled that event; of `max_events` who published it.")]
    why: Annotated[str, Meta(description="All of it in a sentence.")]


class StormsShown(Struct):
    """The conversations that are parked, the oldest first."""

    storms: list[StormShown]


class Released(Struct):
    """The conversations that are parked no longer."""

    released: list[StormShown]


class ReplayOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which events of the log to publish again, into which topic, and how fast."""

    topic: Annotated[str, Meta(description="Where the new events go.")]
    pattern: str | list[str] | None = None
    start_time: Annotated[str | None, Meta(description="ISO 8601; naive is UTC. Ends are included.")] = None
    end_time: str | None = None
    correlation_id: str | None = None
    event_ids: list[str] | None = None
    speed_multiplier: Annotated[
        float, Meta(ge=0, description="0 is at once, 1 as far apart as they were, 2 twice as fast.")
    ] = 0.0
    max_events: Annotated[int, Meta(description="At most so many.", ge=0, le=2**63 - 1)] | None = None


class ReplayShown(Struct):
    """One replay as it is now."""

    id: str
    process: Annotated[str, Meta(description="The id of the process that has it; it ends with that.")]
    state: JobState
    order: ReplayOrder
    replayed: Annotated[int, Meta(description="How many events were published again.")]
    position: Annotated[PositionText | None, Meta(description="That of the last event that was published again.")]
    end: Annotated[PositionText, Meta(description="Where the log ended when the replay began, and it ends.")]
    started_at: UnixSeconds
    ended_at: Annotated[float | None, Meta(description="Unix seconds.")]
    failure: Failure | None


class Replays(Struct):
    """The replays of all processes, the newest first."""

    replays: list[ReplayShown]
    complete: Annotated[bool, Meta(description="False: other processes cannot be heard now.")]


class SchemaOrder(Struct, forbid_unknown_fields=True):
    """A JSON Schema for the payloads of an event type, as one version of it."""

    event_type: str
    version: Annotated[str, Meta(description="MAJOR, MAJOR.MINOR or MAJOR.MINOR.PATCH, compared as numbers.")]
    json_schema: Annotated[dict[str, Any], Meta(description="Drafts 4 to 2020-12, by its `$schema`.")]
    description: str = ""


class SchemaShown(Struct):
    """One schema that is registered."""

    event_type: str
    version: str
    json_schema: dict[str, Any]
    description: str


class Schemas(Struct):
    """What is registered: by type, and by version from the oldest."""

    schemas: list[SchemaShown]


class BreakShown(Struct):
    """One way in which a schema refuses what its neighbour accepts."""

    path: Annotated[str, Meta(description="Such as `payload.items.*.price`.")]
    what: Annotated[str, Meta(description="The keyword, or `schema`, `alternative`, `property`.")]
    old: str
    new: str
    certain: Annotated[bool, Meta(description="False: it could not be decided whether it is one.")]


class SchemaReport(Struct):
    """Whether a schema could stand among those that are registered without refusing what they accept."""

    compatible: bool
    breaks: list[BreakShown]


class ScheduleOrder(Struct, forbid_unknown_fields=True, kw_only=True):
    """What to fire, and when: `every` so many seconds, or when `cron` says so by the clocks of `tz`."""

    event: Annotated[EventGiven, Meta(description="Each firing has an id and a time of its own.")]
    every: Annotated[float, Meta(ge=1, description="Seconds between two firings.")] | None = None
    cron: Annotated[str, Meta(description="Such as `30 2 * * mon-fri`.")] | None = None
    tz: Annotated[str, Meta(description="A time zone such as `Europe/Berlin`.")] = "UTC"
    start: Annotated[str | None, Meta(description="ISO 8601; naive is UTC. Nothing is fired before.")] = None
    until: Annotated[str | None, Meta(description="Nothing is fired behind it.")] = None


class ScheduleShown(Struct):
    """One schedule as it is now."""

    name: str
    event: EventFields
    every: float | None
    cron: str | None
    tz: str
    start: datetime | None
    until: datetime | None
    added: datetime
    next: Annotated[datetime | None, Meta(description="When it fires next; null once it never will again.")]
    last: Annotated[datetime | None, Meta(description="When it fired last, as far as is known.")]


class Schedules(Struct):
    """All that may be seen, by name."""

    schedules: list[ScheduleShown]


class Problem(Struct, omit_defaults=True):
    """What went wrong, by RFC 9457; `error` and `message` say the same as `type` and `detail`, shorter."""

    type: Annotated[str, Meta(description="Stable: `urn:wowevent:error:` and the code.")]
    title: str
    status: int
    detail: str
    error: Annotated[str, Meta(description="The code of the error, stable.")]
    message: str
    lost: Annotated[int | UnsetType, Meta(description="How many events are gone, where that is known.")] = UNSET
    errors: Annotated[
        list[str] | UnsetType, Meta(description="Every wrong field, or every break of a schema, a line each.")
    ] = UNSET


def answer(body: Struct, status: int = 200, **headers: str) -> Response:
    """One of these shapes as JSON."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def line(body: Struct) -> bytes:
    """One of these shapes as JSON in one line, also to readers that take more than CR and LF for its end."""
    text = msgspec.json.encode(body)
    for character in _LINE_ENDS:
        text = text.replace(character.encode(), b"\\u%04x" % ord(character))
    return text


def shown_receipt(receipt: Receipt) -> ReceiptShown:
    """A receipt for outside."""
    position = None if receipt.position is None else str(receipt.position)
    return ReceiptShown(receipt.event_id, position, receipt.duplicate, receipt.matched, len(receipt.unserved))


def shown_stored(stored: Stored) -> StoredEvent:
    """An event of the log for outside."""
    return StoredEvent(to_fields(stored.event), str(stored.position), stored.stored_at)


def shown_subscription(
    info: SubscriptionInfo, *, paused: bool, rate: tuple[float, float] | None = None
) -> SubscriptionShown:
    """A subscription for outside; `rate` is how much it gets and fails at a second, where that is known."""
    spec = info.subscription
    wish = spec.filter
    delivered, failed = rate or (None, None)
    return SubscriptionShown(
        id=spec.id,
        agent=spec.agent or None,
        durable=spec.durable,
        patterns=list(spec.patterns),
        filter=None if wish is None else Wishes(_sorted(wish.types), _sorted(wish.priorities), _sorted(wish.sources)),
        ready=info.ready,
        leased=info.leased,
        delayed=info.delayed,
        dead=info.dead,
        consumers=info.consumers,
        oldest=info.oldest,
        lost=info.lost,
        lapsed=info.lapsed,
        paused=paused,
        delivered_per_second=delivered,
        failed_per_second=failed,
        error_rate=None if rate is None else rate[1] / (sum(rate) or 1.0),
    )


def shown_pauses(pauses: Sequence[Pause]) -> Pauses:
    """Pauses for outside."""
    return Pauses([PauseShown(p.scope, p.name, p.since, p.until, printable(p.reason), printable(p.by)) for p in pauses])


def shown_letter(letter: DeadLetter) -> DeadLetterShown:
    """A dead letter for outside."""
    return DeadLetterShown(
        id=letter.id,
        event=to_fields(letter.event),
        subscription=letter.subscription,
        reason=letter.reason,
        error=printable(letter.error),
        traceback=printable(letter.traceback),
        attempts=[Attempt(each.number, each.time, printable(each.error)) for each in letter.attempts],
        time=letter.time,
    )


def shown_groups(found: LetterGroups) -> LetterGroupsShown:
    """Groups of dead letters for outside."""
    return LetterGroupsShown([_shown_group(group) for group in found.groups], found.more)


def _shown_group(group: LetterGroup) -> LetterGroupShown:
    return LetterGroupShown(
        fingerprint=group.fingerprint,
        count=group.count,
        reason=group.reason,
        error=group.error,
        traceback=group.traceback,
        subscriptions=list(group.subscriptions),
        topics=list(group.topics),
        first=group.first,
        last=group.last,
        attempts=Span(group.least, group.most),
        newest=group.newest,
        ids=list(group.ids),
    )


def shown_count(found: LetterCount) -> LetterCountShown:
    """A count of dead letters for outside."""
    return LetterCountShown(found.count, found.by_subscription)


def shown_storm(storm: Storm) -> StormShown:
    """A storm for outside."""
    return StormShown(
        id=storm.id,
        correlation_id=storm.correlation_id,
        limit=storm.limit,
        most=storm.most,
        path=list(storm.path),
        since=storm.since,
        who=storm.who,
        why=storm.why,
    )


def shown_schema(schema: EventSchema) -> SchemaShown:
    """A schema for outside."""
    return SchemaShown(schema.event_type, schema.version, schema.json_schema, schema.description)


def shown_schedule(info: ScheduleInfo) -> ScheduleShown:
    """A schedule for outside."""
    return ScheduleShown(
        name=info.name,
        event=to_fields(info.event),
        every=info.every,
        cron=info.cron,
        tz=info.tz,
        start=info.start,
        until=info.until,
        added=info.added,
        next=info.next,
        last=info.last,
    )


def shown_breaks(breaks: Sequence[SchemaBreak]) -> SchemaReport:
    """The breaks of a schema for outside."""
    shown = [BreakShown(each.path, each.what, each.old, each.new, each.certain) for each in breaks]
    return SchemaReport(compatible=not shown, breaks=shown)


def _sorted(values: frozenset[Any] | None) -> list[Any] | None:
    return None if values is None else sorted(values)
