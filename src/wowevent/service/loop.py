"""The event loop of a process of ours: uvloop where it exists, and an event that a signal to end sets."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

_ENDINGS: Final = (signal.SIGTERM, signal.SIGINT)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run it to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415 - not everywhere
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def ending() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process as it would any other."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell() -> None:
        told.set()
        for each in _ENDINGS:
            loop.remove_signal_handler(each)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for each in _ENDINGS:
        loop.add_signal_handler(each, tell)
    return told
