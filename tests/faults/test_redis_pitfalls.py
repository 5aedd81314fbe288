"""What others have paid for with Redis: a blocked line, a forgotten answer, `$`, MAXLEN; met without what avoids it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import pytest

from tests.faults.lab import SUBSCRIPTION, Lab
from tests.faults.redis import KEY, line_to, say, swallowed
from tests.faults.worker import Publisher, build
from tests.servers import Server
from wowevent import Event
from wowevent.broker import Ack, Broker, Lease, Query, Retention, Subscription
from wowevent.brokers import open_broker
from wowevent.brokers.redis import RedisBroker, line, reader
from wowevent.brokers.redis.reader import Tail
from wowevent.brokers.redis.script import SCRIPTS, Script
from wowevent.brokers.redis.session import Session
from wowevent.errors import BrokerUnavailable, PositionLost
from wowevent.testing import ManualClock

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600), pytest.mark.usefixtures("redis")]

SOURCE = Publisher(url="", journal="", name="p")


@pytest.mark.parametrize("guarded", [True, False])
async def test_who_blocks_on_the_line_of_all_holds_up_everybody(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server answers nothing behind a command that waits."""
    real = Tail.__init__

    def shared(self: Tail, query: Query, after: Any, session: Session, dial: Any) -> None:
        real(self, query, after, session, dial)
        self._line = session.line

    if not guarded:
        monkeypatch.setattr(Tail, "__init__", shared)
    broker = open_broker(lab.url)
    await broker.ping()
    first = asyncio.ensure_future(anext(aiter(broker.read(Query(), follow=True))))
    await asyncio.sleep(0.3)
    began = time.monotonic()
    await broker.ping()
    assert (time.monotonic() - began < 1.0) is guarded
    await broker.publish([Event(topic="load.made")])
    assert (await asyncio.wait_for(first, 10)).event.topic == "load.made"
    await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_who_blocks_for_longer_than_silence_may_last_is_taken_for_dead(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Both times are a quarter of what they are elsewhere; nothing is published, and that is no fault of the line."""
    monkeypatch.setattr(line, "_SILENCE", 1.0)
    monkeypatch.setattr(reader, "_BLOCK", 500 if guarded else 3_000)
    broker = open_broker(lab.url)
    await broker.ping()
    first = asyncio.ensure_future(anext(aiter(broker.read(Query(), follow=True))))
    await asyncio.wait([first], timeout=2.5)
    assert first.done() is not guarded
    if guarded:
        await broker.publish([Event(topic="load.made")])
        assert (await asyncio.wait_for(first, 10)).event.topic == "load.made"
    else:
        with pytest.raises(BrokerUnavailable):
            await first
    await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_note_of_lost_answers_what_was_leased_waits_for_its_lease(
    lab: Lab, redis: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """The server has given it away, and who got it does not know."""
    real = RedisBroker._take  # noqa: SLF001 - the guard is in there

    async def forgetful(self: RedisBroker, session: Session, *arguments: Any, **options: Any) -> Any:
        session.lost.clear()
        return await real(self, session, *arguments, **options)

    if not guarded:
        monkeypatch.setattr(RedisBroker, "_take", forgetful)
    await lab.declare(lease=60.0)
    async with line_to(redis) as (proxy, broker):
        await broker.publish([build(SOURCE, 0)])
        await swallowed(proxy, "fetch", lambda: broker.fetch(SUBSCRIPTION, limit=1, wait=0))
        leases = await broker.fetch(SUBSCRIPTION, limit=1, wait=0)
        assert len(leases) == (1 if guarded else 0)
        await broker.settle(SUBSCRIPTION, [Ack(lease.token) for lease in leases])


@pytest.mark.parametrize("guarded", [True, False])
async def test_declared_again_at_the_end_of_a_new_log_what_is_in_it_by_then_is_never_delivered(
    lab: Lab, redis: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """Somebody else published into it first: who goes on at `$` passes over that."""
    real = Session.ask

    def at_the_end(self: Session, name: str, *arguments: Any) -> asyncio.Future[Any]:
        again = name == "declare"
        return real(self, name, *("new" if again and each == "first" else each for each in arguments))

    if not guarded:
        monkeypatch.setattr(Session, "ask", at_the_end)
    old = open_broker(lab.url, clock=ManualClock())  # no beat of which finds out first
    await old.declare(Subscription(id=SUBSCRIPTION, patterns=("load.#",)))
    await say(redis, "FLUSHALL")
    new = open_broker(lab.url)
    await new.publish([build(SOURCE, 0)])
    found = await taken(old)
    assert [lease.event.event_id for lease in found] == (["p-0"] if guarded else [])
    await old.close()
    await new.close()


async def taken(broker: Broker, limit: int = 100) -> Sequence[Lease]:
    """What there is, once all that is lost has been said."""
    for _ in range(5):
        try:
            return await broker.fetch(SUBSCRIPTION, limit=limit, wait=0)
        except (BrokerUnavailable, PositionLost):
            continue
    raise AssertionError("it says for ever that something is lost")


def blunt(monkeypatch: pytest.MonkeyPatch, name: str, guard: bytes, instead: bytes) -> None:
    """Run that script without a guard."""
    script = Script(name)
    text = script.text.replace(guard, instead)
    assert text != script.text
    script.text, script.sha = text, hashlib.sha1(text).hexdigest()  # noqa: S324 - the server's way to name scripts
    monkeypatch.setitem(SCRIPTS, name, script)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_count_of_what_others_took_what_was_evicted_is_lost_in_silence(
    lab: Lab, redis: Server, monkeypatch: pytest.MonkeyPatch, guarded: bool
):
    """One key goes, that of what is leased; its holder is gone, too, and nobody settles it."""
    if not guarded:
        for name in SCRIPTS.keys() - {"open"}:
            blunt(monkeypatch, name, b"call('HINCRBY', Q, 'lost', count)", b"")
    await lab.declare(lease=0.3)
    holder, broker = open_broker(lab.url), open_broker(lab.url)
    await holder.publish([build(SOURCE, 0), build(SOURCE, 1)])
    assert len(await holder.fetch(SUBSCRIPTION, limit=1, wait=5.0)) == 1
    await holder.close()
    assert await say(redis, "DEL", f"{KEY}:q:1:l") == ":1\r\n"
    await asyncio.sleep(0.5)
    assert len(await broker.fetch(SUBSCRIPTION, limit=2, wait=0)) == 1
    with pytest.raises(PositionLost) if guarded else nullcontext():
        assert not await broker.fetch(SUBSCRIPTION, limit=2, wait=0)
    await broker.close()


@pytest.mark.parametrize("guarded", [True, False])
async def test_trimmed_by_count_alone_what_is_unread_is_lost(lab: Lab, monkeypatch: pytest.MonkeyPatch, guarded: bool):
    """As MAXLEN does it. An event that goes to five subscriptions lies in the log only, and they refer to it."""
    if not guarded:
        blunt(monkeypatch, "retain", b"math.min(head - count, floor() - 1)", b"head - count")
    broker = open_broker(lab.url, retention=Retention(max_count=10))
    assert isinstance(broker, RedisBroker)
    for id in (SUBSCRIPTION, *(f"other-{number}" for number in range(4))):
        await broker.declare(Subscription(id=id, patterns=("load.#",)))
    await broker.publish([build(SOURCE, number) for number in range(50)])
    session = broker._entrance.session  # noqa: SLF001 - its beat would do it some seconds later
    assert session is not None
    await session._retain()  # noqa: SLF001 - as above
    assert len(await taken(broker)) == (50 if guarded else 10)
    await broker.close()
