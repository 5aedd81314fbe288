"""What a request begins and does not wait for: looked at, cancelled, bounded in number; gone with the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from msgspec import Struct

from wowevent.errors import BusError, printable, shown
from wowevent.log import logger
from wowevent.service.answers import Failure, JobState
from wowevent.service.failures import Refusal

if TYPE_CHECKING:
    from wowevent.access.rights import Identity
    from wowevent.replay import ReplayControl

RUNNING: Final = 4
"""Jobs of a kind that are under way at a time, held ones included."""
KEPT: Final = 100
"""Jobs that ended and can still be looked at."""


class Shown(Protocol):
    """What is seen of a job."""

    id: str
    state: JobState
    ended_at: float | None
    failure: Failure | None


S = TypeVar("S", bound=Shown)


class Job(Struct, Generic[S], eq=False):
    """One job, under way or ended, and the task that it is."""

    shown: S
    task: asyncio.Task[Any]
    owner: Identity | None
    """Who began it, where that is known."""
    control: ReplayControl | None
    """Holds it, and lets it go on, where that can be."""

    @property
    def going(self) -> bool:
        """Whether it is under way, or held."""
        return self.shown.ended_at is None

    def concerns(self, identity: Identity | None) -> bool:
        """Whether who asks may know of it: it is theirs, or they administer."""
        return identity is None or self.owner is None or self.owner.name == identity.name or identity.may("admin")


class Jobs(Generic[S]):
    """The jobs of a kind of one application."""

    def __init__(self, kind: str, kinds: str) -> None:
        """`kind` names one of them, `kinds` several."""
        self._kind = kind
        self._kinds = kinds
        self._known: dict[str, Job[S]] = {}

    def start(
        self,
        shown: S,
        work: Callable[[], Coroutine[Any, Any, Any]],
        *,
        owner: Identity | None,
        control: ReplayControl | None = None,
    ) -> S:
        """Begin one. Refusal if too many run."""
        self.check_room()
        job = Job(shown, asyncio.create_task(work(), name=f"wowevent:{self._kind}"), owner, control)
        job.task.add_done_callback(lambda task: self._end(shown, task))
        self._known[shown.id] = job
        self._forget()
        return shown

    def check_room(self) -> None:
        """Refusal if as many are under way as may be."""
        if sum(job.going for job in self._known.values()) >= RUNNING:
            message = f"{RUNNING} {self._kinds} are under way; wait for one, or cancel one"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"too_many_{self._kinds}", message)

    def all(self, identity: Identity | None) -> list[S]:
        """Those that concern who asks, the newest first."""
        return [job.shown for job in reversed(self._known.values()) if job.concerns(identity)]

    def get(self, id: str, identity: Identity | None) -> S:
        """One of them; Refusal if it is unknown."""
        return self._get(id, identity).shown

    def pause(self, id: str, identity: Identity | None) -> S:
        """Hold one, unless it has ended; Refusal if it is unknown."""
        job = self._get(id, identity)
        if job.going and job.control is not None:
            job.control.pause()
            job.shown.state = "paused"
        return job.shown

    def resume(self, id: str, identity: Identity | None) -> S:
        """Let one go on, unless it has ended; Refusal if it is unknown."""
        job = self._get(id, identity)
        if job.going and job.control is not None:
            job.control.resume()
            job.shown.state = "running"
        return job.shown

    async def cancel(self, id: str, identity: Identity | None) -> S:
        """Cancel one, and return when it has ended: what it was doing is finished. Refusal if it is unknown."""
        job = self._get(id, identity)
        job.task.cancel()
        await asyncio.gather(job.task, return_exceptions=True)
        return job.shown

    async def close(self) -> None:
        """Cancel all."""
        await asyncio.gather(*(self.cancel(id, None) for id in self._known))

    def end_fallen(self, stands: Callable[[Identity], bool]) -> None:
        """Cancel those whose owner's token holds no more."""
        for job in self._known.values():
            if job.going and not job.task.cancelling() and job.owner is not None and not stands(job.owner):
                logger.warning(f"{self._kind} cancelled, its token holds no more", **{self._kind: job.shown.id})
                job.task.cancel()

    def _get(self, id: str, identity: Identity | None) -> Job[S]:
        if (job := self._known.get(id)) is None or not job.concerns(identity):
            raise Refusal(HTTPStatus.NOT_FOUND, f"{self._kind}_not_found", f"there is no {self._kind} {shown(id)} here")
        return job

    def _end(self, shown: S, task: asyncio.Task[Any]) -> None:
        shown.ended_at = time.time()
        error = None if task.cancelled() else task.exception()
        shown.state = "cancelled" if task.cancelled() else "failed" if error is not None else "done"
        if isinstance(error, BusError):
            shown.failure = Failure(error.code, printable(str(error)))
        elif error is not None:
            shown.failure = Failure("internal_error", "this is a fault of the service; its log has it")
        if error is not None:
            logger.error(f"{self._kind} ended early", **{self._kind: shown.id}, exc_info=error)

    def _forget(self) -> None:
        ended = [id for id, job in self._known.items() if not job.going]
        for id in ended[: max(0, len(ended) - KEPT)]:
            del self._known[id]
