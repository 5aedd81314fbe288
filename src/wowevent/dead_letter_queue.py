"""The queue of failed events: one in memory that a consumer works off by itself, or a view of a bus's dead letters."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from wowevent.broker import DeadLetter, Reason
from wowevent.bus import EventBus
from wowevent.clock import Clock, SystemClock
from wowevent.errors import Closed, InvalidEvent, NotSupported, shown
from wowevent.event import Event, check_name
from wowevent.log import logger
from wowevent.retry import RetryPolicy
from wowevent.shelf import NEVER, FailedEvent, Shelf

HOPELESS: Final = frozenset(
    {Reason.REJECTED, Reason.VALIDATION_ERROR, Reason.DESERIALIZATION_ERROR, Reason.LOOP_DETECTED}
)
"""What no retry mends: the letters of a bus that died of these are permanent."""

_ALL: Final = 2**31
_LONGEST: Final = 512  # characters of a subscription's id


class Letters:
    """Failed events: a list at once where the queue stands alone; `await` gives the list of either kind."""

    def __init__(self, found: list[FailedEvent] | Callable[[], Awaitable[list[FailedEvent]]]) -> None:
        """`found` is the list, or asks the engine for it."""
        self._found = found

    def __iter__(self) -> Iterator[FailedEvent]:
        return iter(self._here())

    def __len__(self) -> int:
        return len(self._here())

    def __getitem__(self, place: int) -> FailedEvent:
        return self._here()[place]

    def __await__(self) -> Generator[Any, None, list[FailedEvent]]:
        return self._ask().__await__()

    async def _ask(self) -> list[FailedEvent]:
        return self._found if isinstance(self._found, list) else await self._found()

    def _here(self) -> list[FailedEvent]:
        if isinstance(self._found, list):
            return self._found
        raise NotSupported("this queue shows the dead letters of a bus, which must be asked: await what it returns")


class Redelivery:
    """What `retry_dead_letter` did. Where the queue stands alone: true if something was there.

    `await` gives how many there were, and is the only way to know it of a queue that shows a bus's.
    """

    def __init__(self, found: int | asyncio.Task[int]) -> None:
        """`found` is the number, or the task that finds it."""
        self._found = found

    def __bool__(self) -> bool:
        if isinstance(self._found, int):
            return self._found > 0
        raise NotSupported("the bus is being asked: await what retry_dead_letter returns to know how many there were")

    def __await__(self) -> Generator[Any, None, int]:
        return self._ask().__await__()

    async def _ask(self) -> int:
        return self._found if isinstance(self._found, int) else await asyncio.shield(self._found)


class DeadLetterQueue:
    """Failed events, each with its retries; alone in memory, or `DeadLetterQueue(bus=bus)`: the bus's own dead letters.

    Alone it is for a consumer that retries by hand:

        for failed in dlq.get_retry_queue():
            if failed.should_retry() and dlq.retry_dead_letter(failed):
                ...  # handle failed.event; if that fails, add_failed_event again: its count goes on

    What is taken leaves the queue; nothing else does, so what is due stays until somebody takes it. A process that
    ends takes such a queue with it.

    With a bus it shows the letters that its engine keeps, for every process the same. The bus has retried and buried
    them by itself: those that died of what can pass are given for another round, with fresh attempts; the HOPELESS
    are permanent. There, every answer must be awaited.
    """

    def __init__(
        self,
        retry: RetryPolicy | None = None,
        *,
        max_retries: int = 5,
        initial: float = 1.0,
        multiplier: float = 2.0,
        maximum: float = 300.0,
        jitter: float = 0.0,
        max_size: int = 10_000,
        bus: EventBus | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Retries after 1, 2, 4, 8, 16 s unless told otherwise, by a policy or by its numbers (seconds).

        `max_size` failed events are kept, and one more is refused. ValueError for numbers that make no sense.
        """
        numbers = RetryPolicy(
            max_retries=max_retries, initial=initial, multiplier=multiplier, maximum=maximum, jitter=jitter
        )
        if retry is not None and numbers != RetryPolicy():
            raise ValueError("a RetryPolicy, or its numbers: not both")
        if max_size < 1:
            raise ValueError("max_size: 1 or more")
        self._bus = bus
        self._shelf = Shelf(retry or numbers, max_size, clock or SystemClock())
        self._retried = 0
        self._jobs: set[asyncio.Task[int]] = set()
        self._closed = False

    async def add_failed_event(
        self,
        event: Event,
        subscription_id: str,
        subscriber_agent: str = "",
        failure_reason: Reason | str = Reason.UNKNOWN,
        error_message: object = "",
    ) -> FailedEvent:
        """Keep a failure; of an event and subscription that failed before, it is one more.

        After the last retry (the event's own `max_retries`, else the policy's) it is permanent. Raises InvalidEvent,
        StorageFull when `max_size` are there, NotSupported with a bus.
        """
        if self._bus is not None:
            raise NotSupported("the bus retries and buries what its handlers fail at by itself; it is shown here")
        if not isinstance(event, Event):
            raise InvalidEvent(f"add_failed_event takes an Event, not {type(event).__name__}")
        if not (isinstance(subscription_id, str) and 0 < len(subscription_id) <= _LONGEST):
            raise InvalidEvent(f"subscription_id: {shown(subscription_id)} is not a text of 1 to {_LONGEST} characters")
        agent = check_name(subscriber_agent) if subscriber_agent else ""
        return self._shelf.add(event, subscription_id, agent, _reason(failure_reason), str(error_message))

    def get_retry_queue(self) -> Letters:
        """All that have retries left, whether due or not, the soonest first. It takes nothing out."""
        return Letters(self._shelf.give() if self._bus is None else partial(self._shown, permanent=False))

    def get_permanent_failures(self) -> Letters:
        """Those that nothing retries any more, the first that failed first."""
        if self._bus is not None:
            return Letters(partial(self._shown, permanent=True))
        return Letters([failed for failed in self._shelf.all() if failed.is_permanent])

    def get_dead_letters(
        self,
        subscription_id: str | None = None,
        reason: Reason | str | None = None,
        correlation_id: str | None = None,
    ) -> Letters:
        """All that fit every given filter, the first that failed first. `subscription_id` may be an agent's name."""
        wanted = None if reason is None else _reason(reason)
        if self._bus is not None:
            filters: dict[str, Any] = {"subscription": subscription_id, "reason": wanted}
            return Letters(partial(self._shown, correlation_id=correlation_id, **filters))
        return Letters(
            [
                failed
                for failed in self._shelf.all()
                if subscription_id in (None, failed.subscription_id, failed.subscriber_agent)
                and wanted in (None, failed.failure_reason)
                and correlation_id in (None, failed.event.correlation_id)
            ]
        )

    def retry_dead_letter(self, which: str | FailedEvent) -> Redelivery:
        """Retry what failed of this correlation id or event id, or one that was listed.

        Alone, in this order: of the due ones that `get_retry_queue` gave last, the first leaves the queue, and its
        caller is the one to retry it (if it has failed again meanwhile, it stays as it is). Where none was given, this
        is reprocessing by hand: all of that id are due now, permanent ones with fresh retries.

        With a bus, all of that id go to their subscriptions again, with fresh attempts. Without `await` that is done in
        the background, a failure is logged, and `close` waits for it.
        """
        if self._bus is None:
            return Redelivery(self._shelf.retry(which))
        if self._closed:
            raise Closed("this queue is closed")
        job = asyncio.get_running_loop().create_task(self._redeliver(self._bus, which))
        self._jobs.add(job)
        job.add_done_callback(self._job_done)
        return Redelivery(job)

    async def discard(self, which: str | FailedEvent) -> int:
        """Forget what failed of this correlation id or event id, or one that was listed; returns how many."""
        if self._bus is None:
            return self._shelf.discard(which)
        return await self._bus.dead_letters.discard(await _ids(self._bus, which))

    async def get_stats(self) -> dict[str, Any]:
        """`total` here now, of which `waiting`, `due` and `permanent`; `by_reason`; `retried` and `resolved`.

        `retried` counts what was taken for a retry, or redelivered, through this queue; `resolved` of them have not
        failed again (None with a bus: their subscriptions know).
        """
        here = self._shelf.all() if self._bus is None else await self._shown()
        permanent = sum(failed.is_permanent for failed in here)
        due = sum(failed.should_retry() for failed in here)
        return {
            "total": len(here),
            "waiting": len(here) - due - permanent,
            "due": due,
            "permanent": permanent,
            "by_reason": dict(Counter(failed.failure_reason.value for failed in here)),
            "retried": self._shelf.retried if self._bus is None else self._retried,
            "resolved": self._shelf.retried - self._shelf.returned if self._bus is None else None,
        }

    async def close(self) -> None:
        """Wait for the redeliveries that are under way, and begin no more. Stopping the bus ends them, too."""
        self._closed = True
        await asyncio.gather(*self._jobs, return_exceptions=True)

    async def _shown(self, *, permanent: bool | None = None, **filters: Any) -> list[FailedEvent]:
        """The engine's letters that fit."""
        if self._bus is None:
            return []
        letters = await self._bus.dead_letters.list(**filters, limit=_ALL)
        specs = [present.subscription for present in await self._bus.broker.presence()] if letters else []
        agents = {spec.id: spec.agent for spec in specs}
        shown = [_failed(letter, agents.get(letter.subscription, "")) for letter in letters]
        return [failed for failed in shown if permanent in (None, failed.is_permanent)]

    async def _redeliver(self, bus: EventBus, which: str | FailedEvent) -> int:
        count = await bus.dead_letters.redeliver(await _ids(bus, which))
        self._retried += count
        return count

    def _job_done(self, job: asyncio.Task[int]) -> None:
        self._jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            logger.error("dead_letter could not be redelivered", error=error)


