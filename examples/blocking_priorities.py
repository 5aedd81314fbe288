"""Priorities: a queue for what is urgent only, and a backlog that what is urgent overtakes.

Run it: python examples/blocking_priorities.py
"""

import tempfile
from pathlib import Path
from queue import SimpleQueue

from wowevent import Event, EventPriority, EventType, create_task_event
from wowevent.blocking import EventBus

LOAD = [("report", EventPriority.LOW), ("mail", EventPriority.NORMAL), ("order", EventPriority.HIGH)] * 2 + [
    ("outage", EventPriority.CRITICAL)
]


def names(queue: "SimpleQueue[Event]", count: int) -> list[str]:
    """Of the next events, sorted; `queue.Empty` if they do not come."""
    return sorted(queue.get(timeout=20).payload["task_id"] for _ in range(count))


def main(url: str) -> None:
    urgent: SimpleQueue[Event] = SimpleQueue()
    everything: SimpleQueue[Event] = SimpleQueue()

    with EventBus(url) as bus:
        # The last word of a routing key is the band: low, normal, high, critical.
        bus.subscribe("urgent", ["task.*.critical", "task.*.high"], urgent.put)
        bus.subscribe("everything", ["task.#"], everything.put)
        for name, priority in LOAD:
            bus.publish(
                create_task_event(
                    event_type=EventType.TASK_SUBMITTED,
                    agent_id="shop",
                    task_id=name,
                    priority=priority,
                )
            )
        bus.start_consuming("urgent", blocking=False)
        bus.start_consuming("everything", blocking=False)  # it was away: there is a backlog
        print("urgent ", *names(urgent, 3))
        print("first  ", *names(everything, 3))
        print("then   ", *names(everything, 4))

    if not (urgent.empty() and everything.empty()):
        raise AssertionError("an event came twice")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(f"sqlite:///{Path(folder) / 'events.db'}")
