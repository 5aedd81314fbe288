"""What a service says of itself once it serves: a banner for people, and the record in its data directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from wowevent.bus import EventBus
from wowevent.cli.pidfile import Record, Worker, moments
from wowevent.settings import Settings


class Front:
    """Where a service is, and how it was started."""

    def __init__(
        self, settings: Settings, options: dict[str, Any], log: Path, *, http: str, websocket: str | None
    ) -> None:
        """`options` are those of the command line; `http` and `websocket` are URLs."""
        self.engine: str = settings.shown_url()
        """The engine's URL, without a password."""
        self.namespace: str = settings.namespace
        self.http: str = http
        self.websocket: str | None = websocket
        self._options = options
        self._log = log

    def show(self, promise: str) -> None:
        """Print the banner."""
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        console.print(f"[bold]WowEvent {version('wowevent')}[/]")
        for name, value in self._rows(promise):
            console.print(f"  [dim]{name:<10}[/] ", end="")
            console.print(value, markup=False)
        console.file.flush()

    def _rows(self, promise: str) -> list[tuple[str, str]]:
        workers = self._options.get("workers", 1)
        return [
            ("pages", f"{self.http}/"),
            ("health", f"{self.http}/health"),
            ("ready", f"{self.http}/ready"),
            ("events", f"{self.http}/events"),
            ("websocket", self.websocket or "not served"),
            ("engine", self.engine),
            ("promise", promise),
            ("namespace", self.namespace),
            *([("workers", str(workers))] if workers > 1 else []),
            ("log file", str(self._log)),
            ("stop", "Ctrl-C"),
        ]

    def record(self, workers: Sequence[Worker] = ()) -> Record:
        """Who serves, which is this process, or workers that it has started."""
        import psutil

        created, since_boot = moments(psutil.Process())
        return Record(
            pid=os.getpid(),
            created=created,
            since_boot=since_boot,
            websocket=self.websocket,
            http=self.http,
            engine=self.engine,
            namespace=self.namespace,
            log=str(self._log),
            version=version("wowevent"),
            options=self._options,
            cwd=str(Path.cwd()),
            workers=tuple(workers),
        )


def let_go_of_stderr() -> None:
    """Nobody reads it any more: what went wrong is in the log from now on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


async def promise_of(bus: EventBus | None) -> str:
    """What the engine promises, as far as it can be asked."""
    if bus is None:
        return "the event bus is disabled (EVENT_BUS_ENABLED=false): only /health answers"
    health = await bus.health()
    promise = health["details"].get("promise")
    return str(promise) if promise else "the engine does not answer yet; /ready will say when it does"
