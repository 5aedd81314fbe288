"""Events that cannot be served: left out, and said, with everything behind them."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from tests.router.conftest import talking
from wowevent import Event, EventBus
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
