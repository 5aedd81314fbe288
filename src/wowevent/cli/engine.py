"""Which engine a command talks to: the options that all of them have, and the bus that they stand for."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any, Final

import typer

from wowevent.bus import EventBus
from wowevent.process.logs import set_up_logs
from wowevent.schema import SchemaRegistry
from wowevent.settings import Settings

Url = Annotated[
    str | None,
    typer.Option(
        help="The engine: sqlite:///path, redis://, amqp://, nats://, memory://.",
        show_default="WOWEVENT_URL, else an embedded log",
    ),
]
Namespace = Annotated[str | None, typer.Option(help="The namespace.", show_default="WOWEVENT_NAMESPACE, else default")]

_LEVELS: Final = frozenset({"LOG_LEVEL", "WOWEVENT_LOG_LEVEL"})


def settle(**given: Any) -> Settings:
    """The settings of a command: what it was given, over the environment; what was not given is None."""
    return Settings(**{name: value for name, value in given.items() if value is not None})


def open_bus(settings: Settings, registry: SchemaRegistry | None = None) -> EventBus:
    """The bus of a short command, with the registry that it attaches, if any.

    Its log lines from WARNING on go to stderr, unless LOG_LEVEL says otherwise.
    The configuration file's level is the service's.
    """
    asked = _LEVELS & os.environ.keys()
    set_up_logs(settings.log_level if asked else "WARNING")
    note_memory(settings)
    url, most = settings.engine_url(), settings.max_payload
    return EventBus(url, namespace=settings.namespace, max_payload=most, registry=registry)


def note_memory(settings: Settings) -> None:
    """Say of an engine that lives in this process what that means."""
    if settings.engine_url().partition("://")[0] == "memory":
        note("memory:// is gone when this process ends, and no other process sees it")


def note(text: str) -> None:
    """Something that a person should know and a pipe should not get."""
    print(f"note: {text}", file=sys.stderr)
