"""Named subscriptions: settling, retries, shares of one name, and what becomes of events whose client is gone."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.router.conftest import (
    PATIENCE,
    Frame,
    Join,
    Serve,
    Talker,
    bus_of,
    connections_of,
    desk_of,
    event,
    events,
    eventually,
    numbers,
    part,
    talking,
)
from wowevent import EventBus
from wowevent.broker import Broker, Lease, SubscriptionInfo
from wowevent.brokers import open_broker
from wowevent.router import EventRouter, courier
from wowevent.router.wire import SILENT

NAME = "worker"


async def info(router: EventRouter, name: str = f"{NAME}~*") -> SubscriptionInfo:
    found = await bus_of(router).broker.info(name)
    assert found is not None
    return found


async def unsettled(router: EventRouter) -> int:
    found = await info(router)
    return found.ready + (found.leased or 0) + (found.delayed or 0)


async def settle(client: Talker, type: str, *deliveries: Frame, **fields: Any) -> Frame:
    """The `settled` of these deliveries, which are of one subscription."""
    tokens = [delivery["token"] for delivery in deliveries]
    answer = await client.ask(type, subscription_id=deliveries[0]["subscription_id"], tokens=tokens, **fields)
    assert answer["type"] == "settled", answer
    return answer


# --- what a client says of its events -------------------------------------------------------------------------------


async def test_what_is_acknowledged_does_not_come_again(router: EventRouter, client: Talker, join: Join):
    await client.subscribe(name=NAME)
    await client.publish_all(events(3))
    got = await client.events(3)
    assert numbers(got) == [0, 1, 2]
    assert all(each["token"] and "attempt" not in each for each in got)
    assert all(bool(each.get("position")) is bus_of(router).capabilities.positions for each in got)
    answer = await settle(client, "ack", *got)
    assert (answer["settled"], answer["stale"]) == (3, 0)
    assert await unsettled(router) == 0
    again = await settle(client, "ack", got[0])
    assert (again["settled"], again["stale"]) == (0, 1)


async def test_an_ack_without_a_ref_is_carried_out_in_silence(router: EventRouter, client: Talker):
    await client.subscribe(name=NAME)
    await client.publish()
    got = await client.event()
    await client.say("ack", subscription_id=got["subscription_id"], tokens=[got["token"]])

    async def settled() -> bool:
        return await unsettled(router) == 0

    await eventually(settled)
    await client.nothing()
    assert not client.kept


async def test_failed_attempts_are_counted_and_end_with_the_dead_letters(serve: Serve, join: Join):
    router = await serve()
    client = await join(router)
    await client.subscribe(name=NAME, max_retries=1)
    await client.publish(n=7)
    first = await client.event()
    began = time.monotonic()
    await settle(client, "nack", first, error="broken", traceback="line 1")
    second = await client.event()
    assert time.monotonic() - began >= 0.8, "retries wait"
    assert second["attempt"] == 2
    assert second["token"] != first["token"]
    await settle(client, "nack", second, error="still broken", traceback="line 2")
    (letter,) = await bus_of(router).dead_letters.list(subscription=NAME)
    assert (letter.event.payload, letter.error, letter.traceback) == ({"n": 7}, "still broken", "line 2")
    assert [attempt.error for attempt in letter.attempts] == ["broken", "still broken"]
    await bus_of(router).dead_letters.redeliver(subscription=NAME)
    third = await client.event()
    assert third["redelivered"] is True
    await settle(client, "ack", third)


async def test_retry_after_charges_no_attempt_and_comes_when_it_says(client: Talker):
    await client.subscribe(name=NAME, max_retries=0)
    await client.publish()
    for _ in range(3):
        got = await client.event()
        assert "attempt" not in got
        began = time.monotonic()
        await settle(client, "nack", got, retry_after=0.2)
    await client.event()
    assert time.monotonic() - began >= 0.15


async def test_reject_goes_to_the_dead_letters_now(router: EventRouter, client: Talker):
    await client.subscribe(name=NAME)
    await client.publish()
    await settle(client, "nack", await client.event(), reject=True, error="never")
    (letter,) = await bus_of(router).dead_letters.list(subscription=NAME)
    assert (letter.reason, letter.error) == ("rejected", "never")


async def test_release_gives_back_at_once_and_uncharged(client: Talker):
    await client.subscribe(name=NAME, max_retries=0)
    await client.publish()
    for _ in range(3):
        got = await client.event()
        assert "attempt" not in got
        await settle(client, "nack", got, release=True)
    await client.event()


@pytest.mark.parametrize(
    "tokens", [[""], ["no token"], ["../x"], ["1\x00"], ["9" * 5000], ["é\r\n"], ["*"], ["a"] * 5000]
)
async def test_tokens_that_are_none_are_stale_and_harm_nothing(client: Talker, tokens: list[str]):
    id = (await client.subscribe(name=NAME))["subscription_id"]
    await client.publish()
    got = await client.event()
    for type, fields in (
        ("ack", {}),
        ("nack", {"error": "x"}),
        ("nack", {"reject": True}),
        ("nack", {"retry_after": 1}),
    ):
        answer = await client.ask(type, subscription_id=id, tokens=tokens, **fields)
        assert (answer["settled"], answer["stale"]) == (0, len(tokens))
    assert (await settle(client, "ack", got))["settled"] == 1


async def test_the_same_token_twice_is_settled_once(client: Talker):
    await client.subscribe(name=NAME)
    await client.publish()
    got = await client.event()
    answer = await settle(client, "ack", got, got)
    assert (answer["settled"], answer["stale"]) == (1, 1)


# --- credit, order, shares ------------------------------------------------------------------------------------------


async def test_no_more_than_the_credit_waits_for_its_acknowledgement(client: Talker):
    await client.subscribe(name=NAME, credit=2)
    await client.publish_all(events(5))
    first = await client.events(2)
    await client.nothing()
    await settle(client, "ack", first[0])
    assert numbers(await client.events(1)) == [2]
    await client.nothing()


async def test_urgent_ones_come_first(router: EventRouter, join: Join):
    client, writer = await join(router), await join(router)
    await client.subscribe(name=NAME, credit=1)
    await writer.publish(n=0)
    got = await client.events(1)
    for n in range(1, 11):
        await writer.publish(n=n, priority=n)
    order = []
    for _ in range(10):
        await settle(client, "ack", got[0])
        got = await client.events(1)
        order.append(got[0]["event"]["priority"])
    assert set(order[:4]) == {7, 8, 9, 10}, "urgent first"
    assert order[4:] == [1, 2, 3, 4, 5, 6], "then in their order"


async def test_filters_and_target_hold_for_named_ones(router: EventRouter, join: Join):
    one, other = await join(router), await join(router)
    await one.subscribe("task.*", name="one", min_priority=7)
    await other.subscribe("task.*", name="other", types=["order.paid"])
    await one.publish(n=1, priority=7)
    await one.publish(n=2, type="order.paid")
    await one.publish(n=3, priority=9, target="other", type="order.paid")
    await one.publish(n=4, priority=9, target="one")
    assert numbers(await one.events(2)) == [1, 4]
    assert sorted(numbers(await other.events(2))) == [2, 3]  # an urgent one may overtake
    await one.nothing()
    await other.nothing()


@pytest.mark.parametrize("batch", [False, True])
async def test_two_clients_share_one_name_and_both_work(router: EventRouter, join: Join, batch: bool):
    workers = [await join(router, batch=batch) for _ in range(2)]
    for worker in workers:
        await worker.subscribe(name=NAME, credit=5)
    await (await join(router)).publish_all(events(100))
    seen: dict[int, list[int]] = {0: [], 1: []}

    async def work(n: int) -> None:
        while sum(map(len, seen.values())) < 100:
            try:
                async with asyncio.timeout(1):
                    frame = await workers[n].hear("event", "events")
            except TimeoutError:
                continue
            got = frame["events"] if batch else [frame]
            seen[n] += numbers(got)
            await workers[n].say("ack", subscription_id="sub-1", tokens=[each["token"] for each in got])

    await asyncio.gather(work(0), work(1))
    assert sorted(seen[0] + seen[1]) == list(range(100))
    assert min(len(seen[0]), len(seen[1])) >= 20


async def test_a_client_shares_a_name_with_the_buss_own_process(router: EventRouter, client: Talker, url: str):
    seen = []
    async with EventBus(url) as bus:
        await bus.subscribe("*", lambda event: seen.append(event.payload["n"]), NAME)
        await client.subscribe(name=NAME, credit=1)
        writing = client.publish_all(events(50))
        await writing
        mine: list[int] = []
        while len(seen) + len(mine) < 50:
            if (frame := next((f for f in client.kept if f["type"] == "event"), None)) is None:
                try:
                    async with asyncio.timeout(0.5):
                        frame = await client.event()
                except TimeoutError:
                    continue
            else:
                client.kept.remove(frame)
            mine += numbers([frame])
            await client.say("ack", subscription_id="sub-1", tokens=[frame["token"]])
        assert sorted(seen + mine) == list(range(50))


async def test_what_one_that_does_not_read_has_no_room_for_goes_to_another(router: EventRouter, join: Join):
    writer = await join(router)
    for n in range(100):
        await writer.publish(n=n, payload={"n": n, "text": "x" * 200_000})
    with socket.socket() as silent:
        silent.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that little is enough
        silent.setblocking(False)
        await asyncio.get_running_loop().sock_connect(silent, ("127.0.0.1", router.port))
        async with talking(router, sock=silent, close_timeout=0.1) as slow:
            slow.socket.transport.pause_reading()
            await slow.say("subscribe", subscription={"name": NAME, "start": "first", "credit": 100})
            await eventually(lambda: any(connection.congested for connection in connections_of(router)))
            await writer.subscribe(name=NAME, credit=100)
            assert len(await writer.events(50)) == 50
            slow.cut()


async def test_who_reads_late_is_not_cut_since_nothing_more_is_handed_to_it(router: EventRouter, join: Join):
    client, writer = await join(router), await join(router)
    await client.subscribe(name=NAME, credit=100)
    client.socket.transport.pause_reading()
    for n in range(100):
        await writer.publish(n=n, payload={"n": n, "text": "x" * 200_000})
    assert (await writer.health())["slow_clients"] == 0
    client.socket.transport.resume_reading()
    got: list[int] = []
    for _ in range(100):
        (each,) = await client.events(1)
        got += numbers([each])
        await client.say("ack", subscription_id="sub-1", tokens=[each["token"]])
    assert sorted(got) == list(range(100))


async def test_a_subscription_with_a_name_remembers_what_came_while_nobody_was_there(router: EventRouter, join: Join):
    first = await join(router)
    await first.subscribe(name=NAME)
    await first.ask("unsubscribe", subscription_id="sub-1")
    await first.publish(n=1)
    second = await join(router)
    assert (await second.subscribe(name=NAME))["recovered"] is True
    assert numbers(await second.events(1)) == [1]


@pytest.mark.parametrize(("start", "expected"), [("first", [0, 1, 2]), ("new", []), ("2020-01-31", [0, 1, 2])])
async def test_a_new_one_begins_where_it_says(router: EventRouter, client: Talker, start: str, expected: list[int]):
    await client.publish_all(events(3))
    await client.subscribe(name=NAME, start=start)
    assert numbers(await client.events(len(expected))) == expected
    await client.nothing()


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_the_lease_is_kept_while_the_client_is_there(router: EventRouter, client: Talker, join: Join):
    await client.subscribe(name=NAME, lease=0.5)
    other = await join(router)
    await other.subscribe(name=NAME, lease=0.5)
    await client.publish()
    await asyncio.sleep(1.5)  # three leases
    (got,) = [frame for each in (client, other) for frame in await came(each)]
    holder = client if got in client.kept else other
    assert (await settle(holder, "ack", got))["settled"] == 1


async def came(client: Talker) -> list[Frame]:
    """The deliveries so far."""
    await client.ask("ping")
    return [frame for frame in client.kept if frame["type"] == "event"]


# --- connections that break -----------------------------------------------------------------------------------------


async def test_who_comes_back_keeps_what_it_holds_and_gets_the_rest_at_once(router: EventRouter, join: Join):
    client = await join(router, client="c-1")
    await client.subscribe(name=NAME)
    await client.publish_all(events(3))
    got = await client.events(3)
    client.cut()
    again = await join(router, client="c-1")
    await again.subscribe(name=NAME, held=[got[0]["token"]])
    others = await again.events(2)
    assert sorted(numbers(others)) == [1, 2]
    assert all("attempt" not in each for each in others), "given back uncharged"
    assert (await settle(again, "ack", got[0], *others))["settled"] == 3
    assert await unsettled(router) == 0


async def test_others_do_not_get_what_is_waited_for(router: EventRouter, join: Join):
    client, other = await join(router, client="c-1"), await join(router)
    await client.subscribe(name=NAME)
    await client.publish(n=1)
    got = await client.event()
    await other.subscribe(name=NAME)
    client.cut()
    await asyncio.sleep(0.3)
    await other.nothing()
    again = await join(router, client="c-1")
    await again.subscribe(name=NAME, held=[got["token"]])
    assert (await settle(again, "ack", got))["settled"] == 1
    await other.nothing()


async def test_who_does_not_come_back_is_taken_to_have_crashed_and_its_events_go_alone(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(courier, "PARKED", 0.2)
    monkeypatch.setattr(courier, "_WAIT", 0.2)
    client, other = await join(router), await join(router)
    await client.subscribe(name=NAME)
    await client.publish_all(events(3))
    await client.events(3)
    await other.subscribe(name=NAME)
    client.cut()
    seen = []
    for _ in range(3):
        suspect = await other.event()
        assert suspect["attempt"] == 2
        await other.nothing()  # alone
        seen += numbers([suspect])
        await settle(other, "ack", suspect)
    assert sorted(seen) == [0, 1, 2]
    assert not await bus_of(router).dead_letters.list(subscription=NAME)


async def test_an_event_that_kills_its_clients_ends_with_the_dead_letters_and_the_innocent_do_not(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(courier, "PARKED", 0.1)
    monkeypatch.setattr(courier, "_WAIT", 0.2)
    writer = await join(router)
    handled: set[int] = set()

    async def worked_until_killed() -> bool:
        """Whether event 3 came, and took the client with it."""
        async with talking(router) as client:
            await client.subscribe(name=NAME, max_retries=2, credit=5)
            try:
                while True:
                    async with asyncio.timeout(2.0):
                        got = await client.event()
                    if numbers([got]) == [3]:
                        client.cut()
                        return True
                    handled.update(numbers([got]))
                    await settle(client, "ack", got)
            except TimeoutError:
                return False

    first = await join(router)
    await first.subscribe(name=NAME, max_retries=2, credit=5)
    await writer.publish_all(events(5))
    await first.events(5)
    first.cut()  # all five are suspects now
    assert [await worked_until_killed() for _ in range(3)] == [True, True, False]
    (letter,) = await bus_of(router).dead_letters.list(subscription=NAME)
    assert (letter.event.payload["n"], letter.reason) == (3, "crashed")
    assert handled == {0, 1, 2, 4}


@pytest.mark.parametrize("goodbye", ["close", "unsubscribe"])
async def test_who_says_goodbye_gives_back_uncharged(router: EventRouter, join: Join, goodbye: str):
    client, other = await join(router), await join(router)
    await client.subscribe(name=NAME, max_retries=0)
    await client.publish(n=1)
    await client.event()
    await other.subscribe(name=NAME, max_retries=0)
    if goodbye == "close":
        await client.socket.close()
    else:
        await client.ask("unsubscribe", subscription_id="sub-1")
    got = await other.event()
    assert "attempt" not in got
    assert (await settle(other, "ack", got))["settled"] == 1


async def test_an_ack_that_went_out_before_the_break_is_not_lost(router: EventRouter, join: Join):
    client = await join(router, client="c-1")
    await client.subscribe(name=NAME)
    await client.publish(n=1)
    got = await client.event()
    await client.say("ack", subscription_id="sub-1", tokens=[got["token"]])
    await client.socket.close()
    again = await join(router, client="c-1")
    await again.subscribe(name=NAME)
    await again.nothing()


async def test_a_client_that_is_back_before_its_old_connection_is_noticed_keeps_its_events(
    router: EventRouter, join: Join
):
    client, again = await join(router, client="c-1"), await join(router, client="c-1")
    await client.subscribe(name=NAME, credit=2)
    await client.publish_all(events(2))
    got = await client.events(2)
    await again.subscribe(name=NAME, held=[got[0]["token"]])
    (other,) = await again.events(1)
    assert "attempt" not in other
    assert (await settle(again, "ack", got[0], other))["settled"] == 2
    client.cut()


async def test_what_comes_while_a_client_is_sent_away_goes_to_the_others_uncharged(router: EventRouter, join: Join):
    client = await join(router)
    await client.subscribe(name=NAME)
    (connection,) = connections_of(router)
    other = await join(router)
    await other.subscribe(name=NAME)
    client.socket.transport.pause_reading()  # it does not hear that it has to go
    connection.close(SILENT, "you did not answer pings")
    await other.publish_all(events(4))
    assert sorted(numbers(got := await other.events(4))) == [0, 1, 2, 3]
    assert not [each for each in got if "attempt" in each]
    client.cut()


async def test_a_token_of_before_a_restart_of_the_router_is_good(serve: Serve, join: Join, broker_name: str, url: str):
    async with EventBus(url) as bus:  # the engine stays
        before = await serve(bus=bus)
        client = await join(before)
        await client.subscribe(name=NAME)
        await client.publish_all(events(2))
        got = await client.events(2)
        # A router that is killed gives nothing back.
        for each in desk_of(before).couriers.values():
            for seat in each.seats:
                seat.held.clear()
        await before.stop()
        after = await serve(bus=bus)
        again = await join(after)
        await again.subscribe(name=NAME)
        assert (await settle(again, "ack", *got))["settled"] == 2
        await again.nothing()


# --- suspects and other subscriptions of the same client ------------------------------------------------------------


async def test_a_suspect_of_one_subscription_does_not_stop_the_others_of_its_client(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(courier, "PARKED", 0.1)
    monkeypatch.setattr(courier, "_WAIT", 0.2)
    crashing, client, writer = await join(router), await join(router), await join(router)
    await crashing.subscribe("task.*", name="a")
    await writer.publish(n=1)
    await crashing.event()
    await client.subscribe("task.*", name="a")
    await client.subscribe("other", name="b")
    crashing.cut()
    suspect = await client.event()
    await writer.publish("other", 2)
    await client.nothing()
    await settle(client, "ack", suspect)
    assert numbers(await client.events(1)) == [2]


async def test_a_suspect_that_waits_for_its_client_goes_back_when_its_subscription_is_paused(
    router: EventRouter, join: Join, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(courier, "PARKED", 0.1)
    monkeypatch.setattr(courier, "_WAIT", 0.2)
    crashing, client, writer = await join(router), await join(router), await join(router)
    await crashing.subscribe("task.*", name="a")
    await writer.publish(n=1)
    await crashing.event()
    await client.subscribe("task.*", name="a")
    await client.subscribe("other", name="b")
    await writer.publish("other", 2)
    busy = await client.event()
    crashing.cut()
    waiting: dict[str, Lease] = part(desk_of(router).couriers["a~task.*"], "_suspects")
    await eventually(lambda: waiting)
    await bus_of(router).pause("a")
    await settle(client, "ack", busy)
    await client.nothing()
    await bus_of(router).resume("a")
    assert (await client.event())["attempt"] == 2


async def test_a_courier_of_many_named_subscriptions_leaves_no_task_behind(router: EventRouter, join: Join):
    client = await join(router)
    for n in range(20):
        await client.subscribe(f"t.{n}", name=NAME)
    await client.socket.close()
    await eventually(lambda: not desk_of(router).couriers)
    tasks = [task for task in asyncio.all_tasks() if f":{NAME}~" in task.get_name()]
    await eventually(lambda: all(task.done() for task in tasks))


async def test_connections_that_flap_charge_nobody(router: EventRouter, join: Join):
    held: list[Frame] = []
    writer = await join(router)
    await writer.ask("ping")
    first = True
    for round in range(10):
        async with talking(router) as client:
            await client.ask("hello", client="c-1")
            await client.subscribe(name=NAME, held=[each["token"] for each in held])
            if first:
                await writer.publish_all(events(20))
                held = await client.events(20)
                first = False
            assert not await came(client), round
            client.cut()
    client = await join(router, client="c-1")
    await client.subscribe(name=NAME, held=[each["token"] for each in held])
    assert (await settle(client, "ack", *held))["settled"] == 20
    assert event()


# --- removed by somebody ----------------------------------------------------------------------------------------------


async def test_clients_of_a_subscription_that_was_removed_are_told_and_may_begin_anew(
    router: EventRouter, client: Talker
):
    first = await client.subscribe(name=NAME)
    await client.publish(n=1)
    await client.event()
    await bus_of(router).remove(NAME)
    assert await client.hear("unsubscribed") == {"type": "unsubscribed", "subscription_id": first["subscription_id"]}
    again = await client.subscribe(name=NAME)
    await client.publish(n=2)
    (delivery,) = await client.events(1)
    assert (delivery["event"]["payload"]["n"], delivery["subscription_id"]) == (2, again["subscription_id"])
    assert (await settle(client, "ack", delivery))["settled"] == 1


# --- measured and paused --------------------------------------------------------------------------------------------


async def test_what_clients_settle_is_measured(router: EventRouter, client: Talker):
    await client.subscribe(name=NAME, retry={"max_retries": 0})
    await client.publish_all(events(3))
    first, second, third = await client.events(3)
    await settle(client, "ack", first, second)
    await settle(client, "nack", third, error="no")
    bus = bus_of(router)
    totals = (await bus.metrics.get_metrics())["totals"]
    assert [totals[name] for name in ("publishes", "deliveries", "errors")] == [3, 2, 1]
    seen = await bus.metrics.get_subscriber_metrics(NAME)
    assert (seen["deliveries"], seen["errors"]) == (2, 1)
    assert 0 < seen["latency"]["max"] < PATIENCE
    assert seen["health"] == "unhealthy"  # a third failed


async def test_who_leaves_is_no_subscriber_any_more(router: EventRouter, join: Join):
    client = await join(router)
    answer = await client.subscribe(name=NAME)
    metrics = bus_of(router).metrics
    assert (await metrics.get_metrics())["subscribers"]["total"] == 1
    await client.ask("unsubscribe", subscription_id=answer["subscription_id"])

    async def ended() -> bool:
        return bool((await metrics.get_metrics())["subscribers"]["total"] == 0)

    await eventually(ended)


async def test_a_pause_holds_up_what_clients_would_get(router: EventRouter, client: Talker):
    await client.subscribe(name=NAME)
    bus = bus_of(router)
    await bus.pause(NAME)
    await client.publish_all(events(3))
    await client.nothing()
    await bus.resume(NAME)
    assert numbers(await client.events(3)) == [0, 1, 2]


class Late:
    """An engine whose fetch returns what it leased only once the subscription is detached."""

    def __init__(self, broker: Broker) -> None:
        self.leased = asyncio.Event()
        self._broker = broker
        self._detached = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def fetch(self, id: str, *, limit: int, wait: float) -> Sequence[Lease]:
        leases = await self._broker.fetch(id, limit=limit, wait=wait)
        if leases:
            self.leased.set()
            await self._detached.wait()
        return leases

    async def detach(self, id: str) -> None:
        await self._broker.detach(id)
        self._detached.set()


async def test_what_is_leased_while_a_drain_begins_is_given_back():
    late = Late(open_broker("memory://"))
    async with EventBus(late) as bus, EventRouter(port=0, bus=bus) as router, connect(router.url) as socket:
        client = Talker(socket)
        await client.subscribe(name=NAME)
        await client.publish(n=0)
        await asyncio.wait_for(late.leased.wait(), 5)
        await router.stop()
        info = await bus.info(NAME)
        assert info is not None
        assert (info.ready, info.leased) == (1, 0)
        said = [json.loads(text)["type"] async for text in socket]  # until it was closed
        assert "event" not in said


async def test_who_subscribes_while_the_router_drains_is_served_by_the_next_one(router: EventRouter, join: Join):
    holding, late = await join(router), await join(router)
    await holding.subscribe("held.*", name="holding")
    await holding.publish("held.now")
    held = await holding.events(1)  # until this is settled, it drains
    await late.subscribe(name=NAME)
    await late.ask("unsubscribe", subscription_id="sub-1")
    await holding.publish(n=1)
    stopping = asyncio.create_task(router.stop())
    while (await holding.health())["status"] != "draining":
        pass
    await late.say("subscribe", subscription={"topics": ["*"], "name": NAME})
    await late.nothing()
    await holding.say("ack", subscription_id="sub-1", tokens=[held[0]["token"]])  # an answer may not come any more
    await stopping
