"""Every path and method of the service, in one table: what it calls, what it takes, what it answers.

The application is made of it, and so is GET /openapi.json; a query parameter that does not stand here is refused.
"""

from __future__ import annotations

from typing import Any, Final

from wowevent.broker import Reason
from wowevent.causation import MOST
from wowevent.conversation import Conversation
from wowevent.fingerprint import MOST as MOST_GROUPS
from wowevent.fingerprint import PATTERN
from wowevent.rewind import LOOKED, PATIENCE
from wowevent.service import (
    agents,
    answers,
    conversations,
    dead_letters,
    event,
    events,
    exposition,
    health,
    intake,
    metrics,
    overview,
    pauses,
    redeliveries,
    replays,
    schedules,
    schemas,
    selection,
    storms,
    stream,
    subscriptions,
    topics,
)
from wowevent.service.access import ANYBODY
from wowevent.service.operation import Body, Operation, Parameter, Schema

_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "description": "ISO 8601; naive is UTC."}
_LEVEL: Final[Schema] = {"type": "string", "pattern": "^([1-9]|10|[A-Za-z]+)$"}


def _several(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _limit(about: str, **more: int) -> Parameter:
    return Parameter("limit", about, {"type": "integer", "minimum": 1, "default": 100, **more})


def _json(shape: Any) -> dict[str, Any]:
    return {intake.JSON: shape}


_PATTERN: Final = Parameter("pattern", "Topics such as `task.*`; may be given several times.", _several(_TEXT))
_AFTER: Final = Parameter("after", "A position: what lies behind it.")
_RATES: Final = Parameter(
    "rates", "With how much each gets and fails at a second in all processes together; the first such request of a "
    "process takes 1.5 s.", {"type": "boolean", "default": False},
)  # fmt: skip
_CORRELATION: Final = Parameter("correlation_id", "What belongs together.")
_REASONS: Final[Schema] = {"type": "string", "enum": [reason.value for reason in Reason]}
_WHICH: Final = (
    Parameter("subscription", "Of this subscription, or of this agent's."),
    Parameter("reason", "Only those that died of this.", _REASONS),
    Parameter("event_id", "Only those of this event."),
    _CORRELATION,
    Parameter("fingerprint", "Only those of this group.", {"type": "string", "pattern": PATTERN}),
)
_EVENT: Final[Schema] = {"$ref": "#/components/schemas/EventIn"}
_CLOUD: Final[Schema] = {"$ref": "#/components/schemas/CloudEvent"}
_ONE: Final[Schema] = {"anyOf": [_EVENT, _CLOUD]}
_HEALTH: Final[Schema] = {"$ref": "#/components/schemas/Health"}
_READY: Final[Schema] = {"$ref": "#/components/schemas/Ready"}
_LIVE: Final[Schema] = {"$ref": "#/components/schemas/Live"}
_LOOK: Final = ("subscribe", "admin")
_ADMIN: Final = ("admin",)
_LETTERS: Final = ("dead_letters",)
_STORMS: Final = ("dead_letters", "admin")
_NOTHING: Final = Body(_json({"type": "object", "maxProperties": 0}), required=False)
_SUBSCRIPTION: Final = "/subscriptions/{id:path}"
_LETTER: Final = "/dead-letters/{id}"
_REDELIVERY: Final = "/redeliveries/{id}"
_REPLAY: Final = "/replays/{id}"
_SCHEMA: Final = "/schemas/{event_type}"
_SCHEDULE: Final = "/schedules/{name:path}"
_SCHEDULES: Final = ("publish", "admin")

OPERATIONS: Final = (
    Operation(
        method="GET", path="/health", call=health.health, about="Is everything well? Always open.", open=True,
        content=_json(_HEALTH), others={503: _json(_HEALTH)}, rights=ANYBODY,
    ),
    Operation(
        method="GET", path="/live", call=health.live, about="Does the process serve? Always open.", open=True,
        content=_json(_LIVE), rights=ANYBODY,
    ),
    Operation(
        method="GET", path="/ready", call=health.ready, about="May traffic come? Always open.", open=True,
        content=_json(_READY), others={503: _json(_READY)}, rights=ANYBODY,
    ),
    Operation(
        method="GET", path="/metrics", call=metrics.metrics, rights=ANYBODY,
        about="What this process published and delivered, and how fast and how well: JSON, or for Prometheus its text.",
        content={**_json(metrics.Metrics), exposition.TEXT: _TEXT, exposition.OPENMETRICS: _TEXT},
    ),
    Operation(
        method="POST", path="/events", call=events.publish, about="Publish one event, or several in their order.",
        rights=("publish",),
        status=202, content=_json(answers.Receipts), problems=(409, 413, 415, 422, 507),
        parameters=(
            Parameter("delay", "Seconds after which they are sent.", {"type": "number", "minimum": 0}),
            Parameter("at", "When they are sent; excludes delay.", _TIME),
            Parameter(
                "Idempotency-Key", "Of this request alone: it may be sent again with the same one. 1 to 255 printable "
                "ASCII characters, quoted or bare; 409 while it is under way, 422 before another request.",
                {"type": "string", "minLength": 1, "maxLength": 512}, place="header",
            ),
            Parameter(
                "traceparent", "The trace (W3C Trace Context) of each event that names none. A malformed one is "
                "ignored, and so is `tracestate`.", place="header",
            ),
        ),
        body=Body({
            intake.JSON: {"anyOf": [_EVENT, _CLOUD, {"type": "array", "minItems": 1, "items": _ONE}]},
            intake.CLOUD: _CLOUD,
            intake.CLOUD_BATCH: {"type": "array", "minItems": 1, "items": _CLOUD},
        }),
    ),
    Operation(
        method="GET", path="/events", call=events.history,
        about="The history, oldest or newest first; as NDJSON all of it, oldest first.",
        rights=("replay",),
        content={**_json(events.History), events.NDJSON: answers.StoredEvent}, problems=(410,),
        parameters=(
            _PATTERN,
            Parameter("start_time", "Events from then on, by their own time.", _TIME),
            Parameter("end_time", "Events up to then, by their own time.", _TIME),
            _CORRELATION, _AFTER, _limit(f"At most so many: {events.MOST} as JSON, any number as NDJSON."),
            Parameter(
                "order", f"Which come first. Newest first, a page looks at {LOOKED:,} places of the log at most, and "
                f"for {PATIENCE:.0f} s: one with fewer events than `limit` is the last one only where `next` is null.",
                {"type": "string", "enum": list(events.ORDERS), "default": events.ORDERS[0]},
            ),
            Parameter("before", "A position: what lies before it."),
            Parameter("stored_from", "What was stored from then on, by the engine's clock.", _TIME),
            Parameter("stored_until", "What was stored up to then, by the engine's clock.", _TIME),
        ),
    ),
    Operation(
        method="GET", path="/events/stream", call=stream.stream, rights=("subscribe",), problems=(429,),
        about="Server-Sent Events: what is published, live, or behind a position first. An event is a `message` whose "
        "data is as in GET /events; `reset` (data: lost, message) says that the log no longer holds what lay here.",
        content={stream.MEDIA_TYPE: _TEXT},
        parameters=(
            _PATTERN,
            Parameter("types", "Only these event types.", _several(_TEXT)),
            Parameter("priorities", "Only these levels, each widened to its band.", _several(_LEVEL)),
            Parameter("min_priority", "Only this level and above: 1 to 10, or a name.", _LEVEL),
            Parameter("sources", "Only of these sources.", _several(_TEXT)),
            Parameter(
                "max_rate", "At most so many events a second, the newest; `skipped` (data: skipped) says how many were "
                "left out since the last one.", {"type": "integer", "minimum": 1, "maximum": stream.FASTEST},
            ),
            _AFTER,
            Parameter("Last-Event-ID", "As `after`, and wins over it: what EventSource sends.", place="header"),
        ),
    ),
    Operation(
        method="GET", path="/events/{id:path}", call=event.event, rights=("replay",), problems=(404,),
        about="One event: its schema, who got it and when, its dead letters. It takes 1.5 s to ask other processes.",
        content=_json(event.EventShown),
    ),
    Operation(
        method="GET", path="/conversations/{id:path}", call=conversations.conversation, rights=("replay",),
        about="The conversation of an event or of a correlation id, as a tree: who caused what, when, and what failed.",
        content=_json(Conversation), problems=(404,),
        parameters=(_limit("At most so many events.", maximum=MOST, default=MOST),),
    ),
    Operation(
        method="GET", path="/topics", call=topics.topics, rights=("replay",), content=_json(topics.Topics),
        about="What was published lately, by topic: counted over the last places of the log, whoever published.",
        parameters=(
            _PATTERN,
            Parameter(
                "last", "How many places of the log to look at, from its end.",
                {"type": "integer", "minimum": 1, "maximum": topics.MOST, "default": topics.USUAL},
            ),
        ),
    ),
    Operation(
        method="GET", path="/overview", call=overview.overview, rights=_LOOK, content=_json(overview.Overview),
        about="Rates, latencies and backlog of all processes together; the first request of a process takes 1.5 s.",
    ),
    Operation(
        method="GET", path="/routers", call=overview.routers, rights=_LOOK, content=_json(overview.Routers),
        about="The routers of all processes; of those of this process, their clients.",
    ),
    Operation(
        method="GET", path="/agents", call=agents.agents, rights=_LOOK, content=_json(agents.Agents),
        about="Who is there, what it hears and what it publishes; the first request of a process takes 1.5 s.",
    ),
    Operation(
        method="GET", path="/subscriptions", call=subscriptions.subscriptions, rights=_LOOK, parameters=(_RATES,),
        about="What the engine remembers, and who listens live.", content=_json(subscriptions.Subscriptions),
    ),
    Operation(
        method="POST", path=f"{_SUBSCRIPTION}/purge", call=subscriptions.purge, rights=_ADMIN, body=_NOTHING,
        about="Drop what is ready; what is leased, delayed or dead stays.",
        content=_json(subscriptions.Purged), problems=(404, 409, 413, 415),
    ),
    Operation(
        method="POST", path=f"{_SUBSCRIPTION}/pause", call=subscriptions.pause, rights=_ADMIN, body=_NOTHING,
        about="Give nobody its events until it is resumed; they wait. What is being handled is finished.",
        content=_json(subscriptions.SubscriptionShown), problems=(404, 409, 413, 415),
    ),
    Operation(
        method="POST", path=f"{_SUBSCRIPTION}/resume", call=subscriptions.resume, rights=_ADMIN, body=_NOTHING,
        about="Go on with a subscription that was paused by hand.",
        content=_json(subscriptions.SubscriptionShown), problems=(404, 409, 413, 415),
    ),
    Operation(
        method="GET", path=_SUBSCRIPTION, call=subscriptions.subscription, about="One subscription and its numbers.",
        rights=_LOOK, parameters=(_RATES,),
        content=_json(subscriptions.SubscriptionShown), problems=(404,),
    ),
    Operation(
        method="DELETE", path=_SUBSCRIPTION, call=subscriptions.remove, rights=_ADMIN, status=204, problems=(404, 409),
        about="Forget a subscription, with its backlog and its dead letters.",
    ),
    Operation(
        method="GET", path="/pauses", call=pauses.pauses, rights=_LOOK, content=_json(pauses.Pauses),
        about="What is paused by hand, or by a handler that asked for it.",
    ),
    Operation(
        method="POST", path="/pauses", call=pauses.pause, rights=_ADMIN, body=Body(_json(pauses.PauseOrder)),
        about="Hand out nothing of a subscription, an agent, a topic, a conversation or everything, in any process.",
        content=_json(pauses.Pauses), problems=(404, 409, 413, 415, 507),
    ),
    Operation(
        method="POST", path="/pauses/resume", call=pauses.resume, rights=_ADMIN, body=Body(_json(pauses.PauseChoice)),
        about="Undo a pause; each ends for itself.",
        content=_json(pauses.Pauses), problems=(404, 409, 413, 415, 507),
    ),
    Operation(
        method="GET", path="/dead-letters", call=dead_letters.dead_letters, about="Dead letters, oldest first.",
        rights=_LETTERS,
        content=_json(dead_letters.DeadLetters), problems=(404,),
        parameters=(*_WHICH, _limit("At most so many.", maximum=dead_letters.MOST)),
    ),
    Operation(
        method="GET", path="/dead-letters/groups", call=dead_letters.groups, rights=_LETTERS, problems=(404,),
        about="Dead letters by what they died of: one group for an error, whatever the numbers and names in its text.",
        content=_json(dead_letters.LetterGroupsShown),
        parameters=(*_WHICH, _limit("At most so many groups.", maximum=MOST_GROUPS)),
    ),
    Operation(
        method="POST", path="/dead-letters/redeliver", call=dead_letters.redeliver_several, rights=_LETTERS,
        about="Hand several to their subscriptions again: at once, or with `rate` in the background. `dry_run` only "
        "says how many.",
        body=Body(_json(selection.RedeliverOrder)),
        content=_json((dead_letters.Redelivered, dead_letters.LetterCountShown)),
        others={202: _json(redeliveries.RedeliveryShown)}, problems=(404, 413, 415, 507),
    ),
    Operation(
        method="POST", path="/dead-letters/discard", call=dead_letters.discard_several, rights=_LETTERS,
        about="Forget several. `dry_run` only says how many.", body=Body(_json(selection.DiscardOrder)),
        content=_json((dead_letters.Discarded, dead_letters.LetterCountShown)), problems=(404, 413, 415),
    ),
    Operation(
        method="GET", path=_LETTER, call=dead_letters.dead_letter, rights=_LETTERS, about="One dead letter.",
        content=_json(dead_letters.DeadLetterShown), problems=(404,),
    ),
    Operation(
        method="DELETE", path=_LETTER, call=dead_letters.discard, about="Forget it.", status=204, problems=(404,),
        rights=_LETTERS,
    ),
    Operation(
        method="POST", path=f"{_LETTER}/redeliver", call=dead_letters.redeliver, rights=_LETTERS, body=_NOTHING,
        about="Hand it to its subscription again, with fresh attempts.",
        content=_json(dead_letters.Redelivered), problems=(404, 413, 415, 507),
    ),
    Operation(
        method="POST", path=f"{_LETTER}/resend", call=dead_letters.resend, rights=_LETTERS,
        about="Send its event again with another payload, to its subscription alone; the letter goes. Needs `publish` "
        "on the topic, too.",
        body=Body(_json(dead_letters.ResendOrder)), content=_json(dead_letters.Resent),
        problems=(404, 409, 413, 415, 507),
    ),
    Operation(
        method="GET", path="/redeliveries", call=redeliveries.redeliveries, rights=_LETTERS,
        about="The redeliveries at a rate of all processes, the newest first.",
        content=_json(redeliveries.Redeliveries),
    ),
    Operation(
        method="GET", path=_REDELIVERY, call=redeliveries.redelivery, rights=_LETTERS, problems=(404,),
        about="How far a redelivery is.", content=_json(redeliveries.RedeliveryShown),
    ),
    Operation(
        method="DELETE", path=_REDELIVERY, call=redeliveries.cancel, rights=_LETTERS, problems=(404, 409),
        about="Cancel a redelivery; it has ended when this is answered. One that had ended stays as it is.",
        content=_json(redeliveries.RedeliveryShown),
    ),
    Operation(
        method="GET", path="/storms", call=storms.storms, rights=_STORMS, content=_json(storms.StormsShown),
        about="The conversations that went too far: all that belongs to them goes to the dead letters.",
    ),
    Operation(
        method="POST", path="/storms/{id:path}/release", call=storms.release, rights=_ADMIN, body=_NOTHING,
        about="Let a conversation go on, by the event that it began with or by its correlation, as far again as it "
        "went. What was buried of it stays with the dead letters.",
        content=_json(storms.Released), problems=(404, 413, 415, 507),
    ),
    Operation(
        method="POST", path="/replays", call=replays.start, status=202, body=Body(_json(replays.ReplayOrder)),
        rights=("replay",),
        about="Publish a range of the log again, into a topic, as new events with `replay_of`; in the background.",
        content=_json(replays.ReplayShown), problems=(413, 415, 429), headers={"Location": "Where to look at it."},
    ),
    Operation(
        method="GET", path="/replays", call=replays.replays, about="The replays of all processes, the newest first.",
        rights=("replay",),
        content=_json(replays.Replays),
    ),
    Operation(
        method="GET", path=_REPLAY, call=replays.replay, rights=("replay",), about="How far a replay is.",
        content=_json(replays.ReplayShown), problems=(404,),
    ),
    Operation(
        method="POST", path=f"{_REPLAY}/pause", call=replays.pause, body=_NOTHING, problems=(404, 409, 413, 415),
        rights=("replay",),
        about="Hold a replay: the step that is under way is finished. One that had ended stays as it is.",
        content=_json(replays.ReplayShown),
    ),
    Operation(
        method="POST", path=f"{_REPLAY}/resume", call=replays.resume, body=_NOTHING, problems=(404, 409, 413, 415),
        rights=("replay",),
        about="Let it go on where it was held, at its own pace.", content=_json(replays.ReplayShown),
    ),
    Operation(
        method="DELETE", path=_REPLAY, call=replays.cancel, rights=("replay",), problems=(404, 409),
        about="Cancel a replay; it has ended when this is answered. One that had ended stays as it is.",
        content=_json(replays.ReplayShown),
    ),
    Operation(
        method="GET", path="/schemas", call=schemas.schemas, content=_json(schemas.Schemas), problems=(501,),
        rights=ANYBODY,
        about="The schemas that payloads are held against.",
        parameters=(Parameter("event_type", "Only those of this type."),),
    ),
    Operation(
        method="POST", path="/schemas", call=schemas.register, status=201, body=Body(_json(schemas.SchemaOrder)),
        rights=_ADMIN,
        about="Register a schema, for every process; the same one twice is once. 409 names every break.",
        content=_json(schemas.SchemaShown), problems=(409, 413, 415, 501, 507),
        headers={"Location": "Where to look at it."},
    ),
    Operation(
        method="POST", path="/schemas/check", call=schemas.check, rights=ANYBODY, body=Body(_json(schemas.SchemaOrder)),
        about="Whether a schema could be registered without refusing what its neighbours accept. Nothing is changed.",
        content=_json(schemas.SchemaReport), problems=(413, 415, 501),
    ),
    Operation(
        method="GET", path=_SCHEMA, call=schemas.schema, content=_json(schemas.SchemaShown), problems=(404, 501),
        rights=ANYBODY,
        about="One schema: the newest of its type, unless `version` names another.",
        parameters=(Parameter("version", "Such as `1.0.0`."),),
    ),
    Operation(
        method="DELETE", path=f"{_SCHEMA}/{{version}}", call=schemas.remove, status=204, problems=(404, 501, 507),
        rights=_ADMIN,
        about="Remove one version, for every process.",
    ),
    Operation(
        method="GET", path="/schedules", call=schedules.schedules, rights=_SCHEDULES,
        about="What is fired at its moments: one's own schedules, or with `admin` everybody's.",
        content=_json(schedules.Schedules),
    ),
    Operation(
        method="GET", path=_SCHEDULE, call=schedules.schedule, rights=_SCHEDULES, problems=(404,),
        about="One schedule.", content=_json(schedules.ScheduleShown),
    ),
    Operation(
        method="PUT", path=_SCHEDULE, call=schedules.put, rights=("publish",),
        body=Body(_json(schedules.ScheduleOrder)),
        about="Fire an event at its moments, once among all processes. One of that name is replaced; one that says the "
        "same stays as it is.",
        content=_json(schedules.ScheduleShown), problems=(413, 415, 507),
    ),
    Operation(
        method="DELETE", path=_SCHEDULE, call=schedules.remove, rights=_SCHEDULES, status=204, problems=(404, 507),
        about="Fire it no more.",
    ),
)  # fmt: skip
