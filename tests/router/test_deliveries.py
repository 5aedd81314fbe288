"""Who got an event: what clients of named subscriptions said of theirs is known as handlers' deliveries are."""

from __future__ import annotations

from tests.router.conftest import Join, Serve, bus_of, eventually
from wowevent import Delivered


async def test_what_clients_say_of_their_events_is_remembered(serve: Serve, join: Join):
    router = await serve()
    client, publisher = await join(router), await join(router)
    await client.subscribe("*", name="worker")
    sent = await publisher.publish("task.created")
    got = await client.event()
    settle = {"subscription_id": got["subscription_id"]}
    await client.ask("nack", tokens=[got["token"]], error="not yet", **settle)
    again = await client.event()
    await client.ask("ack", tokens=[again["token"]], **settle)
    found: list[Delivered] = []

    async def is_known() -> bool:
        found[:] = await bus_of(router).deliveries(sent["event_id"])
        return len(found) == 2

    await eventually(is_known)
    assert [(each.agent, each.attempt, each.outcome, each.error) for each in found] == [
        ("worker", 1, "retried", "not yet"),
        ("worker", 2, "acked", None),
    ]
    assert {each.subscription for each in found} == {"worker~*"}
    assert {each.process for each in found} == {bus_of(router).attendance.process}
    assert all(each.seconds >= 0 for each in found)


async def test_what_a_client_gave_back_was_not_delivered(serve: Serve, join: Join):
    router = await serve()
    client, publisher = await join(router), await join(router)
    await client.subscribe("*", name="worker")
    sent = await publisher.publish("task.created")
    got = await client.event()
    await client.ask("nack", subscription_id=got["subscription_id"], tokens=[got["token"]], release=True)
    assert await bus_of(router).deliveries(sent["event_id"]) == []
