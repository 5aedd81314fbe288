"""/schedules: put, shown, removed. Whose they are: test_access.py."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

EVENT: dict[str, Any] = {"topic": "tick.now", "payload": {"n": 1}, "priority": "high"}


def order(**changes: Any) -> dict[str, Any]:
    return {"event": EVENT, "every": 600, **changes}


async def test_one_is_put_shown_and_removed(client: httpx.AsyncClient) -> None:
    answer = await client.put("/schedules/team/tick", json=order(start="2040-01-01T00:00"))

    assert answer.status_code == 200
    found = answer.json()
    assert (found["name"], found["every"], found["cron"], found["tz"]) == ("team/tick", 600.0, None, "UTC")
    assert (found["next"], found["last"]) == ("2040-01-01T00:00:00Z", None)
    assert (found["event"]["payload"], found["event"]["priority"]) == ({"n": 1}, 7)
    assert (await client.get("/schedules/team/tick")).json() == found
    assert (await client.get("/schedules")).json() == {"schedules": [found]}
    assert (await client.delete("/schedules/team/tick")).status_code == 204
    for answer in (await client.get("/schedules/team/tick"), await client.delete("/schedules/team/tick")):
        assert (answer.status_code, answer.json()["error"]) == (404, "schedule_not_found")


async def test_the_same_again_stays_and_another_replaces(client: httpx.AsyncClient) -> None:
    first = (await client.put("/schedules/tick", json=order())).json()
    again = (await client.put("/schedules/tick", json=order())).json()
    other = (await client.put("/schedules/tick", json=order(every=None, cron="0 2 * * *", tz="Asia/Tokyo"))).json()

    assert again == first
    assert (other["every"], other["cron"], other["tz"]) == (None, "0 2 * * *", "Asia/Tokyo")
    assert other["next"].endswith("T17:00:00Z")


REFUSED: dict[str, tuple[Any, str]] = {
    "no moment": ({"event": EVENT}, "invalid_schedule"),
    "both": (order(cron="* * * * *"), "invalid_schedule"),
    "too often": (order(every=0.1), "invalid_event"),
    "no expression": (order(every=None, cron="soon"), "invalid_schedule"),
    "a zone that is none": (order(every=None, cron="* * * * *", tz="../x"), "invalid_schedule"),
    "no event": ({"every": 60}, "invalid_event"),
    "no topic": (order(event={"payload": {}}), "invalid_event"),
    "a topic of the bus": (order(event={"topic": "_bus.x"}), "invalid_topic"),
    "its own moment": (order(event={**EVENT, "not_before": "2040-01-01"}), "invalid_schedule"),
    "a field too many": (order(often=True), "invalid_event"),
    "a list": ([order()], "invalid_event"),
}


@pytest.mark.parametrize(("body", "error"), REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_wrong_is_refused(client: httpx.AsyncClient, body: Any, error: str) -> None:
    answer = await client.put("/schedules/tick", json=body)

    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert (await client.get("/schedules")).json() == {"schedules": []}
