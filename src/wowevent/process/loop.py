"""The event loop of a process of ours: uvloop where it exists, and an event that a signal to end sets."""

from __future__ import annotations

import asyncio
import os
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


def ending(parent: int | None = None) -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; a second one ends the process as it would any other.

    `parent` is a descriptor that can be read once the process that started us is gone: that sets it, too. Then further
    signals change nothing: a service manager tells all of its processes at once, and our parent tells us once more.
    """
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def tell() -> None:
        told.set()
        if parent is None:
            for each in _ENDINGS:
                loop.remove_signal_handler(each)
            signal.signal(signal.SIGINT, signal.default_int_handler)

    for each in _ENDINGS:
        loop.add_signal_handler(each, tell)
    if parent is not None:
        _end_with(parent, told)
    return told


def _end_with(parent: int, told: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def tell() -> None:
        loop.remove_reader(parent)  # it can be read from now on
        told.set()

    os.set_blocking(parent, False)
    loop.add_reader(parent, tell)
