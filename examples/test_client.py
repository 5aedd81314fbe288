"""Is a router there, and does it work? Connect, publish, subscribe, receive.

Run it: python examples/test_client.py [ws://localhost:9090]

It exits with 1 and one line that says why, if anything of that fails. examples/start_server.py is a
router to try it on.
"""

import asyncio
import sys

from wowevent import BusError, Event
from wowevent.client import EventRouterClient


async def main(url: str) -> None:
    received: asyncio.Queue[Event] = asyncio.Queue()
    async with EventRouterClient(url, timeout=5.0) as client:
        print(f"✅ Connected to {url}")

        event_id = await client.publish("test.event", {"message": "is anybody there?"})
        print(f"✅ Published event: {event_id}")

        async def hear(event: Event) -> None:
            received.put_nowait(event)

        sub_id = await client.subscribe(["test.*"], callback=hear)
        print(f"✅ Subscription created: {sub_id}")

        # A subscription without a name is live: it sees what is published from now on.
        event_id = await client.publish("test.event", {"message": "now somebody is"})
        async with asyncio.timeout(5.0):
            while (event := await received.get()).event_id != event_id:
                pass  # another client's
        print(f"✅ Received event: {event.topic}")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:9090"))
    except TimeoutError:
        sys.exit("❌ the router took the event, and did not deliver it within 5 s")
    except (BusError, ValueError) as error:
        sys.exit(f"❌ {error}")
