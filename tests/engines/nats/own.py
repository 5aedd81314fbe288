"""What the tests of the NATS engine share: its instances, their lines, and somebody else in their account."""

# ruff: noqa: SLF001 - to see what the server has given an instance, a test has to reach inside

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from tests.conformance.engines import Rig, eventually, shared_nats
from tests.conformance.making import WORKER, acknowledge, once_it_works, take
from tests.faults.proxy import Proxy
from wowevent.broker import Lease
from wowevent.brokers.nats import NatsBroker, session
from wowevent.brokers.nats.link import Link
from wowevent.brokers.nats.registry import Known
from wowevent.errors import BrokerUnavailable

TOPIC = "task.created"


def opened(rig: Rig, **settings: Any) -> NatsBroker:
    """One more instance."""
    broker = rig.broker(**settings)
    assert isinstance(broker, NatsBroker)
    return broker


def session_of(broker: NatsBroker) -> session.Session:
    assert broker._entrance.session is not None
    return broker._entrance.session


def link_of(broker: NatsBroker) -> Link:
    return session_of(broker).link


def known_of(broker: NatsBroker, id: str = WORKER) -> Known:
    return broker._registry.known[id]


@asynccontextmanager
async def by_a_line(rig: Rig) -> AsyncIterator[tuple[NatsBroker, Proxy]]:
    """One more instance of the same log, and the line by which it reaches the server."""
    where = urlsplit(shared_nats.url())
    namespace = opened(rig)._names.prefix.split(".")[1]
    async with Proxy(int(where.port or 0), plain=True) as proxy:
        broker = NatsBroker([f"nats://127.0.0.1:{proxy.port}"], namespace=namespace, clock=rig.clock)
        try:
            yield broker, proxy
        finally:
            await broker.close()


def kill(broker: NatsBroker) -> None:
    """It says no more, not even goodbye: to the server and to the others it was killed."""
    cut(broker)
    broker._entrance.closed = True  # else it would join again


def cut(broker: NatsBroker) -> None:
    """Its line broke."""
    link = link_of(broker)
    link.fail(BrokerUnavailable("cut"))
    transport: Any = link._connection._transport
    transport._io_writer.transport.abort()


@asynccontextmanager
async def stranger() -> AsyncIterator[Link]:
    """Somebody else in the same account."""
    link = await Link.dial([shared_nats.url()], {})
    try:
        yield link
    finally:
        await link.close()


async def delete(name: str) -> None:
    """Somebody deletes a stream."""
    async with stranger() as link:
        await link.ask(f"STREAM.DELETE.{name}")


async def delete_consumer(where: str, name: str) -> None:
    async with stranger() as link:
        await link.ask(f"CONSUMER.DELETE.{where}.{name}")


async def gather(broker: NatsBroker, count: int, seconds: float = 10.0) -> list[Lease]:
    """Lease and acknowledge until so many came, each fetch apart."""
    found: list[Lease] = []

    async def more() -> bool:
        leases = await take(broker)
        assert len(leases) <= 1 or not any(lease.crashes for lease in leases)
        found.extend(leases)
        assert await acknowledge(broker, leases) == len(leases)
        return len(found) >= count

    await eventually(more, seconds)
    return found


def streams(broker: NatsBroker) -> dict[str, str]:
    names = broker._names
    return {kind: getattr(names, kind) for kind in ("log", "again", "later", "dead", "control")}


async def passes(rig: Rig, broker: NatsBroker) -> None:
    """A beat, in which whoever is there looks around."""
    await rig.advance(6)
    await once_it_works(broker.ping)


async def unanswered(*_: Any) -> int:
    """In the place of a call whose answer is lost."""
    raise BrokerUnavailable("the answer was lost")
