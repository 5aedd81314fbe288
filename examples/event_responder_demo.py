"""An order sets off a chain: five agents, each of which knows only the events it responds to.

    order.placed -> inventory.check -> inventory.reserved
                 -> payment.process -> payment.accepted -> order.shipped -> email.send -> email.sent
                                    -> payment.declined -> order.cancelled -> email.send -> email.sent

Run it: python examples/event_responder_demo.py (it starts a router of its own)

Every event of a chain carries the correlation of its beginning and the id of the event it follows from: an auditor,
who knows none of the agents, draws the chains from these alone. Before it ships, an agent asks another and waits.
"""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

from wowevent import Event
from wowevent.client import EventRouterClient
from wowevent.router import EventRouter

ORDERS = {"lamp": 40, "piano": 9000}  # prices
LIMIT = 1000  # what the bank accepts

SHIPPED = ["order.placed", "inventory.check", "inventory.reserved", "payment.process", "payment.accepted",
           "address.ask", "order.shipped", "email.send", "email.sent"]  # fmt: skip
CANCELLED = ["order.placed", "inventory.check", "inventory.reserved", "payment.process", "payment.declined",
             "order.cancelled", "email.send", "email.sent"]  # fmt: skip


# --- the agents: a subscription with a name is remembered, so that an agent that was away catches up ----------------


def shop(client: EventRouterClient) -> None:
    @client.on("order.placed", name="shop")
    async def take(event: Event) -> None:  # one event, two responses
        await client.publish("inventory.check", event.payload)
        await client.publish("payment.process", event.payload)

    @client.on("payment.accepted", name="shop")
    async def ship(event: Event) -> None:
        address = await client.request("address.ask", {"customer": event.payload["customer"]}, timeout=10)
        await client.publish("order.shipped", {**event.payload, "to": address["city"]})

    @client.on("payment.declined", name="shop")
    async def cancel(event: Event) -> None:
        await client.publish("order.cancelled", event.payload)


def stock(client: EventRouterClient) -> None:
    @client.on("inventory.check", name="stock")
    async def reserve(event: Event) -> None:
        await client.publish("inventory.reserved", event.payload)


def bank(client: EventRouterClient) -> None:
    @client.on("payment.process", name="bank")
    async def decide(event: Event) -> None:
        accepted = event.payload["price"] <= LIMIT
        await client.publish("payment.accepted" if accepted else "payment.declined", event.payload)


def customers(client: EventRouterClient) -> None:
    @client.on("address.ask", name="customers")
    async def tell(_event: Event) -> dict[str, str]:
        return {"city": "Kyiv"}  # what a handler returns is the answer


def post(client: EventRouterClient) -> None:
    @client.on(["order.shipped", "order.cancelled"], name="post")
    async def write(event: Event) -> None:
        await client.publish("email.send", {"to": event.payload["customer"], "about": event.topic})

    @client.on("email.send", name="post")
    async def send(event: Event) -> None:
        await client.publish("email.sent", event.payload)


# --- the auditor ----------------------------------------------------------------------------------------------------


def draw(events: list[Event], parent: Event, depth: int = 0) -> int:
    """Print a chain, what follows from an event below it; returns how many events it has."""
    print("  " * depth + f"{parent.topic:{28 - 2 * depth}} by {parent.source_agent}")
    children = sorted((event for event in events if event.parent_event_id == parent.event_id), key=lambda e: e.topic)
    return 1 + sum(draw(events, child, depth + 1) for child in children)


async def main() -> None:
    seen: list[Event] = []
    expected, complete = Counter(SHIPPED + CANCELLED), asyncio.Event()
    async with EventRouter(port=0) as router, AsyncExitStack() as agents:
        auditor = EventRouterClient(router.url, agent="auditor")

        @auditor.on("*")  # every event there is
        async def note(event: Event) -> None:
            seen.append(event)
            if len(seen) == expected.total():
                complete.set()

        await agents.enter_async_context(auditor)
        for agent in (shop, stock, bank, customers, post):
            client = EventRouterClient(router.url, agent=agent.__name__)
            agent(client)
            await agents.enter_async_context(client)

        async with EventRouterClient(router.url, agent="website") as website:
            for item, price in ORDERS.items():
                await website.publish("order.placed", {"item": item, "price": price, "customer": "Alice"})
            await asyncio.wait_for(complete.wait(), timeout=20)

    if Counter(event.topic for event in seen) != expected:
        raise AssertionError(f"other events than expected: {Counter(event.topic for event in seen)}")
    drawn = 0
    for order in [event for event in seen if event.topic == "order.placed"]:
        print(f"--- {order.payload['item']}")
        drawn += draw([event for event in seen if event.correlation_id == order.event_id], order)
    if drawn != len(seen):
        raise AssertionError("a chain is broken: an event does not follow from any other")


asyncio.run(main())
