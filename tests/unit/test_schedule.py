"""A schedule's moments, its firings, and what it says of itself to others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wowevent import Event, InvalidEvent, InvalidSchedule, StorageDamaged
from wowevent.errors import BusError
from wowevent.schedule import HEADER, Schedule, make, of_fact, to_fact

NOW = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)
EVENT = Event(topic="tick.now", payload={"n": 1})


def schedule(event: Event = EVENT, now: datetime = NOW, **timing: Any) -> Schedule:
    return make("tick", event, now=now, **timing)


def moments(found: Schedule, count: int, after: datetime = NOW) -> list[str]:
    """The next ones, as text to the minute or second."""
    said: list[str] = []
    for _ in range(count):
        moment = found.after(after)
        if moment is None:
            return [*said, "never"]
        after = moment
        said.append(moment.isoformat().removesuffix("+00:00").removesuffix(":00").replace("T", " "))
    return said


# --- intervals ------------------------------------------------------------------------------------------------------


def test_an_interval_counts_from_when_it_was_added() -> None:
    assert moments(schedule(every=60), 2) == ["2026-03-01 12:01:30", "2026-03-01 12:02:30"]
    assert moments(schedule(every=timedelta(hours=1)), 1) == ["2026-03-01 13:00:30"]


def test_an_interval_counts_from_its_start_which_is_the_first() -> None:
    assert moments(schedule(every=60, start="2026-03-01T12:05"), 2) == ["2026-03-01 12:05", "2026-03-01 12:06"]
    past = schedule(every=60, start=datetime(2026, 1, 1, 0, 0, 10))  # noqa: DTZ001 - naive is UTC
    assert moments(past, 1) == ["2026-03-01 12:01:10"]


def test_a_clock_that_is_behind_begins_no_earlier() -> None:
    assert schedule(every=60).after(NOW - timedelta(hours=1)) == NOW + timedelta(seconds=60)


def test_until_is_the_last_that_may_be() -> None:
    found = schedule(every=60, start="2026-03-01T12:05", until="2026-03-01T12:07")
    assert moments(found, 5) == ["2026-03-01 12:05", "2026-03-01 12:06", "2026-03-01 12:07", "never"]


def test_the_end_of_the_calendar_is_an_end() -> None:
    found = schedule(every=366 * 86_400, start="9999-12-31T00:00")
    assert moments(found, 2) == ["9999-12-31 00:00", "never"]


@given(
    st.floats(1, 366 * 86_400),
    st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - as hypothesis wants it
)
def test_whoever_asks_finds_the_same_moments(every: float, asked: datetime) -> None:
    found = schedule(every=every, start=NOW)
    moment = found.after(asked)
    assert moment is not None
    assert moment > asked
    assert found.after(moment - timedelta(microseconds=1)) == moment
    later = found.after(moment)
    assert later is not None
    assert later - moment == timedelta(seconds=every)


# --- cron -------------------------------------------------------------------------------------------------------------

CRON: dict[str, tuple[dict[str, Any], list[str]]] = {
    "every five minutes": (
        {"cron": "*/5 * * * *"}, ["2026-03-01 12:05", "2026-03-01 12:10"],
    ),
    "blanks do not matter": (
        {"cron": " */5  *  * * * "}, ["2026-03-01 12:05"],
    ),
    "names": (
        {"cron": "0 9 * apr mon-fri"}, ["2026-04-01 09:00", "2026-04-02 09:00", "2026-04-03 09:00", "2026-04-06 09:00"],
    ),
    "the last day of a month": (
        {"cron": "0 0 L * *"}, ["2026-03-31 00:00", "2026-04-30 00:00"],
    ),
    "a start within a minute": (
        {"cron": "* * * * *", "start": "2026-03-01T12:05:30"}, ["2026-03-01 12:06"],
    ),
    "a start that is a moment": (
        {"cron": "*/5 * * * *", "start": "2026-03-01T12:05"}, ["2026-03-01 12:05", "2026-03-01 12:10"],
    ),
    "until": (
        {"cron": "*/5 * * * *", "until": "2026-03-01T12:10"}, ["2026-03-01 12:05", "2026-03-01 12:10", "never"],
    ),
    "seconds in front": (
        {"cron": "*/20 * * * * *"},
        ["2026-03-01 12:00:40", "2026-03-01 12:01", "2026-03-01 12:01:20"],
    ),
    "another zone": (
        {"cron": "0 9 * * *", "tz": "Asia/Kolkata"}, ["2026-03-02 03:30", "2026-03-03 03:30"],
    ),
    # Berlin goes from 02:00 to 03:00 on 29 March 2026, at 01:00 UTC, and from 03:00 back to 02:00 on 25 October.
    "forward, a fixed time that is left out": (
        {"cron": "30 2 * * *", "tz": "Europe/Berlin", "start": "2026-03-28"},
        ["2026-03-28 01:30", "2026-03-29 01:00", "2026-03-30 00:30"],
    ),
    "forward, a fixed time that is there": (
        {"cron": "30 3 * * *", "tz": "Europe/Berlin", "start": "2026-03-28"},
        ["2026-03-28 02:30", "2026-03-29 01:30", "2026-03-30 01:30"],
    ),
    "forward, every half hour": (
        {"cron": "*/30 * * * *", "tz": "Europe/Berlin", "start": "2026-03-29T00:30"},
        ["2026-03-29 00:30", "2026-03-29 01:00", "2026-03-29 01:30"],
    ),
    "back, a fixed time that comes twice": (
        {"cron": "30 2 * * *", "tz": "Europe/Berlin", "start": "2026-10-24"},
        ["2026-10-24 00:30", "2026-10-25 00:30", "2026-10-26 01:30"],
    ),
    "back, begun in the second of two hours": (
        {"cron": "30 2 * * *", "tz": "Europe/Berlin", "start": "2026-10-25T01:10"},
        ["2026-10-26 01:30"],
    ),
    "back, every half hour": (
        {"cron": "*/30 * * * *", "tz": "Europe/Berlin", "start": "2026-10-25T00:30"},
        ["2026-10-25 00:30", "2026-10-25 01:00", "2026-10-25 01:30", "2026-10-25 02:00"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("timing", "expected"), CRON.values(), ids=CRON.keys())
def test_cron(timing: dict[str, Any], expected: list[str]) -> None:
    assert moments(schedule(**timing), len(expected)) == expected


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"])
@pytest.mark.parametrize("expression", ["17 1,2,3 * * *", "*/20 * * * *", "5 */2 * * *"])
def test_the_moments_do_not_depend_on_when_one_asks(zone: str, expression: str) -> None:
    found = schedule(cron=expression, tz=zone)
    for day in (
        datetime(2026, 3, 7, tzinfo=UTC),
        datetime(2026, 3, 28, tzinfo=UTC),
        datetime(2026, 10, 24, tzinfo=UTC),
    ):
        first = found.after(day)
        chain = [first]
        while chain[-1] is not None and chain[-1] < day + timedelta(days=3):
            chain.append(found.after(chain[-1]))
        asked = {found.after(day + timedelta(minutes=10 * step)) for step in range(6 * 72)}
        assert asked <= set(chain)
        assert all(a is not None and b is not None and a < b for a, b in pairwise(chain))


# --- what is refused ----------------------------------------------------------------------------------------------

REFUSED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "both": {"every": 60, "cron": "* * * * *"},
    "too often": {"every": 0.999},
    "too seldom": {"every": 367 * 86_400},
    "no number": {"every": "60"},
    "a flag": {"every": True},
    "not a number": {"every": float("nan")},
    "an interval of a zone": {"every": 60, "tz": "Europe/Berlin"},
    "no expression": {"cron": "soon"},
    "too few fields": {"cron": "* * * *"},
    "a 61st minute": {"cron": "61 * * * *"},
    "the 31st of February": {"cron": "0 0 31 2 *"},
    "a day that never comes": {"cron": "0 0 29 2 *", "until": "2027-01-01"},
    "what trips the parser": {"cron": "* * * * mon#1/2"},
    "a number without end": {"cron": "9" * 190 + " * * * *"},
    "too long": {"cron": "1," * 200 + "1 * * * *"},
    "no text": {"cron": 5},
    "an unknown zone": {"cron": "* * * * *", "tz": "Europe/Atlantis"},
    "a folder of zones": {"cron": "* * * * *", "tz": "Europe"},
    "a path": {"cron": "* * * * *", "tz": "../../etc/passwd"},
    "no zone": {"cron": "* * * * *", "tz": None},
    "an end before the beginning": {"every": 60, "start": "2026-05-01", "until": "2026-04-01"},
    "an end that has passed": {"every": 60, "until": "2026-02-01"},
    "a start that is no time": {"every": 60, "start": "soon"},
}


@pytest.mark.parametrize("timing", REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_say_when_is_refused(timing: dict[str, Any]) -> None:
    with pytest.raises(InvalidSchedule if timing.get("start") != "soon" else InvalidEvent):
        schedule(**timing)


def test_it_is_said_what_is_wrong() -> None:
    with pytest.raises(InvalidSchedule, match="until lies before start"):
        schedule(every=60, start="2026-05-01", until="2026-04-01")
    with pytest.raises(InvalidSchedule, match="is not a cron expression: Bad minute"):
        schedule(cron="61 * * * *")


def test_a_folder_of_zones_may_be_found_as_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time zones come as a package and not with the system."""

    def found(name: str) -> None:
        raise IsADirectoryError(name)

    monkeypatch.setattr("wowevent.schedule.ZoneInfo", found)
    with pytest.raises(InvalidSchedule):
        schedule(cron="* * * * *", tz="Europe")


