"""Storms of callbacks: the blocking bus hands down the lineage, and stops what goes too far."""

from __future__ import annotations

import pytest

from tests.blocking.conftest import Open
from tests.processes import until
from wowevent import Event


@pytest.mark.parametrize("persistent", [True, False])
def test_two_queues_that_answer_each_other_are_stopped(
    opened: Open, monkeypatch: pytest.MonkeyPatch, persistent: bool
) -> None:
    monkeypatch.setenv("WOWEVENT_MAX_VISITS", "4")
    bus, handled = opened(), {"one": 0, "two": 0}

    def answer(queue: str, topic: str) -> None:
        def callback(_: Event) -> None:
            handled[queue] += 1
            bus.publish(Event(topic=topic), persistent=persistent)

        bus.subscribe(queue, ["a.*.*" if queue == "one" else "b.*.*"], callback)

    answer("one", "b.go")
    answer("two", "a.go")
    bus.start_consuming("one", blocking=False)
    bus.start_consuming("two", blocking=False)
    bus.publish(Event(topic="a.go"))
    until(lambda: (bus.get_queue_info("dlq.one") or {})["message_count"] == 1, "the fifth is with the dead letters")
    assert handled == {"one": 4, "two": 4}
