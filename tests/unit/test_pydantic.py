"""An event as a field of a pydantic model, and so as the body of a FastAPI route."""

from __future__ import annotations

import json
import subprocess
import sys
from copy import deepcopy
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from wowevent import Event
from wowevent.codec import encode, json_schema, loads, to_fields
from wowevent.service.openapi import document

ADAPTER = TypeAdapter(Event)


class Report(BaseModel):
    event: Event
    others: list[Event] = []


class Archive(BaseModel):
    reports: dict[str, Report] = {}
    newest: Event | None = None


EVENT = Event(
    topic="task.urgent", event_type="task.created", source_agent="api", payload={"n": 1}, ttl_seconds=5, priority=7,
    headers={"a": "b"},
)  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"event_type": "task.created", "payload": {"n": 1}},
        {"type": "task.created", "source": "api", "target": "worker", "priority": "high"},
        {"topic": "task.created", "source_agent_id": "api", "timestamp": "2025-01-15T10:00:00"},
        {"specversion": "1.0", "id": "1", "source": "api", "type": "task.created", "data": {"n": 1}},
        to_fields(EVENT),
    ],
    ids=["ours", "the router's", "the blocking bus's", "a CloudEvent", "complete"],
)
def test_either_spelling_is_taken(given: dict[str, Any]) -> None:
    report = Report.model_validate({"event": given, "others": [given]})
    assert report.event.event_type == "task.created"
    assert report.others[0].payload == report.event.payload


def test_an_event_goes_in_as_it_is_and_comes_back_whole() -> None:
    report = Report(event=EVENT)
    assert report.event is EVENT
    assert report.model_dump()["event"] == to_fields(EVENT)
    assert Report.model_validate_json(report.model_dump_json()) == report


