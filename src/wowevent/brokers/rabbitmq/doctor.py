"""A look at a RabbitMQ from outside: by AMQP alone, which says little; passive declarations, and the control log read.

What AMQP does not tell is unknown, and said so with what tells it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import ChannelNotFoundEntity
from pamqp.commands import Basic

from wowevent.broker import Examination, SubscriptionInfo
from wowevent.brokers.rabbitmq.lanes import SUSPECTS
from wowevent.brokers.rabbitmq.letters import DEAD
from wowevent.brokers.rabbitmq.link import Channel, Link, nodes_of, unrouted
from wowevent.brokers.rabbitmq.names import Names
from wowevent.brokers.rabbitmq.outlet import Message
from wowevent.brokers.rabbitmq.registry import Registry, unpack
from wowevent.brokers.rabbitmq.stream import Follower
from wowevent.brokers.rabbitmq.tags import headers_of, route_of
from wowevent.ending import end
from wowevent.errors import BrokerUnavailable, NotPermitted, StorageDamaged
from wowevent.finding import CLOCK, Check, Finding, version_of

VERSION: Final = Check("rabbitmq.version", "RabbitMQ 3.10 or newer, with quorum queues and streams")
ALARM: Final = Check("rabbitmq.alarm", "no memory or disk alarm: the server takes what is published")
RIGHTS: Final = Check("rabbitmq.rights", "a user who may make queues, and publish to them")
POLICIES: Final = Check(
    "rabbitmq.policies", "no delivery limit and no dead-letter exchange of yours on the bus's queues"
)
REPLICAS: Final = Check("rabbitmq.replicas", "quorum queues and streams with a replica on each node")
LOG: Final = Check("rabbitmq.log", "the history, the control log and the exchange, all of them or none yet")
QUEUES: Final = Check("rabbitmq.queues", "the queues of every remembered subscription")
CHECKS: Final = (VERSION, ALARM, RIGHTS, POLICIES, REPLICAS, LOG, QUEUES, CLOCK)

_OLDEST: Final = (3, 10)
_QUIET: Final = 0.3  # seconds in which nothing comes any more: AMQP does not tell where a stream ends
_NOTHING: Final = 1.0  # and for the first message
_AHEAD: Final = 500
_BLOCKED: Final = 3.0  # seconds for a confirm,
_TOLD: Final = 0.3  # and for the word behind it that no more is taken
_NOBODY: Final = "wowevent#doctor"  # a queue that is nobody's, so that what is sent there is dropped


@asynccontextmanager
async def examine(url: str, names: Names) -> AsyncIterator[Examination]:
    """What can be looked at, by a link of its own."""
    link = await Link.dial(nodes_of(url))
    patient = Patient(link, url, names)
    try:
        yield patient.examination()
    finally:
        await patient.close()
        await link.close()


class Patient:
    """One server, and the names of one namespace's log."""

    def __init__(self, link: Link, url: str, names: Names) -> None:
        self._link = link
        self._url = url
        self._names = names
        self._reading: asyncio.Task[Registry | None] | None = None

    async def close(self) -> None:
        """Nobody waits for it any more."""
        await end(self._reading)

    def examination(self) -> Examination:
        """All of it."""
        looks: dict[Check, Callable[[], Awaitable[list[Finding]]]] = {
            VERSION: self._version,
            ALARM: self._alarm,
            POLICIES: self._policies,
            REPLICAS: self._replicas,
            LOG: self._log,
            QUEUES: self._queues,
            CLOCK: self._clock,
        }
        return Examination(looks, self.subscriptions)

    async def _version(self) -> list[Finding]:
        return [version(self._link.version)]

    async def _alarm(self) -> list[Finding]:
        try:
            found = await self._by_publishing()
            await self._delete_nothing()
        except NotPermitted as error:
            change = "rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'"
            return [RIGHTS.fail(str(error), change)]
        return [found, RIGHTS.ok("queues may be made, and be published to")]

    async def _delete_nothing(self) -> None:
        """A queue that never was, which takes the right to make it."""
        async with self._link.apart() as ask:
            await ask("queue_delete", f"{self._names.control}#doctor")

    async def _by_publishing(self) -> Finding:
        """By a message that no queue takes: who publishes nothing is not told of an alarm, and who did is told then."""
        link = await Link.dial(nodes_of(self._url))  # a server with an alarm answers nothing more where one publishes
        try:
            async with asyncio.timeout(_BLOCKED):
                await _publish_nothing(link)
            await asyncio.sleep(_TOLD)
            return alarmed() if link.blocked else ALARM.ok("a message that no queue takes was taken in")
        except TimeoutError:
            return alarmed() if link.blocked else _silent()
        finally:
            await link.close()

    async def _policies(self) -> list[Finding]:
        return [policies(self._link.version)]

    async def _replicas(self) -> list[Finding]:
        how = "look with: rabbitmqctl cluster_status; rabbitmqctl list_queues name type members online leader"
        return [REPLICAS.unknown("AMQP does not tell on which nodes a queue lies", how)]

    async def _log(self) -> list[Finding]:
        names = self._names
        there = {queue: await self._link.there([queue]) for queue in (names.control, names.history, names.later)}
        return [log(there)]

    async def _queues(self) -> list[Finding]:
        registry = await self._registry()
        if registry is None:
            return [QUEUES.ok("no log yet")]
        counts = await self._counts(registry)
        missing = sorted(queue for queue, count in counts.items() if count is None)
        if missing:
            return [
                QUEUES.fail(
                    f"deleted: {', '.join(missing[:5])}{' and more' if len(missing) > 5 else ''}",
                    "find out who deletes them; the next WowEvent that starts makes them again, what lay there is lost",
                )
            ]
        return [QUEUES.ok(f"{len(counts)} queues of {len(registry.known)} subscriptions")]

    async def _clock(self) -> list[Finding]:
        return [
            CLOCK.unknown("AMQP does not tell the server's clock", "look with: rabbitmqctl eval 'os:system_time().'")
        ]

    # --- subscriptions ----------------------------------------------------------------------------------------------

    async def subscriptions(self) -> Sequence[SubscriptionInfo] | None:
        """What is remembered. Who is there is told by the consumers of the queues."""
        registry = await self._registry()
        if registry is None:
            return None
        counts = await self._counts(registry)
        return [info for id in registry.known if (info := self._info(registry, id, counts)) is not None]

    def _info(self, registry: Registry, id: str, counts: dict[str, tuple[int, int] | None]) -> SubscriptionInfo | None:
        spec, known, names = registry.spec(id), registry.known[id], self._names
        if spec is None:
            return None
        lanes = [counts.get(queue) or (0, 0) for queue in (names.plain(id), names.urgent(id), names.suspects(id))]
        return SubscriptionInfo(
            subscription=spec,
            ready=sum(ready for ready, _ in lanes),
            leased=None,
            delayed=None,
            dead=(counts.get(names.dead(id)) or (0, 0))[0],
            consumers=max(consumers for _, consumers in lanes),
            oldest=None,
            lost=None,
            lapsed=known.lapsed,
        )

    async def _counts(self, registry: Registry) -> dict[str, tuple[int, int] | None]:
        """Of each queue that should be there, what lies in it and who consumes; None for one that is not there."""
        names = self._names
        left = [
            queue
            for id, known in registry.known.items()
            if not known.lapsed
            for queue in (
                names.plain(id),
                names.urgent(id),
                *([names.suspects(id)] if SUSPECTS in known.made else []),
                *([names.dead(id)] if DEAD in known.made else []),
            )
        ]
        found: dict[str, tuple[int, int] | None] = {}
        while left:  # a channel serves until it is refused one
            try:
                async with self._link.apart() as ask:
                    while left:
                        said = await ask("queue_declare", left[-1], passive=True)
                        found[left.pop()] = (int(said.message_count or 0), int(said.consumer_count or 0))
            except BrokerUnavailable as error:
                if not isinstance(error.__cause__, ChannelNotFoundEntity):
                    raise
                found[left.pop()] = None
        return found

    async def _registry(self) -> Registry | None:
        """Read once, whoever asks for it."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(), name="rabbitmq:doctor")
        return await asyncio.shield(self._reading)

    async def _read(self) -> Registry | None:
        """What the control log says, up to where it ends, as far as can be told; None if there is none."""
        if not await self._link.there([self._names.control]):
            return None
        newest = [-1]
        tail = await self._tail(lambda message: newest.append(int(headers_of(message)["x-stream-offset"])))
        follower = await Follower.follow(self._link, self._names.control, 0)
        registry = Registry()
        try:
            while True:
                patience = _NOTHING if registry.offset < max(newest) or registry.offset < 0 else _QUIET
                try:
                    async with asyncio.timeout(patience):
                        offset, message = await follower.next()
                except TimeoutError:
                    return registry
                _fold(registry, offset, message)
        finally:
            follower.close()
            self._link.drop(tail)

    async def _tail(self, tell: Callable[[DeliveredMessage], None]) -> Channel:
        channel = await self._link.open_channel()
        await self._link.call(channel.basic_qos(prefetch_count=_AHEAD))
        await self._link.consume(channel, self._names.control, tell, tag="last", arguments={"x-stream-offset": "last"})
        return channel


async def _publish_nothing(link: Link) -> None:
    properties = Basic.Properties(message_id=_NOBODY)
    try:
        await link.publish([Message("", _NOBODY, properties, b"", mandatory=True)])
    except BrokerUnavailable as error:
        if not unrouted(error):
            raise


def _fold(registry: Registry, offset: int, message: DeliveredMessage) -> None:
    if route_of(message)[0]:  # a fact: it says nothing of subscriptions
        registry.offset = offset
        return
    try:
        registry.fold(offset, unpack(message.body))
    except StorageDamaged:  # one that a newer version may understand; instances pass by it, too
        registry.offset = offset


def version(found: str) -> Finding:
    """Whether it has what is needed, and what it is known for."""
    numbers = version_of(found)
    if numbers[:2] < _OLDEST:
        return VERSION.fail(f"RabbitMQ {found}", "install RabbitMQ 3.10 or newer; 4.x is best")
    if numbers[:2] == _OLDEST:
        return VERSION.warn(
            f"RabbitMQ {found}: loses a quorum queue that is younger than a second, if the server is killed",
            "upgrade to 3.13 or 4.x; declare subscriptions before what must not be lost is published",
        )
    return VERSION.ok(f"RabbitMQ {found}")


def policies(version: str) -> Finding:
    """AMQP does not tell the policies; how to see them, and what a version does by itself."""
    by_itself = (
        "; 4.x gives quorum queues a limit of 20 where neither policy nor queue says otherwise; ours say otherwise"
        if version_of(version)[:1] >= (4,)
        else ""
    )
    return POLICIES.unknown(
        f"AMQP does not tell policies{by_itself}",
        "look with: rabbitmqctl list_policies; rabbitmqctl list_queues name type arguments policy "
        "effective_policy_definition; consumer_timeout must be longer than the longest lease",
    )


def log(there: dict[str, bool]) -> Finding:
    """What of it is there."""
    missing = [queue for queue, found in there.items() if not found]
    if not missing:
        return LOG.ok(", ".join(there))
    if len(missing) == len(there):
        return LOG.ok("no log yet: the first who publishes makes it")
    return LOG.fail(
        f"deleted: {', '.join(missing)}",
        "find out who deletes them; the next WowEvent that starts makes them again, positions of before are lost",
    )


def alarmed() -> Finding:
    """The server said so."""
    return ALARM.fail(
        "the server is short of memory or disk, and takes no messages (every publish is StorageFull)",
        "rabbitmq-diagnostics alarms says which; make room on its disk, or raise vm_memory_high_watermark, "
        "disk_free_limit",
    )


def _silent() -> Finding:
    return ALARM.unknown(
        f"a message was not confirmed within {_BLOCKED:.0f} s", "look with: rabbitmq-diagnostics alarms"
    )
