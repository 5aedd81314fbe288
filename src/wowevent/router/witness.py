"""What clients that are known by tokens did, for the audit log: who hears what, and what was refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from wowevent.access.audit import audit
from wowevent.errors import NotPermitted, shown
from wowevent.event import Event
from wowevent.router.connection import Connection
from wowevent.router.session import Effect, Listen, Send, Serve
from wowevent.router.wire import Bad, ClientFrame, Error, Publish, Request, Subscribe

_LONGEST: Final = 200  # characters of what a client named


def note(connection: Connection, frame: ClientFrame | Bad, effect: Effect) -> None:
    """One frame, if its effect is worth a line. A named subscription is told by `served` or `refused`."""
    match effect:
        case Listen():
            _write(connection, "subscribe", topics=_joined(effect.spec.patterns))
        case Send(frame=Error(error=NotPermitted.code) as error):
            action = type(frame).__name__.lower()
            _write(connection, action, outcome="refused", reason=error.message, **_about(frame))


def served(connection: Connection, effect: Serve) -> None:
    """It hears a named subscription from now on."""
    _write(connection, "subscribe", topics=_joined(effect.spec.patterns), subscription=effect.spec.id)


def refused(connection: Connection, effect: Serve, error: NotPermitted) -> None:
    """It does not: the subscription brings more than it may hear."""
    about = {"topics": _joined(effect.spec.patterns), "subscription": effect.spec.id}
    _write(connection, "subscribe", outcome="refused", reason=str(error), **about)


def _about(frame: ClientFrame | Bad) -> dict[str, str]:
    """Which topics a frame names."""
    match frame:
        case Subscribe(subscription=wanted):
            return {"topics": _joined([wanted.topics] if isinstance(wanted.topics, str) else wanted.topics)}
        case Publish(event=Event() as event) | Request(event=Event() as event):
            return {"topic": event.topic}
        case Publish(event=dict() as fields) | Request(event=dict() as fields):
            return {"topic": shown(fields.get("topic") or fields.get("event_type") or fields.get("type"))}
    return {}


def _joined(patterns: Iterable[str]) -> str:
    return ",".join(patterns)[:_LONGEST]


def _write(connection: Connection, action: str, *, outcome: str = "done", **facts: Any) -> None:
    audit(action, connection.session.identity, outcome=outcome, peer=connection.peer, **facts)
