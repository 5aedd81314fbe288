"""Agents at work: a planner creates tasks, two workers share them, some fail and are retried, a monitor sees it all.

Run it: python examples/agent_communication.py (it starts a router of its own)

The workers use one subscription name, so each task is claimed by one of them. A worker that raises has failed: the
task comes again, perhaps to the other worker, and ends among the dead letters when its attempts are used up. At the end
the numbers that the monitor counted must add up.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from wowevent import DeadLetter, Event, EventBus, EventPriority, EventType, current
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

TASKS = 12
RETRIES = 1
FLAKY, HOPELESS = {3, 7}, {5}  # these fail once; this one always


class Planner:
    def __init__(self, client: EventRouterClient) -> None:
        self.client = client

    async def create(self, number: int) -> None:
        await self.client.publish(
            "task.created",
            {"task": number},
            priority=EventPriority.HIGH if number % 4 == 0 else EventPriority.NORMAL,
            type=EventType.TASK_CREATED,
        )


class Worker:
    def __init__(self, client: EventRouterClient) -> None:
        self.client = client
        client.on("task.created", name="worker", max_retries=RETRIES, credit=1)(self.work)  # one at a time

    async def work(self, event: Event) -> None:
        task, delivery = event.payload["task"], current()
        attempt = delivery.attempt if delivery else 1
        await self.client.publish("task.claimed", {"task": task, "attempt": attempt})
        await asyncio.sleep(0.01)  # the work
        if task in HOPELESS or (task in FLAKY and attempt == 1):
            await self.client.publish("task.failed", {"task": task, "attempt": attempt})
            raise ConnectionError("the model does not answer")
        await self.client.publish("task.completed", {"task": task, "attempt": attempt})


class Monitor:
    """Sees everything, and disturbs nobody: a subscription without a name."""

    def __init__(self, client: EventRouterClient) -> None:
        self.topics: Counter[str] = Counter()
        self.claims: Counter[str] = Counter()  # by worker
        self.changed = asyncio.Event()
        client.on("*")(self.count)

    async def count(self, event: Event) -> None:
        self.topics[event.topic] += 1
        if event.topic == "task.claimed":
            self.claims[event.source_agent] += 1
        self.changed.set()

    async def until(self, topic: str, count: int) -> None:
        async with asyncio.timeout(20):
            while self.topics[topic] < count:
                self.changed.clear()
                await self.changed.wait()


async def main() -> None:
    async with EventBus("memory://") as bus, EventRouter(port=0, bus=bus) as router:
        clients = {
            name: EventRouterClient(router.url, agent=name) for name in ("planner", "worker-1", "worker-2", "monitor")
        }
        planner, monitor = Planner(clients["planner"]), Monitor(clients["monitor"])
        for name in ("worker-1", "worker-2"):
            Worker(clients[name])
        async with clients["monitor"], clients["planner"], clients["worker-1"], clients["worker-2"]:
            for number in range(1, TASKS + 1):
                await planner.create(number)
            await monitor.until("task.completed", TASKS - len(HOPELESS))
            await monitor.until("task.failed", len(FLAKY) + (1 + RETRIES) * len(HOPELESS))
            letters = await dead_letters(bus, len(HOPELESS))
    topics = monitor.topics
    for topic, count in sorted(topics.items()):
        print(f"{topic:15} {count:3}")
    for letter in letters:
        print(
            f"dead            task {letter.event.payload['task']} after {len(letter.attempts)} attempts: {letter.error}"
        )

    check("created = completed + dead", topics["task.created"], topics["task.completed"] + len(letters))
    check("claimed = completed + failed", topics["task.claimed"], topics["task.completed"] + topics["task.failed"])
    check("claimed = what each worker claimed", topics["task.claimed"], monitor.claims.total())
    check("workers that had something to do", 2, len(monitor.claims))
    check("dead", sorted(HOPELESS), [letter.event.payload["task"] for letter in letters])
    print("all numbers add up")


async def dead_letters(bus: EventBus, count: int) -> Sequence[DeadLetter]:
    """As many as there must be. Nobody is told of a dead letter, so look again until they are there."""
    async with asyncio.timeout(10):
        while len(letters := await bus.dead_letters.list(subscription="worker")) < count:  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)
    return letters


def check(what: str, wanted: object, found: object) -> None:
    if wanted != found:
        raise AssertionError(f"{what}: {wanted} and {found} are not the same")


logging.getLogger("wowevent").setLevel(logging.CRITICAL)  # the failures are meant
asyncio.run(main())
