"""Agents at work, for the pages to show: `python agents.py ENGINE ROUTER` says `ready`, and goes on until told to end.

shop -- order.placed --> billing -- bill.sent --> mailer      billing fails where an order has no sum
                    |-> stock
archive wants the orders, too, and is away; wall looks at the bills through the router.
"""

import asyncio
import signal
import sys
from itertools import count
from typing import Any

from wowevent import Event, EventBus, RetryPolicy
from wowevent.client import EventRouterClient

FIRST = 40  # orders at once, of which
LACKING = 8  # each such one has no sum
PAUSE = 0.5  # seconds between two that follow


def order(number: int) -> Event:
    """What the shop sells; one of LACKING lacks what billing wants."""
    customer = f"customer-{number % 5}"
    payload: dict[str, Any] = {
        "order": f"A-{number:04}",
        "customer": customer,
        "items": [{"sku": "tea-250", "count": number % 3 + 1}],
    }
    if number % LACKING:
        payload["sum"] = round(4.9 * (number % 3 + 1), 2)
    return Event(topic="order.placed", payload=payload, source_agent="shop", priority=8 if number % 10 == 0 else 5)


class Shop:
    """The agents, on one bus."""

    def __init__(self, bus: EventBus) -> None:
        self.bus = bus

    async def open(self) -> None:
        """Subscribe all of them."""
        twice = RetryPolicy(max_retries=1, initial=0.05)
        await self.bus.subscribe("order.placed", self.bill, "billing", retry=twice)
        await self.bus.subscribe("order.placed", self.pick, "stock")
        await self.bus.subscribe("bill.sent", self.mail, "mailer")
        away = await self.bus.subscribe("order.#", self.pick, "archive")
        await away.cancel()

    async def bill(self, event: Event) -> None:
        """Fails for an order without a sum."""
        bill = {"order": event.payload["order"], "to": event.payload["customer"], "sum": event.payload["sum"]}
        await self.bus.publish(Event(topic="bill.sent", payload=bill, source_agent="billing"))

    async def pick(self, _event: Event) -> None:
        """As long as it takes."""
        await asyncio.sleep(0.002)

    async def mail(self, event: Event) -> None:
        """The end of a conversation."""
        await self.bus.publish(Event(topic="mail.sent", payload={"to": event.payload["to"]}, source_agent="mailer"))


async def main(engine: str, router: str) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with EventBus(engine) as bus, EventRouterClient(router, agent="wall") as wall:
        shop = Shop(bus)
        await shop.open()
        wall.on("bill.*")(shop.pick)
        numbers = count(1)
        await bus.publish_many([order(next(numbers)) for _ in range(FIRST)])
        await bus.join(20)
        print("ready", flush=True)  # noqa: T201 - who started it waits for this
        while not told.is_set():
            await bus.publish(order(next(numbers)))
            try:
                async with asyncio.timeout(PAUSE):
                    await told.wait()
            except TimeoutError:
                continue


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
