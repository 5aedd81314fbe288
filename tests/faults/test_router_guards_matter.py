"""The router's fault tests count since they were seen to fail: here a guard is taken out, and the checker notices.

The heartbeat's own, that whatever comes is a sign of life, is what `crowded` in test_router_network.py fails without.
"""

from __future__ import annotations

import apsw
import pytest

from tests.faults.proxy import Proxy
from tests.faults.router_lab import RouterLab
from wowevent import EventBus

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_known_ids_a_lost_answer_stores_twice(routed: RouterLab, guarded: bool):
    """Only the log can know that what comes again is there."""
    async with EventBus(routed.lab.url):
        pass
    if not guarded:
        db = apsw.Connection(str(routed.lab.path))
        db.execute("DROP INDEX log_id")
        db.close()
    router = await routed.router(without="" if guarded else "ids")
    live = await routed.receiver(named=False)
    async with Proxy(routed.port) as proxy:
        proxy.lose = lambda message: message.startswith(b'{"type":"published"')
        publisher = routed.publisher(url=proxy.url, reconnect=0.1, count=20, tasks=20)
        await routed.lab.until(lambda: proxy.lost)
        proxy.lose = None
        assert await routed.confirmed_all(publisher) == 20
    await routed.handled()
    await routed.end(live)
    report = await routed.verdict()
    assert bool(report.duplicates) is not guarded
    assert bool(report.broken().get("conflicts")) is not guarded
    await routed.end(router)


@pytest.mark.parametrize("guarded", [True, False])
async def test_acknowledging_before_the_handler_loses_with_the_client(routed: RouterLab, guarded: bool):
    """A client that says it has handled what it has only got takes that with it."""
    router = await routed.serve()
    settings = {"subscription": "work", "lease": 1.0}
    hasty = await routed.receiver(**settings, slow=0.3, concurrency=10, without="" if guarded else "waiting")
    publisher = routed.publisher(count=20, tasks=20)
    await routed.lab.written(15, "delivered")
    assert await routed.confirmed_all(publisher) == 20
    hasty.kill()
    other = await routed.receiver(**settings)
    if guarded:
        await routed.handled()
    else:
        await routed.settled("work")
    await routed.end(other)
    assert bool((await routed.verdict()).lost) is not guarded
    await routed.end(router)


@pytest.mark.parametrize("guarded", [True, False])
async def test_without_a_position_a_break_loses(routed: RouterLab, guarded: bool):
    """An anonymous client that does not say how far it came gets what is new, and not what came meanwhile."""
    router = await routed.serve()
    async with Proxy(routed.port) as proxy:
        live = await routed.receiver(url=proxy.url, named=False, reconnect=0.5, without="" if guarded else "position")
        publisher = routed.publisher(tasks=1, pause=0.002)
        for _ in range(3):
            await routed.lab.written(len(routed.lab.history("effect")) + 20, "effect")
            proxy.reset()
        await routed.lab.written(len(routed.lab.history("effect")) + 20, "effect")
        await routed.confirmed(publisher)
        if guarded:
            await routed.handled()
        else:
            await routed.lab.until(
                lambda: {e.id for e in routed.lab.history("ok")[-1:]} <= {e.id for e in routed.lab.history("effect")}
            )
        await routed.end(live)
    assert bool((await routed.verdict()).lost) is not guarded
    await routed.end(router)
