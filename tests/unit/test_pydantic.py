"""An event as a field of a pydantic model, and so as the body of a FastAPI route."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from wowevent import Event
from wowevent.codec import to_fields


class Report(BaseModel):
    event: Event
    others: list[Event] = []


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


def test_the_schema_describes_what_is_taken_and_what_is_given() -> None:
    given = TypeAdapter(Event).json_schema(mode="serialization")
    assert set(given["properties"]) == set(to_fields(EVENT)) == set(given["required"])
    jsonschema_rs.validator_for(given).validate(to_fields(EVENT))
    jsonschema_rs.validator_for(given).validate(to_fields(Event(topic="a")))
    taken = jsonschema_rs.validator_for(TypeAdapter(Event).json_schema())
    for good in (to_fields(EVENT), {"type": "a", "priority": "high", "payload": None}, {"topic": "a", "later": 1}):
        taken.validate(good)
    for bad in ({}, {"topic": 1}, {"topic": "a", "priority": 11}, {"topic": "a", "headers": {"a": 1}}):
        assert not taken.is_valid(bad)
    assert Report.model_json_schema()["properties"]["event"]["title"] == "Event"


def test_the_event_itself_does_not_import_pydantic() -> None:
    """It lies below everything, and only who asks for a schema needs that."""
    code = "import ast, pathlib, wowevent.event as e; print(ast.dump(ast.parse(pathlib.Path(e.__file__).read_text())))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "alias(name='pydantic" not in done.stdout
