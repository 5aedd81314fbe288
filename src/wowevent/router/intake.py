"""What clients publish, on its way to the engine: what gathers while one call is out goes in the next.

A client that sends faster than the engine stores is read from no further until the engine has caught up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from wowevent.bus import EventBus
from wowevent.errors import BusError, Closed
from wowevent.log import logger
from wowevent.receipt import Receipt
from wowevent.router.connection import Connection
from wowevent.router.fanout import Fanout
from wowevent.router.session import Store
from wowevent.router.wire import Published
from wowevent.wakeup import Wakeup

_TOGETHER: Final = 500  # events of one call
_AHEAD: Final = 1_000  # events of one client that may be on their way
_REMEMBERED: Final = 1_024  # calls whose duration is known

Entry = tuple[Connection, Store]


class Intake:
    """The publishes of all clients of one router, first come first stored."""

    def __init__(self, bus: EventBus, fanout: Fanout) -> None:
        self.stored: int = 0
        """Events that the engine took."""
        self.refused: int = 0
        """Events that it did not."""
        self.seconds: deque[float] = deque(maxlen=_REMEMBERED)
        """How long the last calls took, from the first event's arrival to its confirmation."""
        self._bus = bus
        self._fanout = fanout
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Entry] = []
        self._calling: list[Entry] = []
        self._filled = Wakeup()
        self._empty = Wakeup()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._calling)

    def put(self, connection: Connection, store: Store) -> None:
        """Take one event in; its answer comes when the engine has it."""
        self._waiting.append((connection, store))
        connection.storing += 1
        if connection.storing >= _AHEAD:
            connection.read(on=False)
        if self._filled.waiting:
            self._filled.notify()

    async def run(self) -> None:
        """Store what gathers, until cancelled."""
        while True:
            if not self._waiting:
                self._empty.notify()
                await self._filled.wait()
            self._calling, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
            began = self._calling[0][0].heard_at
            await self._store_or_say(self._calling)
            self.seconds.append(self._loop.time() - began)
            calling, self._calling = self._calling, []
            for connection in {connection for connection, _ in calling}:
                connection.flush()
                if connection.storing < _AHEAD // 2:
                    connection.read(on=True)

    async def drained(self) -> None:
        """Return once everything taken in is stored or refused."""
        while self._waiting or self._calling:
            await self._empty.wait()

    async def _store_or_say(self, entries: Sequence[Entry]) -> None:
        """A fault of ours ends those connections, and not the publishing of everybody."""
        try:
            await self._store(entries)
        except Exception as error:  # noqa: BLE001 - said, and the clients told
            logger.error("events could not be stored", exc_info=error)
            for connection, _ in entries:
                connection.fail()

    async def _store(self, entries: Sequence[Entry]) -> None:
        """One call for all; if one event spoils it, one call each, so that the others do not suffer."""
        try:
            receipts = await self._bus.publish_many([store.event for _, store in entries])
        except BusError as error:
            if len(entries) == 1 or error.retryable or isinstance(error, Closed):
                for connection, store in entries:
                    self._refuse(connection, store, error)
                return
            for entry in entries:
                await self._store([entry])
            return
        for (connection, store), receipt in zip(entries, receipts, strict=True):
            self._confirm(connection, store, receipt)
        for receipt in receipts:
            if not receipt.duplicate:  # where that lies says nothing of where the log ends
                self._fanout.note(receipt.position)

    def _confirm(self, connection: Connection, store: Store, receipt: Receipt) -> None:
        connection.storing -= 1
        self.stored += not receipt.duplicate
        connection.gather(
            Published(
                ref=store.ref,
                event_id=receipt.event_id,
                status="queued",
                position=None if receipt.position is None else str(receipt.position),
                duplicate=receipt.duplicate,
            )
        )

    def _refuse(self, connection: Connection, store: Store, error: BusError) -> None:
        connection.storing -= 1
        self.refused += 1
        logger.error("event refused", event_id=store.event.event_id, topic=store.event.topic, error=error)
        connection.gather(dropped(store, error))


def dropped(store: Store, error: BusError) -> Published:
    """The answer for an event that was not stored; a router that ends says so as something that passes."""
    return Published(
        ref=store.ref,
        event_id=store.event.event_id,
        status="dropped",
        reason=error.code,
        message=str(error),
        retryable=error.retryable or isinstance(error, Closed),
    )
