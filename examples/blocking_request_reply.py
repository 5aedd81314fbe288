"""Request and reply without an event loop: by two events that name each other, and by a call that waits.

Run it: python examples/blocking_request_reply.py
"""

import tempfile
from pathlib import Path
from queue import SimpleQueue
from uuid import uuid4

from wowevent import Event, EventType, NoResponders, create_task_event
from wowevent.blocking import EventBus


def main(url: str) -> None:
    replies: SimpleQueue[Event] = SimpleQueue()

    with EventBus(url) as bus:

        def handle_request(event: Event) -> int:
            """Service B: a reply is an event of its own, with the request's trace and its id as the parent's."""
            result: int = sum(event.payload["numbers"])
            bus.publish(
                create_task_event(
                    event_type=EventType.TASK_COMPLETED,
                    agent_id="adder",
                    task_id=event.payload["task_id"],
                    task_data={"result": result},
                    trace_id=event.trace_id,
                    parent_event_id=event.event_id,
                )
            )
            return result  # what a callback returns answers who waits for it

        bus.subscribe("requests", ["task.submitted.*"], handle_request)
        bus.subscribe("replies", ["task.completed.*"], replies.put)
        bus.start_consuming("requests", blocking=False)
        bus.start_consuming("replies", blocking=False)

        # Service A, the way of two events: it may end before the answer comes, and find it in its queue later.
        request = create_task_event(
            event_type=EventType.TASK_SUBMITTED,
            agent_id="requester",
            task_id="req_001",
            task_data={"numbers": [1, 2, 3]},
            trace_id=uuid4(),
        )
        bus.publish(request)
        reply = replies.get(timeout=10)
        if (reply.parent_event_id, reply.trace_id) != (request.event_id, request.trace_id):
            raise AssertionError("that is the reply to something else")
        print(f"reply to {reply.payload['task_id']}: {reply.payload['result']}")

        # The way of a call: it waits, and says at once when nobody is there.
        print(f"called: {bus.request(EventType.TASK_SUBMITTED, {'task_id': 'req_002', 'numbers': [4, 5]})}")
        try:
            bus.request("task.forgotten", {})
        except NoResponders:
            print("nobody answers that")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(f"sqlite:///{Path(folder) / 'events.db'}")
