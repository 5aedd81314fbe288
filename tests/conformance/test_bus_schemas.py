"""Schemas on a bus: what is published and what is handled fits them, and every process knows the same ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.conformance.engines import Rig, eventually
from tests.conformance.making import Seen, event, events
from wowevent import (
    Closed,
    Event,
    EventBus,
    EventSchema,
    FailureReason,
    NotSupported,
    SchemaConflict,
    SchemaNotFound,
    SchemaRegistry,
    ValidationError,
)

WITHIN = 5.0  # seconds for others to notice; they look once a second


def schema(version: str = "1.0.0", event_type: str = "task.created", **properties: Any) -> EventSchema:
    """A type whose payload has a number, and what else is said."""
    fields = properties or {"n": {"type": "integer"}}
    wanted = {"type": "object", "properties": fields, "required": list(fields)}
    return EventSchema(event_type=event_type, version=version, json_schema=wanted)


def registry(*schemas: EventSchema) -> SchemaRegistry:
    found = SchemaRegistry()
    for each in schemas or (schema(),):
        found.register_schema(each)
    return found


def known(bus: EventBus) -> list[str]:
    """The versions that a bus goes by."""
    assert bus.registry is not None
    return bus.registry.versions("task.created")


WRONG = Event(topic="task.created", payload={"n": "one"})


async def stored(bus: EventBus) -> list[int]:
    return [found.event.payload["n"] async for found in bus.history()]


async def test_what_does_not_fit_is_refused_and_the_next_one_is_not(rig: Rig):
    bus = await rig.bus(registry=registry())
    with pytest.raises(ValidationError, match=r"task\.created") as refused:
        await bus.publish(WRONG)
    assert len(refused.value.errors) == 1
    await bus.publish(event(n=1))
    assert await stored(bus) == [1]


async def test_of_several_none_is_stored_unless_all_fit(rig: Rig):
    bus = await rig.bus(registry=registry())
    with pytest.raises(ValidationError):
        await bus.publish_many([*events(3), WRONG])
    assert await stored(bus) == []


async def test_types_without_a_schema_are_nobodys_matter_unless_that_is_asked_for(rig: Rig):
    bus, strict = await rig.bus(registry=registry()), await rig.bus(registry=registry(), strict_schemas=True)
    await bus.publish(event("plan.created"))
    with pytest.raises(ValidationError):
        await strict.publish(event("plan.created"))


async def test_without_a_registry_nothing_is_validated(rig: Rig):
    bus = await rig.bus()
    await bus.publish(WRONG)
    with pytest.raises(NotSupported):
        await bus.register_schema(schema())


async def test_what_others_published_is_a_dead_letter_and_no_handler_meets_it(rig: Rig):
    careless, careful, seen = await rig.bus(), await rig.bus(registry=registry()), Seen()
    await careful.subscribe("task.*", seen, "worker")
    await careless.publish_many([event(n=1), WRONG, event(n=2)])
    await eventually(seen.count(2))

    async def buried() -> bool:
        return len(await careful.dead_letters.list()) == 1

    await eventually(buried)
    (letter,) = await careful.dead_letters.list()
    assert (letter.event.event_id, letter.reason) == (WRONG.event_id, FailureReason.VALIDATION_ERROR)
    assert "n" in letter.error
    assert seen.numbers == [1, 2]


async def test_one_that_does_not_fit_takes_no_others_of_its_batch_with_it(rig: Rig):
    careless, careful, seen = await rig.bus(), await rig.bus(registry=registry()), list[int]()

    async def handle(batch: list[Event]) -> None:
        seen.extend(each.payload["n"] for each in batch)

    await careful.subscribe("task.*", handle, "worker", batch=10)
    await careless.publish_many([event(n=1), WRONG, event(n=2)])
    await eventually(lambda: len(seen) == 2)
    assert sorted(seen) == [1, 2]
    await eventually(careful.dead_letters.list)


async def test_a_request_that_does_not_fit_is_refused(rig: Rig):
    bus = await rig.bus(registry=registry(schema(event_type="math.double")))
    await bus.subscribe("math.double", lambda event: event.payload["n"] * 2, "doubler")
    assert await bus.request("math.double", {"n": 21}) == 42
    with pytest.raises(ValidationError):
        await bus.request("math.double", {})


async def test_what_one_registers_all_go_by(rig: Rig):
    first, second = await rig.bus(registry=SchemaRegistry()), await rig.bus(registry=SchemaRegistry())
    await first.register_schema(schema())
    with pytest.raises(ValidationError):
        await first.publish(WRONG)
    await eventually(lambda: known(second) == ["1.0.0"], WITHIN)
    with pytest.raises(ValidationError):
        await second.publish(WRONG)
    await second.remove_schema("task.created", "1.0.0")
    await second.publish(WRONG)
    await eventually(lambda: known(first) == [], WITHIN)
    with pytest.raises(SchemaNotFound):
        await first.remove_schema("task.created", "1.0.0")


async def test_what_the_registry_itself_is_told_is_shared_too(rig: Rig):
    first, second, told = await rig.bus(registry=registry()), await rig.bus(registry=SchemaRegistry()), schema("2")
    assert first.registry is not None
    assert known(second) == ["1.0.0"]
    first.registry.register_schema(told)
    await eventually(lambda: known(second) == ["1.0.0", "2"], WITHIN)
    first.registry.remove_schema("task.created", "2")
    await eventually(lambda: known(second) == ["1.0.0"], WITHIN)


async def test_a_bus_that_comes_later_knows_them(rig: Rig):
    first = await rig.bus(registry=registry())
    await first.stop()
    later = await rig.bus(registry=SchemaRegistry())
    with pytest.raises(ValidationError):
        await later.publish(WRONG)


async def test_two_schemas_of_one_version_do_not_go_together(rig: Rig):
    await rig.bus(registry=registry())
    other = await rig.bus(start=False, registry=registry(schema(n={"type": "string"})))
    with pytest.raises(SchemaConflict, match="another version"):
        await other.start()
    with pytest.raises(SchemaConflict):
        async with other:
            pass
    with pytest.raises(Closed):  # who could not start holds nothing open
        await other.start()
    third = await rig.bus(registry=SchemaRegistry())
    with pytest.raises(SchemaConflict):
        await third.register_schema(schema(n={"type": "string"}))
    assert third.registry is not None
    assert third.registry.get_schema("task.created") == schema()


async def test_many_register_at_once(rig: Rig):
    bus, other = await rig.bus(registry=SchemaRegistry()), await rig.bus(registry=SchemaRegistry())
    await asyncio.gather(*(bus.register_schema(schema(str(number))) for number in range(20)))
    await eventually(lambda: len(known(other)) == 20, WITHIN)
