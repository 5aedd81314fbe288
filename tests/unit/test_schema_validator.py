"""EventValidator: what does not fit is refused with every wrong field; the ancestors' lines work as they stand."""

import pytest

from wowevent import Event, EventSchema, EventValidator, SchemaRegistry, ValidationError

TASK = EventSchema(
    event_type="task.created",
    version="1.0.0",
    json_schema={
        "type": "object",
        "properties": {"task_id": {"type": "string"}, "title": {"type": "string"}},
        "required": ["task_id", "title"],
    },
)
GOOD = Event(event_type="task.created", payload={"task_id": "123", "title": "Deploy"})
BAD = Event(event_type="task.created", payload={"task_id": 5})
OTHER = Event(event_type="task.started")


@pytest.fixture
def registry() -> SchemaRegistry:
    registry = SchemaRegistry()
    registry.register_schema(TASK)
    return registry


def test_what_fits_is_true_and_what_has_no_schema_is_nobodys_business(registry: SchemaRegistry) -> None:
    validator = EventValidator(registry=registry)

    assert validator.validate_event(GOOD) is True
    assert validator.validate_event(OTHER) is True
    assert validator.is_valid(GOOD)
    assert validator.is_valid(OTHER)


def test_what_does_not_fit_is_refused_with_every_wrong_field(registry: SchemaRegistry) -> None:
    validator = EventValidator(registry=registry)
    with pytest.raises(ValidationError) as refused:
        validator.validate_event(BAD)

    assert refused.value.errors == ("payload.title: is required", 'payload.task_id: 5 is not of type "string"')
    assert str(refused.value) == f"validation: task.created 1.0.0: {'; '.join(refused.value.errors)}"
    assert not validator.is_valid(BAD)


def test_a_message_is_short_however_much_is_wrong() -> None:
    registry = SchemaRegistry()
    registry.register_schema(EventSchema(event_type="a", version="1", json_schema={"additionalProperties": False}))
    with pytest.raises(ValidationError, match=r"; and 45 more$") as refused:
        EventValidator(registry).validate_event(Event(event_type="a", payload={f"p{n}": 1 for n in range(50)}))
    assert len(refused.value.errors) == 50


def test_strict_wants_a_schema_for_every_type_but_the_buss_own(registry: SchemaRegistry) -> None:
    validator = EventValidator(registry, strict=True)
    with pytest.raises(ValidationError, match=r"^validation: task\.started: no schema of this type is registered$"):
        validator.validate_event(OTHER)

    assert not validator.is_valid(OTHER)
    reply = Event(topic="_reply.1")
    assert validator.validate_event(reply)
    assert validator.is_valid(reply)


def test_a_version_that_is_not_there_does_not_fit(registry: SchemaRegistry) -> None:
    validator = EventValidator(registry)
    named = Event(event_type="task.created", payload=GOOD.payload, headers={"schema_version": "2"})

    assert not validator.is_valid(named)
    with pytest.raises(ValidationError, match="header schema_version"):
        validator.validate_event(named)


def test_what_is_sent_is_validated_and_not_what_somebody_did_to_his_copy(registry: SchemaRegistry) -> None:
    event = Event(event_type="task.created", payload={"task_id": "1", "title": "x"})
    event.payload.clear()
    assert EventValidator(registry).is_valid(event)
    assert EventValidator(registry).validate_event(event)


def test_a_batch_is_told_one_by_one(registry: SchemaRegistry) -> None:
    results = EventValidator(registry).validate_batch([GOOD, BAD, OTHER])

    assert [each.event for each in results] == [GOOD, BAD, OTHER]
    assert [each.error is None for each in results] == [True, False, True]
    assert results[1].error is not None
    assert "payload.title: is required" in results[1].error.errors


def test_what_is_registered_later_holds_from_then_on(registry: SchemaRegistry) -> None:
    validator = EventValidator(registry)
    registry.register_schema(EventSchema(event_type="task.created", version="2.0.0", json_schema={}))
    assert validator.is_valid(BAD)
    registry.remove_schema("task.created", "2")
    assert not validator.is_valid(BAD)
