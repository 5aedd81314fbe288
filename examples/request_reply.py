"""An agent asks another and waits for the answer: request and reply, with the failures that a caller can meet.

Run it: python examples/request_reply.py
"""

import asyncio

from wowevent import Event, EventBus, NoResponders, RequestFailed, RequestTimeout, RetryPolicy


async def main() -> None:
    async with EventBus("memory://") as bus:

        async def calculate(event: Event) -> dict[str, float]:
            numbers = event.payload["numbers"]
            return {"mean": sum(numbers) / len(numbers)}  # what a handler returns is the reply

        async def sleep(_event: Event) -> str:
            await asyncio.sleep(60)
            return "too late"

        await bus.subscribe("math.mean", calculate, "calculator", retry=RetryPolicy(max_retries=0))
        await bus.subscribe("nap.take", sleep, "sleeper")

        print("reply:", await bus.request("math.mean", {"numbers": [1, 2, 6]}))
        try:
            await bus.request("math.mean", {"numbers": []})
        except RequestFailed as error:
            print("failed:", error)
        try:
            await bus.request("nap.take", timeout=0.2)
        except RequestTimeout:
            print("timed out")
        try:
            await bus.request("nobody.there")
        except NoResponders:
            print("nobody answers that")
        await bus.stop(timeout=0.1)  # the sleeper need not be waited for


asyncio.run(main())
