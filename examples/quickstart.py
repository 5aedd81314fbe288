"""The lines that matter: publish, handle, retry, look at what failed, and send it again.

Run it: python examples/quickstart.py (it leaves its log, events.db, in the current directory)
"""

import asyncio

from wowevent import Event, EventBus, RetryPolicy


async def main() -> None:
    async with EventBus("sqlite:///events.db") as bus:
        broken, done, all_done = {2}, set(), asyncio.Event()

        async def work(event: Event) -> None:
            if event.payload["n"] in broken:
                raise ConnectionError("the model does not answer")
            done.add(event.payload["n"])
            if len(done) == 3:
                all_done.set()

        await bus.subscribe("task.*", work, "worker", retry=RetryPolicy(max_retries=2, initial=0.1))
        for n in (1, 2, 3):
            await bus.publish(Event(topic="task.created", payload={"n": n}, source_agent="planner"))
        await bus.join()  # everything is handled, or has used up its retries

        for letter in await bus.dead_letters.list(subscription="worker"):
            print("dead", letter.event.payload["n"], f"after {len(letter.attempts)} attempts:", letter.error)
        broken.clear()  # the repair
        await bus.dead_letters.redeliver(subscription="worker")
        await asyncio.wait_for(all_done.wait(), timeout=10)
        print("done", sorted(done))


asyncio.run(main())
