"""GET /openapi.json: the table of the routes as OpenAPI 3.1, for people and generators."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response

from wowevent.codec import json_schema
from wowevent.service import failures, intake
from wowevent.service.access import ANYBODY
from wowevent.service.operation import Body, Operation, Parameter
from wowevent.service.routes import OPERATIONS

if TYPE_CHECKING:
    from starlette.requests import Request

_REF: Final = "#/components/schemas/{name}"
_PATH_PARAMETER: Final = re.compile(r"\{(\w+)(?::path)?\}")
_PROBLEMS: Final = (400, 401, 403, 429, 500, 503)  # what any operation that is not open can fail with
_TOKEN: Final = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token of `wowevent token create`, or a JWT; nobody is asked for one unless that is configured.",
}
_ID: Final = "Percent-encoded: it may contain `~ , * . / : @`."


def _nullable(*types: str, **more: Any) -> dict[str, Any]:
    return {"type": [*types, "null"], **more}


_SCHEMAS: Final[dict[str, Any]] = {
    "Event": json_schema("serialization"),
    "EventIn": json_schema("validation"),
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
            "worker": {"type": "integer", "description": "Which of several processes on one port answers."},
        },
        "required": ["status", "event_bus", "details"],
    },
    "Live": {"type": "object", "properties": {"live": {"const": True}}, "required": ["live"]},
    "Ready": {
        "type": "object",
        "properties": {"ready": {"type": "boolean"}, "reason": {"type": "string"}},
        "required": ["ready"],
    },
}


async def openapi(request: Request) -> Response:
    """This description, as JSON."""
    guarded = request.app.state.keyring is not None
    return Response(msgspec.json.encode(document(guarded=guarded)), media_type=intake.JSON)


DESCRIPTION: Final = Operation(
    method="GET",
    path="/openapi.json",
    call=openapi,
    about="This description.",
    content={intake.JSON: {"type": "object"}},
    rights=ANYBODY,
)
"""The one route that is not in the table, since it is made of it."""


@cache
def document(*, guarded: bool = False) -> dict[str, Any]:
    """The OpenAPI document; of a service that asks for tokens, if `guarded`."""
    operations = (*OPERATIONS, DESCRIPTION)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(_PATH_PARAMETER.sub(r"{\1}", operation.path), {})[operation.method.lower()] = _shown(
            operation, guarded
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "WowEvent",
            "version": version("wowevent"),
            "description": "The event bus over HTTP. Failures are problem documents (RFC 9457).",
        },
        "paths": paths,
        "components": {"schemas": {**_SCHEMAS, **_shapes(operations)}, "securitySchemes": {"token": _TOKEN}},
    }


def _shapes(operations: Sequence[Operation]) -> dict[str, Any]:
    """The schemas of the shapes that the operations name."""
    contents = [each.content for each in operations] + [each.body.content for each in operations if each.body]
    contents += [content for each in operations for content in each.others.values()]
    shapes = [shape for content in contents for shape in content.values()]
    kinds = {kind: None for shape in shapes for kind in _kinds(shape) if inspect.isclass(kind)}
    return msgspec.json.schema_components([*kinds, failures.Problem], ref_template=_REF)[1]


def _shown(operation: Operation, guarded: bool) -> dict[str, Any]:
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
    if not operation.open:
        needs = f"Needs `{'` or `'.join(operation.rights)}`" if operation.rights else "Any valid token"
        token: dict[str, list[str]] = {"token": []}
        found |= {
            "security": [token] if guarded else [{}, token],
            "description": f"{needs}, where tokens are asked for.",
        }
    return found if operation.body is None else {**found, "requestBody": _body(operation.body)}


def _problems(operation: Operation) -> dict[str, Any]:
    content = {failures.MEDIA_TYPE: failures.Problem}
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


def _kinds(shape: Any) -> tuple[Any, ...]:
    return shape if isinstance(shape, tuple) else (shape,)


def _schema(shape: Any) -> Mapping[str, Any]:
    if isinstance(shape, tuple):
        return {"anyOf": [_schema(each) for each in shape]}
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
