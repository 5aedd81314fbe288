"""What the server and the driver raise, as errors of ours."""

from __future__ import annotations

from typing import Any, Final

from nats import errors

from wowevent.errors import BrokerError, BrokerUnavailable, BusError, NotPermitted, StorageFull

WRONG_SEQUENCE: Final = 10071
"""Somebody else was faster."""
NO_STREAM: Final = 10059
NO_CONSUMER: Final = 10014
OTHER_CONSUMER: Final = frozenset({10012, 10013, 10148})
"""A consumer of that name is there which cannot become what is wanted: it begins elsewhere, or is of another kind."""
_NO_MESSAGE: Final = frozenset({10037, 10043})
MOST_CONSUMERS: Final = 10026
NOT_DELETED: Final = 10057
"""A message could not be deleted: it was not there, or nothing can be written."""
_ABSENT: Final = (
    "no message found",
    "deleted message",
    "stream store eof",
)  # what is said then of one that is not there
_FULL: Final = frozenset(
    {10002, 10023, 10047, 10028, 10077, 10131}
)  # insufficient resources, storage, limits of the account
_CLASSES: Final[tuple[tuple[type[BaseException], type[BusError]], ...]] = (
    (errors.AuthorizationError, NotPermitted),
    (errors.Error, BrokerUnavailable),
    (TimeoutError, BrokerUnavailable),
    (OSError, BrokerUnavailable),
    (EOFError, BrokerUnavailable),
)


class Refused(Exception):
    """What the JetStream API said: the cause of the error that it became."""

    def __init__(self, error: dict[str, Any]) -> None:
        """`error` has code, err_code and description."""
        super().__init__(f"{error.get('description', 'refused')} ({error.get('err_code', error.get('code', '?'))})")
        self.code: int = int(error.get("err_code", 0))
        """The API's number for it."""


def refusal(error: dict[str, Any]) -> BusError:
    """The error of ours for one of the JetStream API."""
    cause = Refused(error)
    said = str(error.get("description", ""))
    if cause.code in _FULL or ("maximum" in said and "exceeded" in said) or "no space left" in said:
        kind: type[BusError] = StorageFull
    elif cause.code == WRONG_SEQUENCE or _absent(cause.code, said):
        kind = BrokerError
    else:
        kind = BrokerUnavailable
    ours = kind(f"nats: {cause}")
    ours.__cause__ = cause
    return ours


def code_of(error: BaseException) -> int:
    """The API's number, or 0."""
    return error.__cause__.code if isinstance(error.__cause__, Refused) else 0


def is_missing(error: BaseException) -> bool:
    """Whether it says that a message is not there."""
    return code_of(error) != 0 and _absent(code_of(error), str(error))


def _absent(code: int, said: str) -> bool:
    return code in _NO_MESSAGE or (code == NOT_DELETED and any(words in said.lower() for words in _ABSENT))


def translate(error: BaseException) -> Exception:
    """The error of ours for one of the driver's; that one is its cause."""
    if isinstance(error, BusError):
        return error
    kind = next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), BrokerError)
    said = str(error) or type(error).__name__
    if "authorization" in said.lower() or "permissions violation" in said.lower():
        kind = NotPermitted
    ours = kind(f"nats: {said}")
    ours.__cause__ = error
    return ours
