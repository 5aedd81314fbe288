"""Whether a subscription's events may come now: not while it is paused by hand, or by its breaker.

A valve lies between whoever serves a subscription and its source. Closed, it lets nothing through: a fetch waits, and
what one brings that was under way goes back unhandled and uncharged. What somebody holds already is not its matter, but
whoever wants to know when it was closed or opened by hand is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from math import inf

from wowevent.breaker import Breaker, Transition
from wowevent.broker import Lease, Retry, Settlement
from wowevent.clock import Clock
from wowevent.holds import Pause, said
from wowevent.log import logger
from wowevent.settler import Source
from wowevent.wakeup import Wakeup


class Valve:
    """One subscription's source, as long as it may come from there; a Source itself."""

    def __init__(
        self,
        id: str,
        source: Source,
        clock: Clock,
        breaker: Breaker | None = None,
        *,
        agent: str = "",
        halt: Callable[[float, str], object] = lambda _seconds, _reason: None,
    ) -> None:
        """`halt(seconds, reason)` pauses the subscription, here at once and wherever else it is served."""
        self.id = id
        self.agent: str = agent
        """Whose subscription it is; empty for nobody's."""
        self.breaker: Breaker | None = breaker
        self.halt: Callable[[float, str], object] = halt
        self.paused: bool = False
        """By hand; `pause` and `resume` change it."""
        self.told: Callable[[bool], object] = lambda _paused: None
        """Is called with `paused` when that changes, before anything else happens."""
        self.decline: Callable[[Sequence[Lease]], Awaitable[object]] = self._decline
        """Gives back what came and may not be handed out: whoever serves knows behind what it is to go."""
        self._source = source
        self._clock = clock
        self._detached = False
        self._news = Wakeup()

    def pause(self, why: Pause) -> None:
        """Let nothing through until `resume`."""
        if not self.paused:
            self.paused = True
            logger.warning("subscription paused", subscription=self.id, **said(why))
            self.told(True)

    def resume(self) -> None:
        """Let it through again."""
        if self.paused:
            self.paused = False
            logger.warning("subscription resumed", subscription=self.id)
            self.told(False)
            self._news.notify()

    def note(self, ok: bool | None, seconds: float, count: int) -> bool:
        """What became of so many events after `seconds` in the handler, as `Breaker.note` takes it.

        True if less may come from here on: what was not started then should go back.
        """
        if self.breaker is None:
            return False
        change = self.breaker.note(ok, seconds, self._clock.monotonic(), count)
        if change is not None:
            self._say(change)
        if self._news.waiting:
            self._news.notify()
        return change is not None and change.new in {"slowed", "paused"}

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        """See Source; `wait` seconds include those that the valve is closed."""
        if limit <= 0:
            self._detached = False
            return await self._source.fetch(id, limit=limit, wait=wait)
        until = self._clock.monotonic() + wait
        while await self._opened(until):
            now = self._clock.monotonic()
            leases = await self._source.fetch(id, limit=self._room(limit), wait=max(0.0, until - now))
            kept = self._room(len(leases))  # less than was asked for, where it was closed meanwhile
            if kept < len(leases):
                await self.decline(leases[kept:])
            if kept or not leases:
                self._begin(kept)
                return leases[:kept]
        return []

    async def _decline(self, leases: Sequence[Lease]) -> None:
        await self._source.settle(self.id, [Retry(lease.token, charge=False) for lease in leases])

    async def settle(self, id: str, settlements: Sequence[Settlement]) -> int:
        """See Source."""
        return await self._source.settle(id, settlements)

    async def detach(self, id: str) -> None:
        """See Source; a fetch that waits here returns, too."""
        self._detached = True
        self._news.notify()
        await self._source.detach(id)

    @property
    def state(self) -> str:
        """healthy, degraded, slowed, paused or probing."""
        return "paused" if self.paused else "healthy" if self.breaker is None else self.breaker.state

    def _begin(self, count: int) -> None:
        if self.breaker is not None and count and (change := self.breaker.begin(self._clock.monotonic(), count)):
            self._say(change)

    def _say(self, change: Transition) -> None:
        """Where the breaker went: a warning on the way down."""
        say = logger.info if change.new in {"healthy", "probing"} else logger.warning
        say(
            f"subscription is {change.new}",
            subscription=self.id,
            before=change.old,
            error_rate=round(change.error_rate, 3),
            mean_seconds=round(change.mean_seconds, 3),
        )

    def _room(self, most: int) -> int:
        """How many of so many may come now."""
        if self.paused:
            return 0
        return most if self.breaker is None else self.breaker.limit(self._clock.monotonic(), most)

    def _shut_for(self) -> float:
        """Seconds until something may come, as far as that is known."""
        if self.paused:
            return inf
        return 0.0 if self.breaker is None else self.breaker.wait(self._clock.monotonic())

    async def _opened(self, until: float) -> bool:
        """Whether something may come; waits for that until then."""
        while (shut := self._shut_for()) > 0:
            left = min(shut, until - self._clock.monotonic())
            if left <= 0 or self._detached:
                return False
            timer = self._clock.call_later(left, self._news.notify)
            try:
                await self._news.wait()
            finally:
                timer.cancel()
        return True