def test_names_and_events_that_cannot_be() -> None:
    for name in ("", "a b", "x" * 129, None):
        with pytest.raises(InvalidEvent):
            make(name, EVENT, now=NOW, every=60)  # type: ignore[arg-type]
    with pytest.raises(InvalidSchedule, match="not_before"):
        schedule(Event(topic="tick", not_before=NOW), every=60)


# --- what is fired ------------------------------------------------------------------------------------------------


def test_a_firing_is_an_event_of_its_own_that_all_make_alike() -> None:
    found = schedule(Event(topic="tick.now", payload={"n": 1}, headers={"tenant": "a"}, priority=8), every=60)
    one, two = (NOW + timedelta(seconds=seconds) for seconds in (60, 120))
    fired = found.event_at(one)
    assert fired == of_fact("tick", to_fact(found)).event_at(one)
    assert fired.correlation_id == fired.event_id == found.id_at(one) != found.id_at(two)
    assert (fired.timestamp, fired.not_before) == (one, one)
    assert (fired.payload, fired.priority, fired.topic) == ({"n": 1}, 8, "tick.now")
    assert fired.headers == {"tenant": "a", HEADER: "tick"}


def test_a_conversation_that_is_named_stays() -> None:
    found = schedule(Event(topic="tick", correlation_id="job-1"), every=60)
    assert found.event_at(NOW).correlation_id == "job-1"