def test_fields_that_nobody_knows_survive() -> None:
    report = Report.model_validate({"event": {"topic": "a", "later": [1]}})
    assert report.model_dump()["event"]["later"] == [1]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({"topic": "a b"}, "invalid_topic"),
        ({"payload": {}}, "invalid_event"),
        ({"topic": "a", "priority": 11}, "invalid_event"),
        ({"topic": "a", "payload": [1]}, "invalid_event"),
        ({"topic": "a", "v": 2}, "format_too_new"),
        ("task.created", "invalid_event"),
    ],
)
def test_what_is_wrong_is_said_by_its_code(given: Any, code: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Report.model_validate({"event": given})
    (error,) = refused.value.errors()
    assert (error["type"], error["loc"]) == (code, ("event",))


HOLES = {
    "a field": ({"event": {"topic": "!"}}, Report, ("event",)),
    "in a list": ({"event": {"topic": "a"}, "others": [{"topic": "a"}, {}]}, Report, ("others", 1)),
    "in a model": ({"reports": {"one": {"event": 5}}}, Archive, ("reports", "one", "event")),
    "that may be left out": ({"newest": []}, Archive, ("newest",)),
    "itself": ({}, Event, ()),
}


@pytest.mark.parametrize(("given", "shape", "place"), HOLES.values(), ids=HOLES.keys())
def test_what_is_wrong_is_said_with_its_place(given: Any, shape: Any, place: tuple[str | int, ...]) -> None:
    adapter = TypeAdapter(shape)
    for refuse in (lambda: adapter.validate_python(given), lambda: adapter.validate_json(json.dumps(given))):
        with pytest.raises(ValidationError) as refused:
            refuse()
        (error,) = refused.value.errors()
        assert error["loc"] == place
        assert error["type"].startswith("invalid_")
        assert json.loads(refused.value.json())[0]["msg"] == error["msg"] != ""


STRANGE = {
    "not a number": {"later": float("nan")},
    "half a character": {"later": "\ud800"},
    "a half name": {"\ud800": 1},
    "no JSON": {"later": object()},
    "too deep": {"later": loads("[" * 33 + "]" * 33)},
}


@pytest.mark.parametrize("unknown", STRANGE.values(), ids=STRANGE.keys())
def test_a_field_that_nobody_knows_is_json_or_refused(unknown: dict[str, Any]) -> None:
    """Whoever reads JSON for pydantic need not be strict: FastAPI's reader takes all of these."""
    with pytest.raises(ValidationError, match="a field that is not known here: "):
        ADAPTER.validate_python({"topic": "a", **unknown})


def test_a_field_that_nobody_knows_is_kept_as_json_has_it() -> None:
    event = ADAPTER.validate_python({"topic": "a", "later": {1: (Event(topic="b").event_type,)}})
    assert event.unknown == {"later": {"1": ["b"]}}
    assert json.loads(encode(event))["later"] == {"1": ["b"]}


# --- what FastAPI asks for ------------------------------------------------------------------------------------------


def test_a_body_comes_in_and_goes_out_as_python_and_as_json() -> None:
    fields = to_fields(EVENT)
    assert ADAPTER.validate_python(fields) == ADAPTER.validate_json(json.dumps(fields)) == EVENT
    assert ADAPTER.validate_python(EVENT) is EVENT
    assert ADAPTER.dump_python(EVENT) == ADAPTER.dump_python(EVENT, mode="json") == fields
    assert json.loads(ADAPTER.dump_json(EVENT)) == fields


def test_a_list_of_events_is_a_body_too() -> None:
    adapter = TypeAdapter(list[Event])
    events = adapter.validate_json(b'[{"topic": "a"}, {"type": "b", "source": "c"}]')
    assert [(event.topic, event.source_agent) for event in events] == [("a", ""), ("b", "c")]
    assert adapter.validate_python(adapter.dump_python(events)) == events


def test_an_event_may_be_left_out_or_stand_deep_inside() -> None:
    assert Archive().newest is None
    archive = Archive.model_validate({"reports": {"one": {"event": {"topic": "a"}}}, "newest": to_fields(EVENT)})
    assert (archive.reports["one"].event.topic, archive.newest) == ("a", EVENT)
    assert Archive.model_validate_json(archive.model_dump_json()) == archive == deepcopy(archive)
    assert archive.model_copy(deep=True) == archive
    assert archive.model_dump(exclude_none=True)["newest"] == to_fields(EVENT), "an event is given complete"


def test_a_default_is_an_event_and_shown_as_one() -> None:
    class Alarm(BaseModel):
        event: Event = Field(default=EVENT, description="What to send.")
        made: Event = Field(default_factory=lambda: Event(topic="made"))

    assert Alarm().event == EVENT
    assert Alarm().made.event_id != Alarm().made.event_id
    shown = Alarm.model_json_schema()["properties"]
    assert shown["event"] == {"$ref": "#/$defs/Event", "default": to_fields(EVENT), "description": "What to send."}
    assert shown["made"] == {"$ref": "#/$defs/Event"}


def test_the_schema_describes_what_is_taken_and_what_is_given() -> None:
    given = ADAPTER.json_schema(mode="serialization")
    assert set(given["properties"]) == set(to_fields(EVENT)) == set(given["required"])
    jsonschema_rs.validator_for(given).validate(to_fields(EVENT))
    jsonschema_rs.validator_for(given).validate(to_fields(Event(topic="a")))
    taken = jsonschema_rs.validator_for(ADAPTER.json_schema())
    for good in (to_fields(EVENT), {"type": "a", "priority": "high", "payload": None}, {"topic": "a", "later": 1}):
        taken.validate(good)
        ADAPTER.validate_python(good)
    for bad in ({}, {"topic": 1}, {"topic": "a", "priority": 11}, {"topic": "a", "headers": {"a": 1}}):
        assert not taken.is_valid(bad)
        with pytest.raises(ValidationError):
            ADAPTER.validate_python(bad)


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_an_event_is_described_once_however_often_it_is_held(mode: Any) -> None:
    shown = Archive.model_json_schema(mode=mode)
    assert shown["$defs"]["Event"] == {"title": "Event", **json_schema(mode)}
    held = shown["$defs"]["Report"]["properties"]
    assert held["event"] == held["others"]["items"] == shown["properties"]["newest"]["anyOf"][0]
    assert held["event"] == {"$ref": "#/$defs/Event"}


def test_our_own_service_says_the_same_of_an_event() -> None:
    shown = document()["components"]["schemas"]
    assert (shown["Event"], shown["EventIn"]) == (json_schema("serialization"), json_schema("validation"))


@pytest.mark.parametrize("mode", ["validation", "serialization"])
def test_a_description_is_its_askers_own(mode: Any) -> None:
    before = deepcopy(json_schema(mode))
    spoiled = json_schema(mode)
    spoiled["properties"]["headers"]["additionalProperties"]["type"] = "spoiled"
    spoiled["properties"]["trace_id"]["type"].append("spoiled")
    assert json_schema(mode) == before


def test_nothing_but_wowevent_needs_to_be_imported() -> None:
    code = 'import pydantic, wowevent; print(pydantic.TypeAdapter(wowevent.Event).validate_json(\'{"topic":"a"}\'))'
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Event('a'")


def test_the_event_itself_does_not_import_pydantic() -> None:
    """It lies below everything, and only who asks for a schema needs that."""
    code = "import ast, pathlib, wowevent.event as e; print(ast.dump(ast.parse(pathlib.Path(e.__file__).read_text())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "alias(name='pydantic" not in done.stdout
