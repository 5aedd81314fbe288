"""A user's callable as one shape: `async (event) -> reply`, or a list of events for a batch handler.

Handlers may be sync or async, functions, partials or objects with `__call__`, and take the event, its payload as a
model of pydantic or msgspec (or a dataclass), and the delivery, in any combination; a parameter is told by its
annotation, else by its name, else it is the event.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import typing
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
import pydantic

from wowevent.delivery import Delivery, current
from wowevent.errors import ValidationError
from wowevent.event import Event

Handler = Callable[[Any], Awaitable[Any]]
Middleware = Callable[[Handler], Handler]
ToThread = Callable[..., Awaitable[Any]]
"""`to_thread(function, *args, **kwargs)`, as `asyncio.to_thread`: calls it in a thread, in the caller's context."""


def adapt(handler: Callable[..., Any], *, batch: bool = False, to_thread: ToThread = asyncio.to_thread) -> Handler:
    """The handler as `async (event) -> reply`; with `batch`, as `async (events) -> None`. A sync one runs `to_thread`.

    Raises TypeError for a callable whose parameters cannot be filled.
    """
    if not callable(handler):
        raise TypeError(f"a handler must be callable, not {type(handler).__name__}")
    sources = _sources(handler, batch=batch)
    positional = [source for name, source in sources if name is None]
    named = {name: source for name, source in sources if name is not None}
    run = _runner(handler, to_thread)
    if len(positional) == 1 and positional[0] is _event and not named:
        return run

    async def call(event: Any) -> Any:
        return await run(*[source(event) for source in positional], **{k: v(event) for k, v in named.items()})

    return call


def is_async(handler: Callable[..., Any]) -> bool:
    """Whether calling it gives what must be awaited."""
    inner: Any = handler
    while isinstance(inner, partial):
        inner = inner.func
    called = getattr(inner, "__call__", None)  # noqa: B004 - the method itself is asked for
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(called)


def _runner(handler: Callable[..., Any], to_thread: ToThread) -> Callable[..., Awaitable[Any]]:
    """The handler as a coroutine function; a sync one runs in a thread, with the context of its delivery."""
    if is_async(handler):
        return handler

    async def run(*args: Any, **kwargs: Any) -> Any:
        result = await to_thread(handler, *args, **kwargs)
        return await result if inspect.isawaitable(result) else result

    return run


Source = Callable[[Any], Any]


def _event(event: Any) -> Any:
    return event


def _delivery(_event: Any) -> Delivery | None:
    return current()


def _sources(handler: Callable[..., Any], *, batch: bool) -> list[tuple[str | None, Source]]:
    """For each parameter that must be filled: its name if it is keyword-only, and where its value comes from."""
    try:
        parameters = inspect.signature(handler).parameters.values()
    except ValueError:  # a builtin such as `print` or `list.append` has none: it gets the event
        return [(None, _event)]
    hints = _hints(handler)
    sources: list[tuple[str | None, Source]] = []
    for parameter in parameters:
        if parameter.kind is parameter.VAR_KEYWORD or (sources and parameter.kind is parameter.VAR_POSITIONAL):
            continue
        hint = hints.get(parameter.name, parameter.annotation)
        bound = parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty  # by a partial
        source = _source(parameter.name, hint, first=not sources and not bound, batch=batch)
        if source is None:
            if parameter.default is parameter.empty:
                raise TypeError(
                    f"{_named(handler)}: nothing is known to give for {parameter.name!r}; a handler takes an event, "
                    "a payload model and a Delivery"
                )
            continue
        sources.append((parameter.name if parameter.kind is parameter.KEYWORD_ONLY else None, source))
    if not sources:
        raise TypeError(f"{_named(handler)} takes no argument; a handler takes at least the event or its payload")
    return sources


def _source(name: str, hint: Any, *, first: bool, batch: bool) -> Source | None:
    """Where a parameter's value comes from; None if nothing fits."""
    if hint is Delivery or (hint is inspect.Parameter.empty and name == "delivery"):
        return _delivery
    inner = typing.get_args(hint)[0] if batch and typing.get_origin(hint) is list else hint
    if inner is Event or (inner is inspect.Parameter.empty and name == "event"):
        return _event
    decode = _decoder(inner) or (_payload if name == "payload" else None)
    if decode is not None:
        return partial(_each, decode) if batch else decode
    return _event if first else None


def _each(decode: Source, events: list[Event]) -> list[Any]:
    return [decode(event) for event in events]


def _payload(event: Event) -> dict[str, Any]:
    return event.payload


def _decoder(model: Any) -> Source | None:
    """How a payload becomes a `model`; None if it is not one."""
    if not isinstance(model, type):
        return None
    if hasattr(model, "model_validate_json"):
        return partial(_pydantic, model)
    if issubclass(model, msgspec.Struct) or dataclasses.is_dataclass(model):
        return partial(_msgspec, msgspec.json.Decoder(model))
    return None


def _pydantic(model: Any, event: Event) -> Any:
    try:
        return model.model_validate_json(bytes(event.body))
    except pydantic.ValidationError as error:
        wrong = tuple(f"{'.'.join(map(str, item['loc'])) or 'payload'}: {item['msg']}" for item in error.errors())
        raise ValidationError(f"validation: {event.kind}: {'; '.join(wrong)}", wrong) from error


def _msgspec(decoder: msgspec.json.Decoder[Any], event: Event) -> Any:
    try:
        return decoder.decode(event.body)
    except msgspec.ValidationError as error:
        raise ValidationError(f"validation: {event.kind}: {error}", (str(error),)) from error


def _hints(handler: Callable[..., Any]) -> dict[str, Any]:
    """The annotations, resolved; TypeError for one that names what cannot be found."""
    inner = handler
    while isinstance(inner, partial):
        inner = inner.func
    if not (inspect.isfunction(inner) or inspect.ismethod(inner)):
        inner = getattr(inner, "__call__", inner)  # noqa: B004 - the method itself is asked for
    try:
        return typing.get_type_hints(inner)
    except NameError as error:
        raise TypeError(
            f"{_named(handler)}: {error}; annotations of a handler must name what its module defines"
        ) from error
    except TypeError:  # no annotations can be had of it
        return {}


def _named(handler: Callable[..., Any]) -> str:
    return getattr(handler, "__qualname__", None) or repr(handler)
