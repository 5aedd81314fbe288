"""Storms of a namespace: the conversations that are parked, shared by all processes, and the counts that do so here.

    publish in a handler  -> count  ─┐
    lease, about to be handled       ├─ beyond a limit -> parked: here at once, everywhere within a second
                          -> stops  ─┘

What the processes share is a roll of kind `storm`, by the event that a conversation began with:
`{"storm": …, or null: it was released, "released": how often}`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from wowevent.clock import Clock
from wowevent.directory import Directory
from wowevent.errors import BusError
from wowevent.event import Event
from wowevent.lineage import LINEAGE, Lineage, lineage_of
from wowevent.log import logger
from wowevent.roll import Roll
from wowevent.storm import Limit, Storm, StormPolicy, exceeded, path_of, stored, storm_of

KEPT: Final = 86_400.0
"""Seconds after which a conversation is parked, or released, no longer."""
QUIET: Final = 3_600.0
"""Seconds after which what a conversation has caused is forgotten, if it causes nothing more."""
_CONVERSATIONS: Final = 10_000  # that are counted; of more, the one that was quiet for longest is forgotten
_KIND: Final = "storm"


class Storms:
    """The conversations that are parked: `list` and `release` them."""

    def __init__(self, directory: Directory, clock: Clock, policy: StormPolicy | None) -> None:
        """`policy` None: this process parks nothing, and hands out what others have parked."""
        self.policy: StormPolicy | None = policy
        self.tripped: int = 0
        """Conversations that this process has parked since it began."""
        self._directory = directory
        self._clock = clock
        self._roll = Roll(directory, _KIND, clock, keep=KEPT)
        self._parked: dict[str, Storm] = {}
        self._said: dict[str, str] = {}  # why, of each that is parked: made once
        self._released: dict[str, int] = {}
        self._counts: OrderedDict[str, list[float]] = OrderedDict()  # how many, and when the last one came
        self._telling: dict[str, asyncio.Task[None]] = {}
        self._roll.watch(self._changed)

    # --- for people ---------------------------------------------------------------------------------------------

    def list(self) -> Sequence[Storm]:
        """Those that are parked, as far as this process knows by now; the oldest first."""
        self._forget_old()
        return sorted(self._parked.values(), key=lambda storm: storm.since)

    async def release(self, id: str) -> Sequence[Storm]:
        """Park a conversation no longer, by the event that it began with or by its correlation; those that were.

        It may go as far again as it went: of its hops and visits each limit counts once more, and its events are
        counted from nothing. What was buried stays with the dead letters until it is redelivered. Other processes heed
        it within a second or so. Raises BrokerError.
        """
        await self._directory.refresh()
        found = [storm for storm in self.list() if id in {storm.id, storm.correlation_id}]
        for storm in found:
            await self._roll.add(storm.id, {"storm": None, "released": self._released.get(storm.id, 0) + 1})
        return found

    async def close(self) -> None:
        """Tell the others nothing more."""
        telling = [*self._telling.values()]
        if telling:
            await asyncio.wait(telling, timeout=1.0)
        for task in telling:
            task.cancel()
        await asyncio.gather(*telling, return_exceptions=True)
        await self._roll.close()

    # --- for the bus --------------------------------------------------------------------------------------------

    @property
    def guard(self) -> Storms | None:
        """What hands out events asks this; None where nothing is to be looked at."""
        return None if self.policy is None else self

    @property
    def alert(self) -> bool:
        """See Guard."""
        return bool(self._parked)

    def stops(self, subscription: str, event: Event, *, redelivered: bool = False) -> str | None:
        """See Guard. What somebody redelivers is handled, until the conversation is as far beyond a limit again."""
        policy = self.policy
        if policy is None or not (event.hops or self._parked):
            return None
        lineage = lineage_of(event)
        parked = self._known(lineage.root)
        if parked is not None and not (redelivered and self._may_go_on(parked)):
            return self._said[lineage.root]
        times = 1 + self._released.get(lineage.root, 0) + redelivered
        limit = exceeded(policy, event, lineage, subscription, times)
        return None if limit is None else self._park(limit, times, event, lineage, subscription)

    def count(self, event: Event, who: str) -> None:
        """An event is published that `who` was made to publish by another one."""
        policy = self.policy
        if policy is None or not policy.max_events or LINEAGE not in event.head:
            return
        lineage, now = lineage_of(event), self._clock.monotonic()
        counted = self._counts.get(lineage.root)
        if counted is None or now - counted[1] > QUIET:
            counted = self._counts[lineage.root] = [0, now]
        counted[0] += 1
        counted[1] = now
        self._counts.move_to_end(lineage.root)
        if len(self._counts) > _CONVERSATIONS:
            self._counts.popitem(last=False)
        if counted[0] > policy.max_events and self._known(lineage.root) is None:
            self._park("max_events", 1, event, lineage, who)

    def _known(self, root: str) -> Storm | None:
        """The storm of this conversation, while it is parked."""
        storm = self._parked.get(root)
        if storm is None or self._clock.time() - storm.since < KEPT:
            return storm
        self._forget_old()
        return None

    def _may_go_on(self, storm: Storm) -> bool:
        """Whether what is redelivered of it may be handled: of its events no more than as many again."""
        count = self._counts.get(storm.id, (0, 0))[0]
        return storm.limit != "max_events" or count <= 2 * storm.most

    def _park(self, limit: Limit, times: int, event: Event, lineage: Lineage, who: str) -> str:
        storm = self._parked.get(lineage.root)
        if storm is None:
            storm = Storm(
                id=lineage.root,
                correlation_id=event.correlation_id,
                limit=limit,
                most=getattr(self.policy, limit) * times,
                path=path_of(lineage),
                since=self._clock.time(),
                who=who,
            )
            self.tripped += 1
            self._keep(storm)
            logger.error(
                "conversation parked as a storm, its events go to the dead letters (DLQ)",
                root=storm.id,
                correlation_id=storm.correlation_id,
                subscription=who,
                why=storm.why,
            )
            self._tell(storm)
        return self._said[lineage.root]

    # --- what the processes share -------------------------------------------------------------------------------

    def _tell(self, storm: Storm) -> None:
        value = {"storm": stored(storm), "released": self._released.get(storm.id, 0)}
        task = asyncio.get_running_loop().create_task(self._add(storm, value), name="wowevent:storm")
        self._telling[storm.id] = task
        task.add_done_callback(lambda _: self._telling.pop(storm.id, None))

    async def _add(self, storm: Storm, value: Mapping[str, Any]) -> None:
        try:
            await self._roll.add(storm.id, value)
        except BusError as error:  # here it is parked all the same; the others notice by themselves
            logger.warning("a storm could not be told to others", root=storm.id, error=error)

    def _changed(self, root: str, value: Mapping[str, Any] | None) -> None:
        """Somebody has parked or released it, or it gave way; here too perhaps."""
        storm = storm_of(None if value is None else value.get("storm"))
        released = 0 if value is None else value.get("released", 0)
        if isinstance(released, int) and released > 0:
            self._released[root] = released
        else:
            self._released.pop(root, None)
        if storm is not None:
            if root not in self._parked:
                logger.info("conversation is parked as a storm by another process", root=root, why=storm.why)
            self._keep(storm)
        else:
            self._parked.pop(root, None)
            self._said.pop(root, None)
            self._counts.pop(root, None)

    def _keep(self, storm: Storm) -> None:
        self._forget_old()
        self._parked[storm.id] = storm
        self._said[storm.id] = storm.why

    def _forget_old(self) -> None:
        now = self._clock.time()
        for root in [root for root, storm in self._parked.items() if now - storm.since >= KEPT]:
            del self._parked[root], self._said[root]
