"""What a copy of an event says of itself: as a dead letter, too."""

from __future__ import annotations

import pytest

from wowevent.broker import Attempt, Bury, DeadLetter, Reason
from wowevent.event import Event
from wowevent.reading import reason_of
from wowevent.tag import Tag

TRIED = Tag(at=1.0).failed(2.0, "first")


@pytest.mark.parametrize(
    ("tag", "error", "said", "attempts"),
    [
        (TRIED, "last", "last", (Attempt(1, 2.0, "first"), Attempt(2, 3.0, "last"))),
        (TRIED, None, "first", (Attempt(1, 2.0, "first"),)),
        (Tag(at=1.0), None, "", ()),
        (Tag(at=1.0), "half \ud800", r"half \ud800", (Attempt(1, 3.0, r"half \ud800"),)),
    ],
)
def test_a_letter_says_what_the_last_attempt_died_of(
    tag: Tag, error: str | None, said: str, attempts: tuple[Attempt, ...]
):
    buried = tag.buried_by(Bury("token", Reason.TIMEOUT, error, "where"), 3.0)
    assert (buried.error, buried.attempts, buried.failures) == (said, attempts, len(attempts))
    event = Event(topic="task.created")
    assert buried.letter_of("l-1", event, "worker") == DeadLetter(
        id="l-1",
        event=event,
        subscription="worker",
        reason=Reason.TIMEOUT,
        error=said,
        traceback="where",
        attempts=attempts,
        time=3.0,
    )


def test_a_reason_that_is_none_is_unknown():
    assert [reason_of(reason.value) for reason in Reason] == list(Reason)
    assert reason_of("boredom") == reason_of("") == Reason.UNKNOWN
