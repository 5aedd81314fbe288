"""An agent with a fault, and mended: `python billing.py ENGINE broken|mended` says `ready`, then each bill it wrote."""

import asyncio
import signal
import sys

from wowevent import Event, EventBus, RetryPolicy


async def bill(event: Event) -> None:
    """Expects a sum, which an order with a voucher has not."""
    order, total = event.payload["order"], event.payload["sum"]
    print("billed", order, f"{total:.2f}", flush=True)  # noqa: T201 - what the test reads


async def bill_mended(event: Event) -> None:
    """Adds up what has no sum."""
    payload = event.payload
    total = payload.get("sum", sum(item["price"] * item["count"] for item in payload["items"]))
    print("billed", payload["order"], f"{total:.2f}", flush=True)  # noqa: T201 - as above


async def main(engine: str, state: str) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    handler = bill_mended if state == "mended" else bill
    async with EventBus(engine) as bus:
        await bus.subscribe("order.placed", handler, "billing", retry=RetryPolicy(max_retries=1, initial=0.05))
        print("ready", flush=True)  # noqa: T201 - as above
        await told.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
