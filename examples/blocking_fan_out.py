"""Fan-out and competition: each queue has a copy of an event, and those who consume the same queue share its events.

Run it: python examples/blocking_fan_out.py
"""

import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from wowevent import Event, create_system_event
from wowevent.blocking import EventBus

CHECKS = 12
SERVICES = ("audit", "billing", "search")


class Ledger:
    """Who handled what."""

    def __init__(self) -> None:
        self.ids: defaultdict[str, list[str]] = defaultdict(list)
        self.handled = threading.Semaphore(0)

    def callback(self, name: str, seconds: float = 0.0) -> Callable[[Event], None]:
        def handle(event: Event) -> None:
            time.sleep(seconds)
            self.ids[name].append(event.event_id)
            self.handled.release()

        return handle

    def wait_for(self, count: int) -> None:
        for _ in range(count):
            if not self.handled.acquire(timeout=20):
                raise AssertionError("an event did not come")


def main(url: str) -> None:
    ledger = Ledger()
    with EventBus(url) as bus, EventBus(url, prefetch_count=1) as one, EventBus(url, prefetch_count=1) as two:
        for name in SERVICES:  # a queue each
            bus.subscribe(name, ["system.*.*"], ledger.callback(name))
            bus.start_consuming(name, blocking=False)
        for name, each in (("one", one), ("two", two)):  # one queue, as if they were two processes
            each.subscribe("workers", ["system.*.*"], ledger.callback(name, seconds=0.02))
            each.start_consuming("workers", blocking=False)
        checks = [create_system_event("system.health_check", "orchestrator", {"n": n}) for n in range(CHECKS)]
        for check in checks:
            bus.publish(check)
        ledger.wait_for(CHECKS * (len(SERVICES) + 1))

    published = sorted(check.event_id for check in checks)
    for name in SERVICES:
        if sorted(ledger.ids[name]) != published:
            raise AssertionError(f"{name} did not get each event once")
        print(f"{name:8} {CHECKS} copies")
    shared = ledger.ids["one"] + ledger.ids["two"]
    if sorted(shared) != published or not (ledger.ids["one"] and ledger.ids["two"]):
        raise AssertionError("the workers did not share the events")
    print(f"workers  {len(shared)} shared, none twice")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(f"sqlite:///{Path(folder) / 'events.db'}")
