"""A router on its own: agents connect to it over WebSocket until Ctrl-C ends it.

Run it: python examples/start_server.py [--port 9090] [--url sqlite:///events.db]

Without --url it keeps its events in memory. In another terminal: python examples/test_client.py, or `wscat -c
ws://localhost:9090`. For more than trying out there is `wowevent serve`, which has HTTP, logs and a daemon too.
"""

import argparse
import asyncio
import contextlib
import signal
import sys

from wowevent import BusError
from wowevent.router import EventRouter


async def main(port: int, url: str) -> None:
    async with EventRouter(port=port, url=url) as router:
        print(f"listening on {router.url}, Ctrl-C ends it", flush=True)
        await asyncio.Event().wait()  # that never happens: leaving by Ctrl-C stops the router, which drains it


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A router on its own.")
    parser.add_argument("--port", type=int, default=9090, help="0 is any that is free (default: %(default)s)")
    parser.add_argument("--url", default="memory://", help="the engine that keeps the events (default: %(default)s)")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts with & ignore it
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))  # `kill` ends it as Ctrl-C does
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(main(given.port, given.url))
    except (BusError, OSError, OverflowError, ValueError) as error:  # the port is taken, the URL is none
        sys.exit(f"cannot listen: {error}")
    print("ended")