def _reason(reason: Reason | str) -> Reason:
    try:
        return Reason(reason)
    except ValueError:
        raise InvalidEvent(f"failure_reason: {shown(reason)} is none of {', '.join(Reason)}") from None


async def _ids(bus: EventBus, which: str | FailedEvent) -> list[str]:
    """The engine's letters that are meant."""
    if isinstance(which, str):
        found = [
            *await bus.dead_letters.list(event_id=which, limit=_ALL),
            *await bus.dead_letters.list(correlation_id=which, limit=_ALL),
        ]
    else:
        subscription, event_id = which.subscription_id, which.event.event_id
        found = [*await bus.dead_letters.list(subscription=subscription, event_id=event_id, limit=_ALL)]
    return list(dict.fromkeys(letter.id for letter in found))


def _failed(letter: DeadLetter, agent: str) -> FailedEvent:
    """A letter of the engine's: given up, and due unless nothing can mend it."""
    permanent = letter.reason in HOPELESS
    times = [attempt.time for attempt in letter.attempts] or [letter.time]
    return FailedEvent(
        event=letter.event,
        subscription_id=letter.subscription,
        subscriber_agent=agent,
        failure_reason=letter.reason,
        error_message=letter.error,
        retry_count=max(0, len(letter.attempts) - 1),
        first_failed_at=datetime.fromtimestamp(times[0], UTC),
        last_failed_at=datetime.fromtimestamp(times[-1], UTC),
        next_retry_at=None if permanent else datetime.fromtimestamp(letter.time, UTC),
        due=NEVER if permanent else 0.0,
    )
