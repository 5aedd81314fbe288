"""What a failure is over HTTP: one table from the error tree to a status, and one shape of body, RFC 9457's."""

from __future__ import annotations

from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.exceptions import HTTPException
from starlette.responses import Response

from wowevent import errors
from wowevent.access.audit import audit
from wowevent.errors import printable
from wowevent.log import logger
from wowevent.service.access import asker

if TYPE_CHECKING:
    from starlette.requests import Request

MEDIA_TYPE: Final = "application/problem+json"
URN: Final = "urn:wowevent:error:"
"""How the type of every problem begins; its code follows."""

STATUS: Final[dict[type[errors.BusError], HTTPStatus]] = {
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidEvent: HTTPStatus.BAD_REQUEST,
    errors.FormatTooNew: HTTPStatus.BAD_REQUEST,
    errors.ProtocolError: HTTPStatus.BAD_REQUEST,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.NotPermitted: HTTPStatus.FORBIDDEN,
    errors.RateLimited: HTTPStatus.TOO_MANY_REQUESTS,
    errors.SubscriptionNotFound: HTTPStatus.NOT_FOUND,
    errors.SchemaNotFound: HTTPStatus.NOT_FOUND,
    errors.ConversationNotFound: HTTPStatus.NOT_FOUND,
    errors.DeadLetterNotFound: HTTPStatus.NOT_FOUND,
    errors.ScheduleNotFound: HTTPStatus.NOT_FOUND,
    errors.SubscriptionConflict: HTTPStatus.CONFLICT,
    errors.SchemaConflict: HTTPStatus.CONFLICT,
    errors.Unroutable: HTTPStatus.CONFLICT,
    errors.NoResponders: HTTPStatus.CONFLICT,
    errors.PositionLost: HTTPStatus.GONE,
    errors.StorageDamaged: HTTPStatus.INTERNAL_SERVER_ERROR,
    errors.NotSupported: HTTPStatus.NOT_IMPLEMENTED,
    errors.RequestFailed: HTTPStatus.BAD_GATEWAY,
    errors.Closed: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.OutboxFull: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.BrokerError: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.RequestTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    errors.StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.BusError: HTTPStatus.INTERNAL_SERVER_ERROR,
}
"""An error that is not here has the status of the nearest class above it."""


class Problem(Struct, omit_defaults=True):
    """What went wrong, by RFC 9457; `error` and `message` say the same as `type` and `detail`, shorter."""

    type: Annotated[str, Meta(description="Stable: `urn:wowevent:error:` and the code.")]
    title: str
    status: int
    detail: str
    error: Annotated[str, Meta(description="The code of the error, stable.")]
    message: str
    lost: Annotated[int | UnsetType, Meta(description="How many events are gone, where that is known.")] = UNSET
    errors: Annotated[
        list[str] | UnsetType, Meta(description="Every wrong field, or every break of a schema, a line each.")
    ] = UNSET


class Refusal(Exception):
    """What only HTTP refuses: no such thing, or too many of them."""

    def __init__(self, status: HTTPStatus, code: str, message: str, *, again: bool = False) -> None:
        """`code` is stable, as those of the error tree are; `again`: the same request can succeed in a moment."""
        super().__init__(message)
        self.status = status
        self.code = code
        self.again: bool = again or status == HTTPStatus.TOO_MANY_REQUESTS


def status_of(error: errors.BusError) -> HTTPStatus:
    """The status of an error of the tree."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def problem(status: int, code: str, message: str) -> Problem:
    """A problem of that code."""
    text = printable(message)
    title = code.replace("_", " ").capitalize()
    return Problem(f"{URN}{code}", title, int(status), text, code, text)


def problem_of(error: errors.BusError) -> Problem:
    """An error of the tree as a problem, with what it knows beside its message."""
    found = problem(status_of(error), error.code, str(error))
    if isinstance(error, errors.PositionLost) and error.lost is not None:
        found.lost = error.lost
    if isinstance(error, errors.ValidationError | errors.SchemaConflict):
        found.errors = [printable(each) for each in error.errors] or UNSET
    return found


def answer(found: Problem, **headers: str) -> Response:
    """The answer that a problem is; a body that was refused unread ends its connection."""
    if found.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"
    return Response(msgspec.json.encode(found), found.status, headers, MEDIA_TYPE)


async def answer_bus_error(request: Request, error: Exception) -> Response:
    """An error of the tree: a warning for what the caller did wrong, an ERROR for what we cannot do."""
    if not isinstance(error, errors.BusError):  # pragma: no cover - Starlette hands this handler nothing else
        raise error
    found = problem_of(error)
    if isinstance(error, errors.NotPermitted | errors.RateLimited):
        _audit(request, error)
    elif found.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request failed", path=request.url.path, code=error.code, error=error)
    else:
        logger.warning("validation refused a request", path=request.url.path, code=error.code)
    return answer(found, **_hints(request, error))


def _audit(request: Request, error: errors.BusError) -> None:
    """Who was refused what; why a token is not valid stands here alone."""
    reason = error.reason if isinstance(error, errors.Unauthenticated) else str(error)
    peer = request.client.host if request.client else None
    audit(request.state.action, asker(request), outcome="refused", code=error.code, reason=reason, peer=peer)


def _hints(request: Request, error: errors.BusError) -> dict[str, str]:
    """Headers that say what to do: when to come again, and with what."""
    match error:
        case errors.Unauthenticated():
            wrong = ', error="invalid_token"' if "authorization" in request.headers else ""
            return {"www-authenticate": f'Bearer realm="wowevent"{wrong}'}
        case errors.RateLimited():
            return {"retry-after": str(ceil(error.retry_after))}
        case _:
            return {"retry-after": "1"} if error.retryable else {}


async def answer_refusal(_request: Request, error: Exception) -> Response:
    """What only HTTP refuses."""
    if not isinstance(error, Refusal):  # pragma: no cover - as above
        raise error
    retry = {"retry-after": "1"} if error.again else {}
    return answer(problem(error.status, error.code, str(error)), **retry)


async def answer_http_error(_request: Request, error: Exception) -> Response:
    """No such path, no such method, a media type that is not ours."""
    if not isinstance(error, HTTPException):  # pragma: no cover - as above
        raise error
    code = HTTPStatus(error.status_code).name.lower()
    return answer(problem(error.status_code, code, error.detail), **dict(error.headers or {}))


async def answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client went away while it sent; nobody reads this."""
    return answer(problem(HTTPStatus.BAD_REQUEST, "client_disconnected", "the request ended early"))


async def answer_unknown(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has it, the caller learns no more than that."""
    logger.error("request failed by an internal error", path=request.url.path, exc_info=error)
    message = "this is a fault of the service; its log has it"
    return answer(problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message))
