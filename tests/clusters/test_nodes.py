"""Of several nodes of RabbitMQ that a URL names, one may answer and yet not serve the log: it is passed by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import aiormq
import pytest

from tests.clusters.groups import ended, start_together
from tests.servers import rabbitmq_server
from wowevent import Event, EventBus
from wowevent.errors import BrokerUnavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def urls(tmp_path: Path) -> Iterator[list[str]]:
    """Two servers that know nothing of each other: what one has, the other one lacks."""
    nodes = [rabbitmq_server(tmp_path / f"node-{number}") for number in range(2)]
    with ended(*nodes):
        start_together(nodes)
        yield [f"amqp://guest:guest@127.0.0.1:{node.port}/" for node in nodes]


async def starts(url: str) -> None:
    async with EventBus(url) as bus:
        assert await bus.publish(Event(topic="load.made"))


async def test_a_node_that_cannot_serve_the_log_is_passed_by(urls: list[str]) -> None:
    """As one of a cluster cannot that has no replica of a stream: it refuses at once, and another one does not."""
    async with await aiormq.connect(urls[0]) as connection:
        channel = await connection.channel()
        await channel.queue_declare("agent_events#control", durable=True)  # and no stream
    with pytest.raises(BrokerUnavailable, match="PRECONDITION_FAILED"):
        await starts(urls[0])
    both = urls[0].removesuffix("/") + "," + urls[1].rpartition("@")[2]
    for _ in range(8):  # which one is tried first is left to chance
        await starts(both)
