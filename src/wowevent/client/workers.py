"""Handlers of one subscription, run beside the receive loop: as many at a time as it says, urgent events first.

A worker is a task that is there only while there is something to handle.
"""

from __future__ import annotations

import asyncio
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

from wowevent.broker import Lease
from wowevent.client.settling import Verdict
from wowevent.client.subscription import Counters, Subscription
from wowevent.delivery import Delivery, enter
from wowevent.errors import PauseSubscription, Reject, RetryAfter, ValidationError
from wowevent.event import Event
from wowevent.handler import Handler
from wowevent.log import logger
from wowevent.router.wire import Nack

_STRETCH: Final = 64  # events after which others get their turn, whatever the handler awaits
_HEED: Final = 1.0  # seconds for a cancelled handler to end
_TEXT: Final = 2_000  # characters kept of an error
_TRACE: Final = 8_000  # and of a traceback, its end

Reply = Callable[[Event, Any, str | None], None]
"""`reply(request, value, error)`."""

_worker: ContextVar[asyncio.Task[None] | None] = ContextVar("wowevent_client_worker", default=None)


class Workers:
    """The running handlers of one subscription."""

    def __init__(
        self,
        subscription: Subscription,
        handler: Handler,
        concurrency: int,
        *,
        counters: Counters,
        reply: Reply,
        progress: Callable[[Subscription], None],
    ) -> None:
        """`progress(subscription)` is called when its inbox or what it has to say changed."""
        self.stopped: bool = False
        """No more events are begun."""
        self._subscription = subscription
        self._handler = handler
        self._concurrency = concurrency
        self._counters = counters
        self._reply = reply
        self._progress = progress
        self._tasks: set[asyncio.Task[None]] = set()
        self._rest: asyncio.TimerHandle | None = None  # an anonymous one's: its handler asked for it

    def wake(self) -> None:
        """Something is in the inbox."""
        if self.stopped or self._rest is not None:
            return
        for _ in range(min(self._concurrency - len(self._tasks), len(self._subscription.inbox))):
            task = asyncio.create_task(self._work(), name=f"wowevent:client:{self._subscription.id}")
            self._tasks.add(task)
            task.add_done_callback(self._done)

    @property
    def busy_here(self) -> bool:
        """Whether one of these handlers is asking."""
        return _worker.get() in self._tasks

    @property
    def running(self) -> bool:
        """Whether a handler is."""
        return bool(self._tasks)

    async def finish(self, seconds: float) -> None:
        """Begin nothing more, and return once no handler is running; after `seconds` they are cancelled.

        One that does not heed that is left to itself, and said.
        """
        self.stopped = True
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=max(0.0, seconds))
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=_HEED)
            if left:
                logger.error("handler does not end", subscription=self._subscription.id, handlers=len(left))

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("handling stopped by an internal error", subscription=self._subscription.id, exc_info=error)
        self.wake()  # what came as it ended

    async def _work(self) -> None:
        _worker.set(asyncio.current_task())
        count = 0
        while not self.stopped and self._rest is None and (lease := self._subscription.inbox.pop()) is not None:
            await self._run(lease)
            self._progress(self._subscription)
            count += 1
            if count % _STRETCH == 0:
                await asyncio.sleep(0)

    async def _run(self, lease: Lease) -> None:
        """One call of the handler, and what follows from it."""
        event = lease.event
        enter(self._delivery(lease))
        try:
            value = await self._handler(event)
        except asyncio.CancelledError as error:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            self._fail(lease, error)
        except PauseSubscription as asked:
            self._pause(lease, asked)
        except Exception as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            self._fail(lease, error)
        else:
            self._counters.handled += 1
            if value is not None and event.reply_to is not None:
                self._reply(event, value, None)
            self._subscription.settle(lease, None)
        finally:
            enter(None)

    def _delivery(self, lease: Lease) -> Delivery:
        return Delivery(
            lease.event,
            lease.failures + 1,
            self._subscription.id,
            lease.position,
            False,
            lease.redelivered,
            lease.token,
            via=self._subscription.known_as,
        )

    def _pause(self, lease: Lease, asked: PauseSubscription) -> None:
        """Give back what was not handled, and let the router pause the subscription; an anonymous one waits here."""
        subscription, seconds = self._subscription, asked.seconds(time.time())
        logger.warning(
            "subscription pauses, its handler asks for it",
            subscription=subscription.id,
            seconds=round(seconds, 3),
            reason=asked.reason,
        )
        if subscription.settling is None:
            subscription.inbox.put(lease)
            self._begin_rest(seconds)
            return
        subscription.settle(lease, Nack(subscription_id="", tokens=(), pause=seconds, error=asked.reason[:_TEXT]))
        for waiting in subscription.inbox.clear():
            subscription.settle(waiting, Nack(subscription_id="", tokens=(), release=True))

    def _begin_rest(self, seconds: float) -> None:
        def over() -> None:
            self._rest = None
            self.wake()

        if self._rest is not None:
            self._rest.cancel()
        self._rest = asyncio.get_running_loop().call_later(seconds, over)

    def _fail(self, lease: Lease, error: BaseException) -> None:
        self._counters.failed += 1
        text = (f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)[:_TEXT]
        event = lease.event
        logger.warning(
            "delivery failed",
            subscription=self._subscription.id,
            event_id=event.event_id,
            topic=event.topic,
            attempt=lease.failures + 1,
            error=text,
        )
        if self._subscription.settling is None and event.reply_to is not None:
            self._reply(event, None, text)  # there is no other attempt; a named one's last failure the router tells
        self._subscription.settle(lease, verdict(error, text))


def verdict(error: BaseException, text: str) -> Verdict:
    """What an exception of a handler means."""
    trace = "".join(traceback.format_exception(error))[-_TRACE:]
    match error:
        case RetryAfter():
            return Nack(subscription_id="", tokens=(), retry_after=error.seconds)
        case Reject() | ValidationError():
            return Nack(subscription_id="", tokens=(), reject=True, error=str(error)[:_TEXT], traceback=trace)
        case _:
            return Nack(subscription_id="", tokens=(), error=text, traceback=trace)
