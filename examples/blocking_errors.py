"""Errors: what is tried again, what is not, where the rest goes, and an engine that is not there.

Run it: python examples/blocking_errors.py
"""

import logging
import socket
import tempfile
import threading
from pathlib import Path

from wowevent import Event, EventType, Reject, RetryPolicy, create_task_event
from wowevent.blocking import EventBus

logging.getLogger("wowevent").setLevel(logging.CRITICAL)  # the lines that it would write are this example's own


class TemporaryError(Exception):
    pass


def work(event: Event) -> None:
    """One task works, one works the third time, one is refused for good, one never works."""
    match event.payload["task_id"]:
        case "slow" if event.retry_count < 2:
            raise TemporaryError("the tool is not ready")
        case "wrong":
            raise Reject("there is no such task")  # no retry: straight to the dead letters
        case "broken":
            raise TemporaryError("the tool is broken")
    print(f"done    {event.payload['task_id']} after {event.retry_count} failures")


def main(url: str) -> None:
    retry = RetryPolicy(max_retries=3, initial=0.05)  # 1, 2 and 4 s, unless it is given
    letters: dict[str, int] = {}
    both = threading.Semaphore(0)

    def bury(event: Event) -> None:
        letters[event.payload["task_id"]] = event.retry_count
        both.release()  # returning discards the letter, raising would keep it

    with EventBus(url, retry=retry) as bus:
        bus.subscribe("work", ["task.*.*"], work)
        bus.subscribe("dlq.work", ["#"], bury)  # only this queue's dead letters
        bus.start_consuming("work", blocking=False)
        bus.start_consuming("dlq.work", blocking=False)
        for name in ("good", "slow", "wrong", "broken"):
            if not bus.publish(create_task_event(EventType.TASK_SUBMITTED, "boss", name)):
                print("not published; the log says why")
        for _ in range(2):
            if not both.acquire(timeout=20):
                raise AssertionError("a dead letter is missing")
        for name, failures in sorted(letters.items()):
            print(f"dead    {name} after {failures} failures")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    with EventBus(f"redis://127.0.0.1:{nobody}", connection_timeout=0.2) as bus:
        print(f"health  {bus.health_check()['status']}")
        print(f"publish {bus.publish(create_task_event(EventType.TASK_SUBMITTED, 'boss', 'lost'))}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(f"sqlite:///{Path(folder) / 'events.db'}")
