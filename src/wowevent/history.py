"""The log read again: as it grows, a range of it replayed, what belongs together."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing

from wowevent.broker import Broker, Iteration, Position, Query, Stored, Subscription
from wowevent.causation import find
from wowevent.clock import Clock
from wowevent.conversation import Conversation, conversation
from wowevent.event import Event
from wowevent.handler import Handler
from wowevent.replay import (
    Progress,
    ReplayConfig,
    ReplayControl,
    check_destination,
    check_elsewhere,
    replay,
    replay_into,
    upto,
)
from wowevent.routing import fits

Publish = Callable[[Sequence[Event]], Awaitable[object]]


class History:
    """That of one bus: EventBus says what is promised of each."""

    def __init__(self, broker: Broker, clock: Clock) -> None:
        self._broker = broker
        self._clock = clock

    async def follow(self, spec: Subscription, after: Position | None) -> AsyncGenerator[Stored]:
        """Those behind `after`, and each that comes, that the filter lets through, whoever they are meant for."""
        query = Query(patterns=spec.patterns)
        async with aclosing(self._broker.read(query, after=after, follow=True)) as log:
            async for stored in log:
                if fits(spec.filter, stored.event):
                    yield stored

    async def trace(self, id: str, limit: int) -> Conversation:
        """The conversation of an event, or of a correlation id; ValueError for a limit below 1."""
        if limit < 1:
            raise ValueError("limit: 1 or more")
        return conversation(await find(self._broker, id, limit, self._clock.time()))

    async def replay(self, handler: Handler, config: ReplayConfig | None, control: ReplayControl | None) -> int:
        """Call the handler with the events of a range."""
        config = config or ReplayConfig(speed_multiplier=0)
        return await replay(await self._range(config), handler, config.speed_multiplier, self._clock, control)

    async def replay_into(
        self,
        topic: str | None,
        config: ReplayConfig | None,
        publish: Publish,
        *,
        there: Broker | None,
        source_agent: str | None,
        control: ReplayControl | None,
        progress: Progress | None,
    ) -> int:
        """Publish a range again by `publish`, into a topic; without one, into the log `there`, which is another."""
        config = config or ReplayConfig(speed_multiplier=0)
        if topic is not None:
            check_destination(topic)
        else:
            head = None if there is None else (await there.ping()).head
            check_elsewhere(config, (await self._broker.ping()).head, head)
        return await replay_into(
            topic,
            await self._range(config),
            publish,
            speed=config.speed_multiplier,
            clock=self._clock,
            source_agent=source_agent,
            control=control,
            progress=progress,
        )

    async def _range(self, config: ReplayConfig) -> Iteration:
        """The events of a replay: none of what it causes itself is among them."""
        query = config.query()
        return upto(self._broker.read(query), (await self._broker.ping()).head)
