"""/schemas: what payloads are held against: list, show, check, register, remove."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.responses import Response

from wowevent.errors import NotSupported
from wowevent.schema import EventSchema
from wowevent.service.access import note
from wowevent.service.answers import SchemaOrder, Schemas, answer, shown_breaks, shown_schema
from wowevent.service.asking import bus_of
from wowevent.service.intake import order_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from wowevent.schema import SchemaRegistry


async def schemas(request: Request) -> Response:
    """`{"schemas": […]}`: all, or those of one type; by type, and by version from the oldest."""
    found = _registry(request).schemas(request.query_params.get("event_type"))
    return answer(Schemas([shown_schema(each) for each in found]))


async def schema(request: Request) -> Response:
    """One of them."""
    version = request.query_params.get("version")
    return answer(shown_schema(_registry(request).get_schema(request.path_params["event_type"], version)))


async def register(request: Request) -> Response:
    """201: it is registered, and every process that attaches a registry knows within a second or so."""
    given = await _given(request)
    _registry(request)
    await bus_of(request).register_schema(given)
    note(request, "schema registered", schema=given.event_type, version=given.version)
    place = f"/schemas/{given.event_type}?version={given.version}"
    return answer(shown_schema(given), 201, location=place)


async def check(request: Request) -> Response:
    """`{"compatible": false, "breaks": […]}` against the versions next to it; nothing is changed."""
    given = await _given(request)
    # A comparison may take a second or two: others get their turn meanwhile.
    return answer(shown_breaks(await asyncio.to_thread(_registry(request).check, given)))


async def remove(request: Request) -> Response:
    """204: events are no longer held against it, anywhere."""
    _registry(request)
    event_type, version = request.path_params["event_type"], request.path_params["version"]
    await bus_of(request).remove_schema(event_type, version)
    note(request, "schema removed", schema=event_type, version=version)
    return Response(status_code=204)


def _registry(request: Request) -> SchemaRegistry:
    registry = bus_of(request).registry
    if registry is None:
        raise NotSupported("this service has no schema registry")
    return registry


async def _given(request: Request) -> EventSchema:
    order = await order_of(request, SchemaOrder, request.app.state.body_limit)
    return EventSchema(
        event_type=order.event_type,
        version=order.version,
        json_schema=order.json_schema,
        description=order.description,
    )
