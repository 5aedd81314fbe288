"""The router: the bus for anything that speaks WebSocket."""

from wowevent.router.server import EventRouter

__all__ = ["EventRouter"]
