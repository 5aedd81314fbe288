"""What an exception of a handler means. No I/O."""

from __future__ import annotations

import traceback

from wowevent.broker import Reason
from wowevent.errors import PauseSubscription, Reject, RetryAfter, ValidationError, printable
from wowevent.retry import Failed, Halted, Later, Outcome, Rejected


def outcome_of(error: BaseException, timeout: float | None, now: float) -> Outcome:
    """The outcome of a call that raised; `timeout` is how long it had, `now` in Unix seconds."""
    said = printable(str(error))
    text = f"{type(error).__name__}: {said}" if said else type(error).__name__
    trace = printable("".join(traceback.format_exception(error)))
    match error:
        case RetryAfter():
            return Later(error.seconds)
        case PauseSubscription():
            return Halted(error.seconds(now), printable(error.reason))
        case Reject():
            return Rejected(said, trace)
        case ValidationError():
            return Rejected(said, trace, Reason.VALIDATION_ERROR)
        case TimeoutError() if timeout is not None:
            return Failed(text, trace, Reason.TIMEOUT)
        case _:
            return Failed(text, trace)
