"""Events that cannot be served: left out, and said, with everything behind them; and faults of ours."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from tests.router.conftest import event, talking
from wowevent import Event, EventBus, Receipt
from wowevent.router import EventRouter


async def test_a_damaged_event_is_left_out_of_a_catch_up_and_said(tmp_path: Path):
    url = f"sqlite:///{tmp_path / 'events.db'}"
    async with EventBus(url) as bus:
        receipts = [await bus.publish(Event(topic="task.created", payload={"n": n})) for n in range(4)]
    with sqlite3.connect(tmp_path / "events.db") as file:
        file.execute("UPDATE log SET body = replace(body, '\"n\":2', '\"n\":7') WHERE offset = 3")
    file.close()
    async with EventRouter(port=0, url=url) as router, talking(router) as talker:
        answer = await talker.subscribe("task.*", after=str(receipts[0].position))
        assert answer["recovered"]
        assert (await talker.next())["event"]["payload"] == {"n": 1}
        assert await talker.next() == {"type": "reset", "subscription_id": answer["subscription_id"], "lost": 1}
        assert (await talker.event())["event"]["payload"] == {"n": 3}
        await talker.publish(n=4)
        assert (await talker.event())["event"]["payload"] == {"n": 4}


class Faulty(EventBus):
    """One with a fault of ours: it cannot store what is about faults."""

    async def publish_many(self, events: Iterable[Event], *, require_match: bool = False) -> Sequence[Receipt]:
        wanted = list(events)
        if any(event.topic == "fault.found" for event in wanted):
            raise RuntimeError("not thought of")
        return await super().publish_many(wanted, require_match=require_match)


async def test_a_fault_of_ours_ends_its_connection_and_others_publish_on(url: str, caplog: pytest.LogCaptureFixture):
    async with (
        Faulty(url) as bus,
        EventRouter(port=0, bus=bus) as router,
        talking(router) as one,
        talking(router) as other,
    ):
        await one.say("publish", event=event("fault.found"))
        code, reason = await one.closed()
        assert (code, "internal error" in reason) == (1011, True)
        assert (await other.publish())["status"] == "queued"
    assert caplog.text.count("events could not be stored") == 1
