"""What a pause is of: exactly one thing, named in one of five ways."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from wowevent.errors import InvalidEvent
from wowevent.event import check_id, check_name
from wowevent.holds import EVERYTHING, Scope
from wowevent.inventory import Inventory
from wowevent.topic import check_pattern


class Choice(Struct, frozen=True, kw_only=True):
    """The words of `EventBus.pause`, which says what they mean."""

    name: str | None
    agent: str | None
    topic: str | None
    correlation_id: str | None
    everything: bool

    async def names(self, inventory: Inventory) -> tuple[Scope, Sequence[str]]:
        """The scope, and the names in it; InvalidEvent unless exactly one is given, and what `lasting` raises."""
        if [self.name, self.agent, self.topic, self.correlation_id, self.everything or None].count(None) != 4:
            raise InvalidEvent("pause exactly one: a name, an agent, a topic, a correlation_id, or everything")
        if self.name is not None:
            return "subscription", await inventory.lasting(self.name)
        if self.agent is not None:
            return "agent", [check_name(self.agent)]
        if self.topic is not None:
            return "topic", [check_pattern(self.topic)]
        if self.correlation_id is not None:
            return "conversation", [check_id("correlation_id", self.correlation_id)]
        return "everything", [EVERYTHING]
