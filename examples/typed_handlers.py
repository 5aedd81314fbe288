"""Handlers that take their payload as a model: what does not fit is a dead letter at once, every wrong field named.

Run it: python examples/typed_handlers.py
"""

import asyncio

from pydantic import BaseModel, Field

from wowevent import Delivery, Event, EventBus


class Order(BaseModel):
    item: str
    count: int = Field(gt=0)


async def main() -> None:
    async with EventBus("memory://") as bus:

        async def stock(order: Order) -> None:
            print(f"stock: {order.count} x {order.item}")

        async def audit(event: Event, order: Order, delivery: Delivery) -> None:
            print(f"audit: {event.source_agent} ordered {order.item}, attempt {delivery.attempt}")

        await bus.subscribe("order.placed", stock, "stock")
        await bus.subscribe("order.placed", audit, "audit")
        await bus.publish(Event(topic="order.placed", payload=Order(item="lamp", count=2), source_agent="shop"))
        await bus.join()
        await bus.publish(Event(topic="order.placed", payload={"item": "rug", "count": 0}, source_agent="shop"))
        await bus.join()

        for letter in await bus.dead_letters.list():
            print(f"refused by {letter.subscription.split('~')[0]}: {letter.reason}: {letter.error}")


asyncio.run(main())
