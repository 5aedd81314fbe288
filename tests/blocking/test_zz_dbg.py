from tests.blocking.conftest import *
from tests.processes import until
import pytest
@pytest.mark.parametrize("k", range(4))
def test_x(bus, k):
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    b = bus._running.line.bus.broker
    for n in range(1_000):
        assert bus.publish(task(n), persistent=False)
    until(lambda: len(seen.events) == 1_000, "the last one")
    import json
    async def hist():
        return [s.event.payload["n"] async for s in bus._running.line.bus.history()]
    h = bus._running.call(hist)
    print("history in order", h == list(range(1000)))
    def runs(l):
        out=[]; s=p=l[0]
        for x in l[1:]:
            if x!=p+1: out.append((s,p)); s=x
            p=x
        return out+[(s,p)]
    print(runs(seen.numbers))
