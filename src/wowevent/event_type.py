"""What happened: the well-known names, and any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar


class EventType(str):
    """What happened. A catalogue of well-known names; any other name is as good.

    It is a `str`; `.value` is the plain name, and formatting prints the name.
    """

    __slots__ = ()

    AGENT_STARTED: ClassVar[EventType]
    AGENT_STOPPED: ClassVar[EventType]
    AGENT_ERROR: ClassVar[EventType]
    AGENT_HEARTBEAT: ClassVar[EventType]
    TASK_CREATED: ClassVar[EventType]
    TASK_SUBMITTED: ClassVar[EventType]
    TASK_STARTED: ClassVar[EventType]
    TASK_COMPLETED: ClassVar[EventType]
    TASK_FAILED: ClassVar[EventType]
    TASK_TIMEOUT: ClassVar[EventType]
    TASK_CANCELLED: ClassVar[EventType]
    STATE_SAVED: ClassVar[EventType]
    STATE_LOADED: ClassVar[EventType]
    STATE_RECOVERED: ClassVar[EventType]
    PLAN_CREATED: ClassVar[EventType]
    PLAN_STARTED: ClassVar[EventType]
    PLAN_STEP_COMPLETED: ClassVar[EventType]
    PLAN_STEP_FAILED: ClassVar[EventType]
    PLAN_COMPLETED: ClassVar[EventType]
    PLAN_FAILED: ClassVar[EventType]
    SYSTEM_SHUTDOWN: ClassVar[EventType]
    SYSTEM_HEALTH_CHECK: ClassVar[EventType]

    @property
    def value(self) -> str:
        """The plain name, as the members of an enumeration have it."""
        return str.__str__(self)

    @classmethod
    def catalogue(cls) -> Iterator[EventType]:
        """The well-known names."""
        return iter(_CATALOGUE)


# `PLAN_STEP_COMPLETED` is `plan.step_completed`: the first word is what it is about, the rest is one word.
_CATALOGUE = tuple(EventType(name.lower().replace("_", ".", 1)) for name in EventType.__annotations__)
for _name, _type in zip(EventType.__annotations__, _CATALOGUE, strict=True):
    setattr(EventType, _name, _type)
