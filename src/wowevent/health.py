"""How a bus is, in one look: its engine, its own state, and what is served."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wowevent.broker import Broker
from wowevent.errors import BrokerError, Closed
from wowevent.judge import Counts
from wowevent.subscription import Handle


async def look(broker: Broker, state: str, served: Mapping[str, Handle]) -> dict[str, Any]:
    """`status`, the engine's name with `connected` or `unreachable`, `event_bus` (the `state`), and `details`.

    `served` are the bus's own subscriptions by id. It is healthy when the engine answers, the bus runs, and all that
    it serves gets its events.
    """
    engine = broker.capabilities.name
    try:
        ping = await broker.ping()
        infos = await broker.subscriptions()
    except (BrokerError, Closed) as error:
        return {"status": "unhealthy", engine: "unreachable", "event_bus": state, "details": {"error": str(error)}}
    silent = [id for id, handle in served.items() if not handle.active]
    return {
        "status": "healthy" if state == "running" and not silent else "unhealthy",
        engine: "connected",
        "event_bus": state,
        "details": {
            "latency": ping.latency,
            "position": str(ping.head),
            "promise": broker.capabilities.promise,
            "subscriptions": len(infos),
            "served": sum(1 for info in infos if info.consumers),
            "lapsed": [info.subscription.id for info in infos if info.lapsed or info.lost],
            "not_served": silent,
            "dead_letters": sum(info.dead for info in infos),
            "states": {id: handle.state for id, handle in served.items()},
            "here": {id: _numbers(handle.consumer.counts) for id, handle in served.items()},
        },
    }


def _numbers(counts: Counts) -> dict[str, int]:
    return {name: getattr(counts, name) for name in counts.__slots__}
