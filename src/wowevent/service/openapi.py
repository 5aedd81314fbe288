"""GET /openapi.json: the table of the routes as OpenAPI 3.1, for people and generators."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from wowevent.service import answers, failures, intake
from wowevent.service.routes import OPERATIONS, Body, Operation, Parameter

if TYPE_CHECKING:
    from starlette.requests import Request

_REF: Final = "#/components/schemas/{name}"
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")
_PROBLEMS: Final = (400, 403, 500, 503)  # what any operation that is not open can fail with
_ID: Final = "Percent-encoded: it may contain `~ , * . / : @`."


def _nullable(*types: str, **more: Any) -> dict[str, Any]:
    return {"type": [*types, "null"], **more}


_NAME: Final = _nullable("string", maxLength=128)
_TIME: Final = {"type": "string", "format": "date-time"}
_COUNT: Final = _nullable("integer", minimum=0)
_EVENT: Final[dict[str, Any]] = {
    "v": {"const": 1},
    "event_id": {"type": "string"},
    "event_type": {"type": "string", "description": "What happened."},
    "topic": {"type": "string", "description": "Where it is routed."},
    "source_agent": {"type": "string"},
    "source_service": _NAME,
    "target_agent": _NAME,
    "payload": {"type": "object"},
    "timestamp": _TIME,
    "priority": {"type": "integer", "minimum": 1, "maximum": 10},
    "correlation_id": {"type": "string"},
    "parent_event_id": _NAME,
    "trace_id": _NAME,
    "traceparent": _nullable("string"),
    "execution_id": _NAME,
    "ttl_seconds": _nullable("number", exclusiveMinimum=0),
    "not_before": _nullable("string", format="date-time"),
    "max_retries": _COUNT,
    "reply_to": _nullable("string"),
    "hops": {"type": "integer", "minimum": 0},
    "replay_of": _NAME,
    "headers": {"type": "object", "additionalProperties": {"type": "string"}},
}
_OTHER_SPELLINGS: Final = {
    "id": "event_id",
    "source": "source_agent",
    "source_agent_id": "source_agent",
    "target": "target_agent",
    "type": "event_type",
}


def _given() -> dict[str, Any]:
    """The fields of an event as they may be sent: all but a topic or a type may be left out or null."""
    looser = {
        "priority": {"type": ["integer", "string", "null"], "description": "1 to 10, or a name such as `high`."},
        "timestamp": _nullable("string", description="ISO 8601; naive is UTC."),
        "not_before": _nullable("string", description="ISO 8601; naive is UTC."),
        "payload": _nullable("object"),
        "headers": {"type": ["object", "null"], "additionalProperties": {"type": "string"}},
        "hops": _COUNT,
        "metadata": _nullable("object"),
    }
    texts = {
        name: _nullable("string") for name in ("event_id", "event_type", "topic", "source_agent", "correlation_id")
    }
    aliases = {
        name: _nullable("string", description=f"Another name of {own}.") for name, own in _OTHER_SPELLINGS.items()
    }
    return {**_EVENT, **texts, **looser, **aliases}


_SCHEMAS: Final[dict[str, Any]] = {
    "Event": {
        "type": "object",
        "description": "An event, complete (envelope v1); fields that are not known here are kept as they came.",
        "properties": _EVENT,
        "required": list(_EVENT),
    },
    "EventIn": {
        "type": "object",
        "description": "An event as it is sent: a topic or an event_type is enough. Unknown fields are kept.",
        "properties": _given(),
        "anyOf": [{"required": [name]} for name in ("topic", "event_type", "type")],
    },
    "CloudEvent": {
        "type": "object",
        "description": "A CloudEvent 1.0 in structured JSON mode; `data` is an object.",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "minLength": 1},
            "type": {"type": "string", "minLength": 1},
            "time": _nullable("string"),
            "datacontenttype": _nullable("string"),
            "data": _nullable("object"),
        },
        "required": ["specversion", "id", "source", "type"],
    },
    "Health": {
        "type": "object",
        "description": "Beside these, the engine's own name is a key, with `connected` or `unreachable`.",
        "properties": {
            "status": {"enum": ["healthy", "unhealthy"]},
            "event_bus": {"enum": ["running", "not started", "stopped", "disabled"]},
            "details": {"type": "object"},
        },
        "required": ["status", "event_bus", "details"],
    },
    "Ready": {
        "type": "object",
        "properties": {"ready": {"type": "boolean"}, "reason": {"type": "string"}},
        "required": ["ready"],
    },
}


async def openapi(_request: Request) -> Response:
    """This description, as JSON."""
    return Response(msgspec.json.encode(document()), media_type=intake.JSON)


DESCRIPTION: Final = Operation(
    method="GET",
    path="/openapi.json",
    call=openapi,
    about="This description.",
    content={intake.JSON: {"type": "object"}},
)
"""The one route that is not in the table, since it is made of it."""


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    operations = (*OPERATIONS, DESCRIPTION)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", operation.path), {})[operation.method.lower()] = _shown(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "WowEvent",
            "version": version("wowevent"),
            "description": "The event bus over HTTP. Failures are problem documents (RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": {**_SCHEMAS, **_shapes(operations)}},
    }


def _shapes(operations: Sequence[Operation]) -> dict[str, Any]:
    """The schemas of the shapes that the operations name."""
    contents = [each.content for each in operations] + [each.body.content for each in operations if each.body]
    kinds = {kind: None for content in contents for kind in content.values() if inspect.isclass(kind)}
    return msgspec.json.schema_components([*kinds, answers.Problem], ref_template=_REF)[1]


def _shown(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = {
        "operationId": f"{operation.call.__module__.rpartition('.')[2]}.{operation.call.__name__}",
        "summary": operation.about,
        "tags": [operation.path.split("/")[1]],
        "parameters": [
            *map(_path_parameter, _PATH_PARAMETER.findall(operation.path)),
            *map(_parameter, operation.parameters),
        ],
        "responses": {
            str(operation.status): _answer(operation.status, operation.content, operation.headers),
            **{str(status): _answer(status, content) for status, content in operation.others.items()},
            **_problems(operation),
        },
    }
    return found if operation.body is None else {**found, "requestBody": _body(operation.body)}


def _problems(operation: Operation) -> dict[str, Any]:
    content = {failures.MEDIA_TYPE: answers.Problem}
    statuses = operation.problems if operation.open else sorted({*_PROBLEMS, *operation.problems})
    found = {str(status): _answer(status, content) for status in statuses}
    return {**found, "default": {"description": "Any other failure.", "content": _content(content)}}


def _answer(status: int, content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if content:
        found["content"] = _content(content)
    if headers:
        found["headers"] = {
            name: {"description": about, "schema": {"type": "string"}} for name, about in headers.items()
        }
    return found


def _content(content: Mapping[str, Any]) -> dict[str, Any]:
    return {media: {"schema": _schema(shape)} for media, shape in content.items()}


def _schema(shape: Any) -> Mapping[str, Any]:
    return {"$ref": _REF.format(name=shape.__name__)} if inspect.isclass(shape) else shape


def _body(body: Body) -> dict[str, Any]:
    return {"required": body.required, "content": _content(body.content)}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": _ID, "schema": {"type": "string"}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "description": parameter.about,
        "schema": parameter.schema or {"type": "string"},
    }
