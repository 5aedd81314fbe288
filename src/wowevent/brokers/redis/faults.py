"""What the server and the driver raise, as errors of ours."""

from __future__ import annotations

from typing import Final

from redis import exceptions

from wowevent.errors import BrokerError, BrokerUnavailable, BusError, NotPermitted, StorageFull

SCRIPT_WORDS: Final = frozenset({"EPOCH", "STALE", "GONE", "LOST"})
"""How the answers begin by which our scripts refuse."""

# By the first word of what the server says; the driver turns some of them into classes and drops the word.
_WORDS: Final[dict[str, type[BusError]]] = {
    "OOM": StorageFull,
    "MISCONF": StorageFull,
    "NOAUTH": NotPermitted,
    "WRONGPASS": NotPermitted,
    "NOPERM": NotPermitted,
    **dict.fromkeys(
        [
            "READONLY",
            "LOADING",
            "MASTERDOWN",
            "CLUSTERDOWN",
            "TRYAGAIN",
            "MOVED",
            "ASK",
            "NOREPLICAS",
            "BUSY",
            "NOSCRIPT",
            "UNBLOCKED",
        ],
        BrokerUnavailable,
    ),
}
_CLASSES: Final[tuple[tuple[type[Exception], type[BusError]], ...]] = (
    (exceptions.OutOfMemoryError, StorageFull),
    (exceptions.AuthenticationError, NotPermitted),  # a ConnectionError, so it stands before those
    (exceptions.AuthorizationError, NotPermitted),
    (exceptions.NoPermissionError, NotPermitted),
    (exceptions.ReadOnlyError, BrokerUnavailable),
    (exceptions.NoScriptError, BrokerUnavailable),
    (exceptions.ClusterDownError, BrokerUnavailable),
    (exceptions.MovedError, BrokerUnavailable),
    (exceptions.AskError, BrokerUnavailable),
    (exceptions.TryAgainError, BrokerUnavailable),
    (exceptions.MasterDownError, BrokerUnavailable),
    (exceptions.ConnectionError, BrokerUnavailable),
    (exceptions.TimeoutError, BrokerUnavailable),
    (OSError, BrokerUnavailable),
)
ELSEWHERE: Final = (
    exceptions.NoScriptError,
    exceptions.ReadOnlyError,
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.MasterDownError,
)
"""Another server has the log now, or this one forgot the scripts: dial again."""


class Refused(Exception):
    """A script of ours said no: one of `SCRIPT_WORDS`, and a number where it has one."""

    def __init__(self, word: str, rest: str) -> None:
        super().__init__(f"{word} {rest}")
        self.word: str = word
        self.number: int = int(rest) if rest.lstrip("-").isdigit() else 0


def translate(error: BaseException) -> Exception:
    """The error of ours for one of the driver's; that one is its cause."""
    if isinstance(error, BusError | Refused):
        return error
    word, _, rest = str(error).partition(" ")
    if word in SCRIPT_WORDS and isinstance(error, exceptions.ResponseError):
        return Refused(word, rest)
    kind = _WORDS.get(word) or next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), BrokerError)
    ours = kind(f"redis: {error}")
    ours.__cause__ = error
    return ours
