"""What a failure is over HTTP: one table from the error tree to a status, and one shape of body."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse, Response

from wowevent import errors
from wowevent.log import logger

if TYPE_CHECKING:
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

STATUS: Final[dict[type[errors.BusError], HTTPStatus]] = {
    errors.PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.InvalidEvent: HTTPStatus.BAD_REQUEST,
    errors.FormatTooNew: HTTPStatus.BAD_REQUEST,
    errors.ProtocolError: HTTPStatus.BAD_REQUEST,
    errors.NotPermitted: HTTPStatus.FORBIDDEN,
    errors.SubscriptionNotFound: HTTPStatus.NOT_FOUND,
    errors.SubscriptionConflict: HTTPStatus.CONFLICT,
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


def status_of(error: errors.BusError) -> HTTPStatus:
    """The status of an error of the tree."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def answer(status: int, code: str, message: str, **headers: str) -> Response:
    """`{"error": code, "message": message}`; a body that was refused unread ends its connection."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        headers["connection"] = "close"
    return JSONResponse({"error": code, "message": printable(message)}, status, headers)


def printable(text: str) -> str:
    """The text without what UTF-8 cannot say: a lone surrogate may come from outside within a message."""
    return text.encode("utf-8", "backslashreplace").decode()


async def answer_bus_error(request: Request, error: Exception) -> Response:
    """An error of the tree: a warning for what the caller did wrong, an ERROR for what we cannot do."""
    if not isinstance(error, errors.BusError):  # pragma: no cover - Starlette hands this handler nothing else
        raise error
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("request failed", path=request.url.path, code=error.code, error=error)
    else:
        logger.warning("validation refused a request", path=request.url.path, code=error.code)
    retry = {"retry-after": "1"} if error.retryable else {}
    return answer(status, error.code, str(error), **retry)


async def answer_http_error(_request: Request, error: Exception) -> Response:
    """No such path, no such method, a media type that is not ours."""
    status = HTTPStatus(getattr(error, "status_code", HTTPStatus.NOT_FOUND))
    known: HTTPException | Exception = error
    headers = dict(getattr(known, "headers", None) or {})
    return answer(status, status.name.lower(), str(getattr(error, "detail", status.phrase)), **headers)


async def answer_nobody(_request: Request, _error: Exception) -> Response:
    """The client went away while it sent; nobody reads this."""
    return answer(HTTPStatus.BAD_REQUEST, "client_disconnected", "the request ended early")


async def answer_unknown(request: Request, error: Exception) -> Response:
    """A fault of ours: the log has it, the caller learns no more than that."""
    logger.error("request failed by an internal error", path=request.url.path, exc_info=error)
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "this is a fault of the service; its log has it")
