"""Ten levels, six names, four bands."""

import pytest

from wowevent.errors import InvalidEvent
from wowevent.event import Event
from wowevent.priority import BANDS, EventPriority, band, priority_level

LEVELS = [(1, "lowest"), (3, "low"), (5, "normal"), (7, "high"), (9, "critical"), (10, "system")]


@pytest.mark.parametrize(("level", "name"), LEVELS)
def test_six_levels_have_names(level: int, name: str):
    spellings = (level, name, name.upper(), EventPriority(level), EventPriority(name))  # type: ignore[arg-type]
    assert {priority_level(spelling) for spelling in spellings} == {level}
    assert {type(priority_level(spelling)) for spelling in spellings} == {int}
    assert Event(topic="a", priority=EventPriority[name.upper()]).priority == level


def test_an_unknown_priority_is_told_which_names_there_are():
    with pytest.raises(InvalidEvent, match="lowest, low, normal, high, critical, system"):
        priority_level("urgent")
    for other in ("urgent", 4):
        with pytest.raises(ValueError, match="not a valid"):
            EventPriority(other)  # type: ignore[arg-type]


def test_what_was_asked_before_does_not_change_the_answer():
    priority_level(EventPriority.LOWEST)
    for other in (True, 1.0):
        with pytest.raises(InvalidEvent):
            priority_level(other)


@pytest.mark.parametrize("level", range(1, 11))
def test_every_level_has_one_band(level: int):
    assert [name for name, levels in BANDS.items() if level in levels] == [band(level)]
    assert Event(topic="a.b", priority=level).routing_key == f"a.b.{band(level)}"


def test_the_bands():
    assert {name: list(levels) for name, levels in BANDS.items()} == {
        "low": [1, 2, 3],
        "normal": [4, 5, 6],
        "high": [7, 8],
        "critical": [9, 10],
    }
