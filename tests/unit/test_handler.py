"""adapt: any callable as `async (event) -> reply`."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from functools import partial
from typing import Any

import msgspec
import pydantic
import pytest

from wowevent import Delivery, Event, ValidationError
from wowevent.delivery import enter
from wowevent.handler import adapt


class Model(pydantic.BaseModel):
    n: int


class Packed(msgspec.Struct):
    n: int


@dataclasses.dataclass
class Plain:
    n: int


EVENT = Event(topic="a", payload={"n": 1})


class Methods:
    async def method(self, event: Event) -> Any:
        return event

    @staticmethod
    def static(event: Event) -> Any:
        return event

    @classmethod
    async def of_class(cls, event: Event) -> Any:
        return event

    def __call__(self, payload: Model) -> Any:
        return payload


async def untyped(something):
    return something


async def by_annotation(what: Model, who: Event, how: Delivery):
    return what, who, how


async def by_name(payload, event, delivery):
    return payload, event, delivery


async def keyword_only(event: Event, *, payload: Plain, delivery: Delivery):
    return payload, event, delivery


async def optional(event, limit=3, *more, flag=True, **others):
    return event, limit, more, flag, others


def sync(payload: Packed):
    return payload


def returns_awaitable(event):
    return untyped(event)


async def anything(event: Any):
    return event


async def odd_annotation(event: "int | 'x'"):  # type: ignore[name-defined]  # noqa: F821, UP037
    return event


async def stars(*events):
    return events


async def prefixed(prefix: str, event: Event):
    return prefix, event


DELIVERY = Delivery(EVENT, attempt=1, subscription="s", position=None)

CASES: dict[str, tuple[Any, Any]] = {
    "untyped": (untyped, EVENT),
    "by annotation": (by_annotation, (Model(n=1), EVENT, DELIVERY)),
    "by name": (by_name, ({"n": 1}, EVENT, DELIVERY)),
    "keyword-only": (keyword_only, (Plain(1), EVENT, DELIVERY)),
    "defaults stay": (optional, (EVENT, 3, (), True, {})),
    "sync": (sync, Packed(1)),
    "sync that returns an awaitable": (returns_awaitable, EVENT),
    "annotated as anything": (anything, EVENT),
    "an annotation that says nothing": (odd_annotation, EVENT),
    "stars": (stars, (EVENT,)),
    "bound method": (Methods().method, EVENT),
    "static method": (Methods.static, EVENT),
    "class method": (Methods.of_class, EVENT),
    "callable object": (Methods(), Model(n=1)),
    "partial": (partial(prefixed, "p"), ("p", EVENT)),
    "partial of a partial, by keyword": (partial(partial(prefixed), prefix="p"), ("p", EVENT)),
    "builtin": (id, id(EVENT)),
    "type": (str, str(EVENT)),
}


@pytest.mark.parametrize(("handler", "returns"), [pytest.param(*case, id=name) for name, case in CASES.items()])
async def test_every_parameter_gets_what_it_stands_for(handler: Any, returns: Any):
    async def deliver() -> Any:
        enter(DELIVERY)
        return await adapt(handler)(EVENT)

    assert await asyncio.create_task(deliver()) == returns


async def test_a_plain_async_handler_is_called_as_it_is():
    assert adapt(untyped) is untyped


async def test_a_builtin_without_a_signature_gets_the_event():
    found: list[Any] = []
    await adapt(found.append)(EVENT)
    await adapt(dict[str, Any].fromkeys)([EVENT])
    assert found == [EVENT]


async def test_a_sync_handler_runs_in_another_thread():
    assert await adapt(lambda event: threading.current_thread())(EVENT) is not threading.main_thread()


async def many(payloads: list[Model]):
    return payloads


async def many_with_delivery(events: list[Event], delivery: Delivery):
    return events, delivery


async def many_dicts(payload):
    return payload


@pytest.mark.parametrize(
    ("handler", "returns"),
    [
        (many, [Model(n=1), Model(n=1)]),
        (many_with_delivery, ([EVENT, EVENT], None)),
        (many_dicts, [{"n": 1}, {"n": 1}]),
        (untyped, [EVENT, EVENT]),
    ],
)
async def test_a_batch_handler_gets_lists(handler: Any, returns: Any):
    assert await adapt(handler, batch=True)([EVENT, EVENT]) == returns


async def takes_nothing() -> None: ...
async def takes_too_much(event, other): ...
async def names_what_is_not_there(event: NotThere): ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize("wrong", [None, "text", takes_nothing, takes_too_much, names_what_is_not_there, lambda: None])
def test_what_cannot_be_called_is_a_type_error(wrong: Any):
    with pytest.raises(TypeError):
        adapt(wrong)


@pytest.mark.parametrize("model", [Model, Packed, Plain])
async def test_a_payload_that_does_not_fit_names_what_is_wrong(model: Any):
    async def handler(payload: Any) -> None: ...

    handler.__annotations__["payload"] = model
    with pytest.raises(ValidationError) as caught:
        await adapt(handler)(Event(topic="a", payload={"n": "x"}))
    assert caught.value.errors
    assert all("n" in error for error in caught.value.errors)


async def test_a_model_of_the_whole_payload_is_named_as_that():
    class Checked(Model):
        @pydantic.model_validator(mode="after")
        def never(self) -> Any:
            raise ValueError("never right")

    async def handler(payload: Any) -> None: ...

    handler.__annotations__["payload"] = Checked
    with pytest.raises(ValidationError, match="payload: Value error, never right"):
        await adapt(handler)(EVENT)
