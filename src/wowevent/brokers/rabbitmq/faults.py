"""What the server and the driver raise, as errors of ours."""

from __future__ import annotations

from typing import Final

from aiormq import exceptions

from wowevent.errors import BrokerError, BrokerUnavailable, BusError, NotPermitted

_CLASSES: Final[tuple[tuple[type[BaseException], type[BusError]], ...]] = (
    (exceptions.AuthenticationError, NotPermitted),
    (exceptions.ProbableAuthenticationError, NotPermitted),
    (exceptions.ChannelAccessRefused, NotPermitted),
    (exceptions.ConnectionNotAllowed, NotPermitted),
    (exceptions.ChannelNotFoundEntity, BrokerUnavailable),  # somebody deleted it: it is made again
    (exceptions.AMQPError, BrokerUnavailable),
    (TimeoutError, BrokerUnavailable),
    (OSError, BrokerUnavailable),
    (EOFError, BrokerUnavailable),
    (RuntimeError, BrokerUnavailable),  # so the driver says that a channel is closed
)


def translate(error: BaseException) -> Exception:
    """The error of ours for one of the driver's; that one is its cause."""
    if isinstance(error, BusError):
        return error
    kind = next((ours for theirs, ours in _CLASSES if isinstance(error, theirs)), BrokerError)
    said = str(error) or type(error).__name__
    if isinstance(error, exceptions.InvalidFrameError) and "Connection.OpenOk" in said:
        said = "the server refuses the virtual host: it is not there, or not for this user"
    ours = kind(f"rabbitmq: {said}")
    ours.__cause__ = error
    return ours
