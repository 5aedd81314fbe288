"""Jobs in the background of all processes: each says in its pulses how its own are, and does what others ask of them.

who looks     <──pulses──  every process
who steers    ──order──>   control log, where everybody looks once a second; who has the job does it
              <──pulse──   how the job is, and which order it has carried out
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.ending import end
from wowevent.errors import BusError
from wowevent.id import new_id
from wowevent.log import logger
from wowevent.pulse import Desk, JobPulse
from wowevent.pulses import Pulses
from wowevent.roll import Roll

_KIND: Final = "errand"
_KEPT: Final = 60.0  # seconds after which an order is forgotten
_PATIENCE: Final = 6.0  # seconds for an order to be seen, carried out and told of
_LOOK: Final = 0.05  # seconds between two looks at what was told
_KNOWN: Final = 1_000  # orders: one that is said again is carried out once


class Errand(Struct, frozen=True):
    """A job of another process."""

    process: str
    host: str
    job: JobPulse


class _Order(Struct, frozen=True):
    kind: str
    id: str
    what: str


class Errands:
    """This process's jobs, and those of the others."""

    def __init__(self, pulses: Pulses, directory: Directory, clock: Clock, process: str) -> None:
        """`process` is what this one goes by."""
        self.process: str = process
        self._pulses = pulses
        self._roll = Roll(directory, _KIND, clock, keep=_KEPT)
        self._known: deque[str] = deque(maxlen=_KNOWN)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._roll.watch(self._asked)

    # --- what is done here --------------------------------------------------------------------------------------

    def open(self, desk: Desk) -> None:
        """From now on others see its jobs, and steer them."""
        self._pulses.desks.append(desk)

    def shut(self, desk: Desk) -> None:
        """No more; once is enough."""
        if desk in self._pulses.desks:
            self._pulses.desks.remove(desk)

    def change(self) -> None:
        """A job began, ended, or was steered: say it soon."""
        self._pulses.change()

    # --- what others do -----------------------------------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether the others can be heard."""
        return self._pulses.whole

    async def elsewhere(self, kind: str) -> Sequence[Errand]:
        """Jobs of a kind of the other processes, as far as these can be heard; it takes as long as a look at pulses."""
        if self._pulses.alone:
            return []
        vitals = await self._pulses.look()
        return [
            Errand(pulse.process, pulse.host, job)
            for pulse in vitals.there(self._pulses.now)
            if pulse.process != self.process
            for job in pulse.jobs
            if job.kind == kind
        ]

    async def find(self, kind: str, id: str) -> Errand | None:
        """One of them, if some process has it."""
        return next((errand for errand in await self.elsewhere(kind) if errand.job.id == id), None)

    async def steer(self, errand: Errand, what: str) -> Errand | None:
        """Have this done to a job, and return how it is then; None if nobody says so in time, and it may be done yet.

        Raises BrokerError, Closed.
        """
        job = errand.job
        order = new_id()
        await self._roll.add(order, msgspec.to_builtins(_Order(job.kind, job.id, what)))
        try:
            async with asyncio.timeout(_PATIENCE):
                found = await self.find(job.kind, job.id)
                while found is None or found.job.order != order:
                    await asyncio.sleep(_LOOK)
                    found = await self.find(job.kind, job.id)
        except TimeoutError:
            return None
        return found

    def _asked(self, order: str, value: Mapping[str, Any] | None) -> None:
        """Somebody wants something done; a job that is not here is not ours to steer."""
        if value is None or self._closed or order in self._known:
            return
        try:
            asked = msgspec.convert(value, _Order)
        except msgspec.ValidationError as error:
            logger.warning("an order that is none of ours is left out", error=error)
            return
        for desk in self._pulses.desks:
            if any(job.id == asked.id for job in desk.pulses() if job.kind == asked.kind):
                self._known.append(order)
                task = asyncio.create_task(self._carry_out(desk, order, asked), name="wowevent:errand")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, desk: Desk, order: str, asked: _Order) -> None:
        try:
            await desk.carry_out(asked.id, asked.what, order)
            logger.info(f"{asked.kind} steered for another process", id=asked.id, what=asked.what)
        except BusError as error:
            logger.warning(f"{asked.kind} could not be steered", id=asked.id, what=asked.what, error=error)
        self.change()

    async def close(self) -> None:
        """Carry out nothing more."""
        self._closed = True
        await end(*self._tasks)
        await self._roll.close()
