"""Ten levels, names for six of them, and the four bands by which they are routed."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Final

from wowevent.errors import InvalidEvent, shown


class EventPriority(IntEnum):
    """Names for six of the ten levels, 1 (last) to 10 (first). `EventPriority("high")` works too."""

    LOWEST = 1
    LOW = 3
    NORMAL = 5
    HIGH = 7
    CRITICAL = 9
    SYSTEM = 10

    @classmethod
    def _missing_(cls, value: object) -> EventPriority | None:
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


BANDS: Final[Mapping[str, range]] = {
    "low": range(1, 4),
    "normal": range(4, 7),
    "high": range(7, 9),
    "critical": range(9, 11),
}
_BAND_OF: Final = {level: band for band, levels in BANDS.items() for level in levels}


def band(priority: int) -> str:
    """The band of a level: low 1 to 3, normal 4 to 6, high 7 and 8, critical 9 and 10."""
    return _BAND_OF[priority]


@lru_cache(maxsize=256, typed=True)  # else True would be found where 1 was asked for before
def priority_level(priority: int | str) -> int:
    """A level from 1 to 10, from a number or from a name such as "high"; InvalidEvent otherwise."""
    if isinstance(priority, str):
        if (level := EventPriority.__members__.get(priority.upper())) is not None:
            return level.value
        names = ", ".join(EventPriority.__members__).lower()
        raise InvalidEvent(f"{shown(priority)} is not a priority: 1 to 10, or one of {names}")
    if not isinstance(priority, int) or isinstance(priority, bool) or priority not in _BAND_OF:
        raise InvalidEvent(f"{shown(priority)} is not a priority: 1 to 10")
    return int(priority)
