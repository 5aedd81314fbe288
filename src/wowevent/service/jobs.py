"""What a request begins and does not wait for: looked at, cancelled, bounded in number; gone with the process.

Every process tells of those of all, and hands on what is to be done with one that another has.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final, Generic, Literal, NoReturn, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from wowevent.ending import end
from wowevent.errors import BusError, printable
from wowevent.errors import shown as shown_id
from wowevent.log import logger
from wowevent.pulse import JobPulse
from wowevent.service.failures import Refusal

if TYPE_CHECKING:
    from wowevent.access.rights import Identity
    from wowevent.errands import Errand, Errands
    from wowevent.replay import ReplayControl

RUNNING: Final = 4
"""Jobs of a kind that are under way at a time, held ones included."""
KEPT: Final = 100
"""Jobs that ended and can still be looked at."""
TOLD: Final = 5
"""Of these, those that other processes are told of."""

JobState = Literal["running", "paused", "done", "cancelled", "failed"]
Steering = Literal["pause", "resume", "cancel"]
_STEERINGS: Final[dict[str, Steering]] = {"pause": "pause", "resume": "resume", "cancel": "cancel"}


class Failure(Struct):
    """Why something ended early."""

    error: Annotated[str, Meta(description="A stable code, as in problems.")]
    message: str


class Shown(Protocol):
    """What is seen of a job."""

    id: str
    process: str
    state: JobState
    started_at: float
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
    order: str = ""
    """What another process asked for last, and got."""

    @property
    def going(self) -> bool:
        """Whether it is under way, or held."""
        return self.shown.ended_at is None

    def concerns(self, identity: Identity | None) -> bool:
        """Whether who asks may know of it: it is theirs, or they administer."""
        return _concerns(None if self.owner is None else self.owner.name, identity)


class Jobs(Generic[S]):
    """The jobs of a kind: those of one application, and what the others tell of theirs."""

    def __init__(
        self, kind: str, kinds: str, shown: type[S], errands: Errands | None, brief: Callable[[S], S] = lambda job: job
    ) -> None:
        """`kind` names one of them, `kinds` several; `brief` is what others are told of one, in few bytes."""
        self._kind = kind
        self._kinds = kinds
        self._shown = shown
        self._brief = brief
        self._errands = errands
        self._known: dict[str, Job[S]] = {}
        if errands is not None:
            errands.open(self)

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
        self._change()
        return shown

    def check_room(self) -> None:
        """Refusal if as many are under way as may be."""
        if sum(job.going for job in self._known.values()) >= RUNNING:
            message = f"{RUNNING} {self._kinds} are under way; wait for one, or cancel one"
            raise Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"too_many_{self._kinds}", message)

    async def all(self, identity: Identity | None) -> tuple[list[S], bool]:
        """Those of all processes that concern who asks, the newest first; and whether the others can be heard."""
        own = [job.shown for job in self._known.values() if job.concerns(identity)]
        if self._errands is None:
            return own[::-1], True
        others = [
            errand for errand in await self._errands.elsewhere(self._kind) if _concerns(errand.job.owner, identity)
        ]
        shown = [*own, *(found for errand in others if (found := self._understood(errand)) is not None)]
        return sorted(shown, key=_begun, reverse=True), self._errands.whole

    async def get(self, id: str, identity: Identity | None) -> S:
        """One of them; Refusal if no process has it."""
        if (job := self._known.get(id)) is not None and job.concerns(identity):
            return job.shown
        shown = self._understood(await self._far(id, identity))
        if shown is None:
            self._unknown(id)
        return shown

    async def steer(self, id: str, what: Steering, identity: Identity | None) -> S:
        """Hold one, let it go on, or cancel it and return when it has ended; one that had ended stays as it is.

        One of another process is steered there. Refusal if no process has it, and if that one does not answer.
        """
        if (job := self._known.get(id)) is not None and job.concerns(identity):
            await self._do(job, what)
            return job.shown
        errand = await self._far(id, identity)
        steered = None if self._errands is None else await self._errands.steer(errand, what)
        shown = None if steered is None else self._understood(steered)
        if shown is None:
            where = f"process {errand.process} on {errand.host}"
            message = f"{shown_id(id)} is a {self._kind} of {where}, which does not answer; ask again, or ask it"
            raise Refusal(HTTPStatus.CONFLICT, f"{self._kind}_elsewhere", message)
        return shown

    async def close(self) -> None:
        """Cancel all."""
        if self._errands is not None:
            self._errands.shut(self)
        await asyncio.gather(*(self._do(job, "cancel") for job in self._known.values()))

    # --- as other processes see them ----------------------------------------------------------------------------

    def pulses(self) -> list[JobPulse]:
        """See `wowevent.pulse.Desk`: those that are under way, and the last that ended."""
        going = [job for job in self._known.values() if job.going]
        ended = sorted((job for job in self._known.values() if not job.going), key=_ended)[-TOLD:]
        return [self._pulse(job) for job in (*going, *ended)]

    async def carry_out(self, id: str, what: str, order: str) -> None:
        """See `wowevent.pulse.Desk`."""
        job, steering = self._known.get(id), _STEERINGS.get(what)
        if job is not None and steering is not None:
            await self._do(job, steering)
            job.order = order

    def _pulse(self, job: Job[S]) -> JobPulse:
        owner = None if job.owner is None else job.owner.name
        return JobPulse(self._kind, job.shown.id, owner, msgspec.to_builtins(self._brief(job.shown)), job.order)

    async def _far(self, id: str, identity: Identity | None) -> Errand:
        """One of another process; Refusal if none has it."""
        found = None if self._errands is None else await self._errands.find(self._kind, id)
        if found is None or not _concerns(found.job.owner, identity):
            self._unknown(id)
        return found

    def _understood(self, errand: Errand) -> S | None:
        """What another process told; None for what is of another version."""
        try:
            return msgspec.convert(errand.job.shown, self._shown)
        except msgspec.ValidationError as error:
            logger.warning(f"a {self._kind} of another process is left out", process=errand.process, error=error)
            return None

    # --- here ---------------------------------------------------------------------------------------------------

    async def _do(self, job: Job[S], what: Steering) -> None:
        if what == "cancel":
            await end(job.task)
        elif job.going and job.control is not None:
            (job.control.pause if what == "pause" else job.control.resume)()
            job.shown.state = "paused" if what == "pause" else "running"
        self._change()

    def _change(self) -> None:
        if self._errands is not None:
            self._errands.change()

    def end_fallen(self, stands: Callable[[Identity], bool]) -> None:
        """Cancel those whose owner's token holds no more."""
        for job in self._known.values():
            if job.going and not job.task.cancelling() and job.owner is not None and not stands(job.owner):
                logger.warning(f"{self._kind} cancelled, its token holds no more", **{self._kind: job.shown.id})
                job.task.cancel()

    def _unknown(self, id: str) -> NoReturn:
        raise Refusal(HTTPStatus.NOT_FOUND, f"{self._kind}_not_found", f"no process has a {self._kind} {shown_id(id)}")

    def _end(self, shown: S, task: asyncio.Task[Any]) -> None:
        shown.ended_at = time.time()
        error = None if task.cancelled() else task.exception()
        shown.state = "cancelled" if task.cancelled() else "failed" if error is not None else "done"
        if isinstance(error, BusError):
            shown.failure = Failure(error.code, printable(str(error)))
            logger.error(f"{self._kind} ended early", **{self._kind: shown.id}, code=error.code, error=error)
        elif error is not None:
            shown.failure = Failure("internal_error", "this is a fault of the service; its log has it")
            logger.error(f"{self._kind} ended early", **{self._kind: shown.id}, exc_info=error)
        self._change()

    def _forget(self) -> None:
        ended = [id for id, job in self._known.items() if not job.going]
        for id in ended[: max(0, len(ended) - KEPT)]:
            del self._known[id]


def _concerns(owner: str | None, identity: Identity | None) -> bool:
    return identity is None or owner is None or owner == identity.name or identity.may("admin")


def _ended(job: Job[Any]) -> float:
    ended: float = job.shown.ended_at or 0.0
    return ended


def _begun(job: Shown) -> tuple[float, str]:
    return job.started_at, job.id
