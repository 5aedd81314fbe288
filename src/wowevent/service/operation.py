"""What an operation is, one method of one path, and the routes that operations become."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.routing import Route

from wowevent.service.access import admit
from wowevent.service.asking import known

Call = Callable[[Request], Awaitable[Any]]
Schema = Mapping[str, Any]


class Parameter(Struct, frozen=True):
    """One query parameter, or a header if `place` says so."""

    name: str
    about: str
    schema: Schema | None = None
    """None is text."""
    place: str = "query"


class Body(Struct, frozen=True):
    """What a request carries: schemas, or shapes, or several of which it is one, by media type."""

    content: Mapping[str, Any]
    required: bool = True


class Operation(Struct, frozen=True, kw_only=True):
    """One method of one path. `problems` are the statuses that it can fail with, beside those that any can."""

    method: str
    path: str
    call: Call
    about: str
    status: int = 200
    content: Mapping[str, Any] = {}
    """As that of a body; empty where the answer is."""
    parameters: Sequence[Parameter] = ()
    body: Body | None = None
    problems: Sequence[int] = ()
    others: Mapping[int, Mapping[str, Any]] = {}
    """Answers with another status that are no problem documents, as `content`."""
    headers: Mapping[str, str] = {}
    """Headers of the answer, and what they say."""
    rights: Sequence[str]
    """Where tokens are asked for: one of these has to be granted; none is any valid token."""
    open: bool = False
    """Whoever asks is answered."""


def make_routes(operations: Sequence[Operation]) -> list[Route]:
    """A route for each path, with all of its methods: so that a refusal of another one can name them."""
    paths: dict[str, dict[str, Operation]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = operation
    return [Route(path, _endpoint(methods), methods=list(methods)) for path, methods in paths.items()]


def _endpoint(methods: Mapping[str, Operation]) -> Call:
    async def endpoint(request: Request) -> Any:
        operation = methods["GET" if request.method == "HEAD" else request.method]
        request.state.action = f"{operation.method} {operation.path}"
        if not operation.open:
            admit(request, operation.rights)
            known(request.query_params, [each.name for each in operation.parameters if each.place == "query"])
        return await operation.call(request)

    return endpoint