def test_another_revision_fires_other_events() -> None:
    found = schedule(every=60)
    others = [found, found.behind("what was said before"), schedule(every=61), schedule(Event(topic="tock"), every=60)]
    assert len({each.id_at(NOW) for each in others}) == 4


@pytest.mark.parametrize("timing", [{"every": 60}, {"every": 60, "start": NOW}, {"cron": "* * * * *"}], ids=str)
def test_two_that_add_the_same_a_moment_apart_fire_the_same_events(timing: dict[str, Any]) -> None:
    one, two = schedule(**timing), schedule(now=NOW + timedelta(seconds=0.01), **timing)
    first, other = one.after(NOW + timedelta(seconds=1)), two.after(NOW + timedelta(seconds=1))
    assert first is not None
    assert other is not None
    assert one.id_at(first) == two.id_at(other) != one.id_at(first + timedelta(seconds=60))


# --- the same again -------------------------------------------------------------------------------------------------


def test_the_same_is_known_by_what_it_says() -> None:
    def said(**fields: Any) -> str:
        timing = {name: fields.pop(name) for name in ("every", "cron", "tz", "start", "until") if name in fields}
        event = Event(**{"topic": "tick.now", "payload": {"n": 1}, **fields})
        return schedule(event, NOW + timedelta(seconds=7), **(timing or {"every": 60})).definition

    assert said() == said(every=60.0) == said(every=timedelta(minutes=1))
    others = (
        {"payload": {"n": 2}}, {"topic": "tock"}, {"priority": 7}, {"correlation_id": "job"}, {"headers": {"a": "b"}},
        {"every": 61}, {"cron": "* * * * *"}, {"cron": "* * * * *", "tz": "Asia/Tokyo"},
        {"every": 60, "start": "2027-01-01"}, {"every": 60, "until": "2027-01-01"},
    )  # fmt: skip
    definitions = [said(), *(said(**other) for other in others)]
    assert len(set(definitions)) == len(definitions)


# --- as a fact ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "timing",
    [{"every": 1.5}, {"cron": "0 9 * * *", "tz": "Asia/Tokyo", "start": "2027-01-01", "until": "2028-01-01"}],
    ids=["every", "cron"],
)
def test_it_survives_being_told(timing: dict[str, Any]) -> None:
    deep: dict[str, Any] = {}
    for _ in range(31):
        deep = {"in": deep}
    found = schedule(Event(topic="tick.now", payload=deep, headers={"x": "é"}), **timing)
    told = msgspec.json.decode(msgspec.json.encode(to_fact(found)))
    assert of_fact("tick", told) == found
    assert of_fact("tick", {**told, "of a newer version": 1}) == found


def test_what_others_write_is_refused() -> None:
    good = to_fact(schedule(every=60))
    wrong: list[dict[str, Any]] = [
        {}, {**good, "event": "{}"}, {**good, "event": 1}, {**good, "every": "60"}, {**good, "every": 0.1},
        {**good, "added": "2026-01-01T00:00:00"}, {**good, "cron": "* * * * *"}, {**good, "tz": "../x"},
    ]  # fmt: skip
    for value in wrong:
        with pytest.raises(BusError):
            of_fact("tick", value)
    with pytest.raises(StorageDamaged):
        of_fact("tick", {**good, "event": "{"})
