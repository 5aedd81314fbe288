"""Four ways to say which events an agent responds to: a topic, `error.*`, `*.failed`, and what is urgent.

Run it: python examples/simple_responder.py (it starts a router of its own)

A handler responds by publishing. What it publishes carries the correlation of the event that it responds to.
"""

import asyncio
from typing import Any

from wowevent import Event, EventPriority
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter


def respond_with(responder: EventRouterClient) -> None:
    """The four patterns. Handlers may be given before the client connects: then they miss nothing."""

    @responder.on("task.created")  # exactly this topic
    async def claim(event: Event) -> None:
        await responder.publish("task.claimed", {"task_id": event.payload["task_id"]})

    @responder.on("error.*")  # whatever begins with error
    async def page(event: Event) -> None:
        if event.payload["severity"] == "critical":
            await responder.publish("alert.page_oncall", {"about": event.topic}, priority=EventPriority.CRITICAL)

    @responder.on("*.failed")  # whatever of two words ends with failed
    async def note(event: Event) -> None:
        await responder.publish("failure.noted", {"about": event.topic})


async def respond_to_urgent(responder: EventRouterClient) -> None:
    async def escalate(event: Event) -> None:
        await responder.publish("urgent.escalated", {"about": event.topic, "priority": event.priority})

    await responder.subscribe(
        topics=["job.*"], priorities=[EventPriority.HIGH, EventPriority.CRITICAL], callback=escalate
    )


async def main() -> None:
    responses: asyncio.Queue[Event] = asyncio.Queue()
    async with EventRouter(port=0) as router:
        responder = EventRouterClient(router.url, agent="responder")
        world = EventRouterClient(router.url, agent="world")
        respond_with(responder)

        @world.on("*", sources=["responder"])
        async def hear(event: Event) -> None:
            responses.put_nowait(event)

        async def happens(topic: str, payload: dict[str, Any], priority: int = EventPriority.NORMAL) -> None:
            """Publish, and show what the agent makes of it."""
            event_id = await world.publish(topic, payload, priority)
            response = await asyncio.wait_for(responses.get(), timeout=10)
            print(f"{topic} -> {response.topic} {response.payload}")
            if response.correlation_id != event_id:
                raise AssertionError(f"{response.topic} is no response to {topic}")

        async with world:
            async with responder:
                await respond_to_urgent(responder)
                await happens("task.created", {"task_id": 7})

                # Nothing responds to these two: else their responses would come before the next ones.
                await world.publish("error.disk", {"severity": "minor"})
                await world.publish("job.started", {"n": 1}, EventPriority.LOW)

                await happens("error.network", {"severity": "critical"})
                await happens("payment.failed", {"amount": 12})
                await happens("job.started", {"n": 2}, EventPriority.HIGH)
            await world.get_health()  # whatever the responder said before it left has come
    if not responses.empty():
        raise AssertionError(f"nobody asked for {responses.get_nowait()}")
    print("nothing else was responded to")


asyncio.run(main())
