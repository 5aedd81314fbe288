"""A call that may block for ever, such as a look at a network file system: in a thread that nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(call: Callable[[], T]) -> T:
    """What it returns or raises. Whoever is cancelled leaves it behind; the process's end does not wait for it."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - whoever waits gets it
            _tell(loop, answer, None, error)
        else:
            _tell(loop, answer, result, None)

    threading.Thread(target=work, name="wowevent:aside", daemon=True).start()
    return await answer


def _tell(
    loop: asyncio.AbstractEventLoop, answer: asyncio.Future[T], result: T | None, error: BaseException | None
) -> None:
    def resolve() -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]  # there is an error or a result

    with suppress(RuntimeError):  # the loop was closed: nobody waits
        loop.call_soon_threadsafe(resolve)
