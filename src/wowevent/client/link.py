"""The connection that is kept: dialled, watched by pings, dialled again.

connect ──> connected ──── it broke ────> away ──> connected …
                │                           │
                ├── close() ────────────────┴──> idle
                └── it broke, and is not to come back ──> ended
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from functools import partial
from typing import Final

from msgspec import Struct

from wowevent.client.backoff import Backoff
from wowevent.client.connection import Address, Answer, Connection, Took, dial
from wowevent.clock import Clock, Timer
from wowevent.ending import end
from wowevent.errors import BrokerUnavailable, BusError, Closed, NotPermitted
from wowevent.log import logger
from wowevent.router.wire import MARGIN, OVER, Hello, Ping, Pong
from wowevent.wakeup import Wakeup

DEFAULT_FRAME: Final = 256 * 1024 + MARGIN
"""Bytes of the largest message that a router takes unless it was told otherwise."""
_LAST_WORDS: Final = 2.0  # seconds for the router to answer a goodbye


class Pace(Struct, frozen=True, kw_only=True):
    """Whether and when to connect again; in seconds, see EventRouterClient."""

    auto_reconnect: bool
    reconnect_interval: float
    max_reconnect_interval: float
    reconnect_decay: float
    heartbeat_interval: float
    timeout: float


class Hooks(Struct, frozen=True, kw_only=True):
    """Whom the link tells, each in the same turn as what happened."""

    opened: Callable[[Connection], None]
    """There is a connection, and nothing was sent on it."""
    lost: Callable[[], None]
    """There is none any more; `Link.ended` says whether that is for good."""
    restored: Callable[[], bool]
    """Whether everything that was asked for as it opened is answered."""
    took: Took
    """What nobody asked for, such as deliveries."""


class Link:
    """One connection at a time, and the task that sees to the next."""

    def __init__(self, address: Address, hello: Hello, pace: Pace, *, clock: Clock, hooks: Hooks) -> None:
        self.connection: Connection | None = None
        self.ended: BusError | None = None
        """Why it does not come back, if that is so."""
        self.changed: Wakeup = Wakeup()
        """Something that a wait may be about."""
        self.reconnects: int = 0
        """Connections after the first."""
        self.max_frame: int = DEFAULT_FRAME
        """Bytes of the largest message that the router takes, as it said last."""
        self._address = address
        self._url = address.url
        self._hello = hello
        self._pace = pace
        self._clock = clock
        self._hooks = hooks
        self._keeper: asyncio.Task[None] | None = None
        self._dialling = False
        self._closes = 0
        self._heart: Timer | None = None

    @property
    def running(self) -> bool:
        """Connected, or about to be again."""
        return self._keeper is not None and self.ended is None

    def absent(self) -> BusError:
        """Why there is nothing to send on, and will not be."""
        if self.ended is not None:
            return type(self.ended)(str(self.ended))  # raised more than once, each with a traceback of its own
        return Closed(f"not connected to {self._url}: call connect() first")

    async def connect(self) -> None:
        """Be connected, with everything restored, within `timeout` seconds; see EventRouterClient.connect."""
        try:
            async with asyncio.timeout(self._pace.timeout):
                while self._dialling or (self.running and self.connection is None):
                    await self.changed.wait()
                if self.connection is None:
                    await self._begin()
        except TimeoutError as error:
            raise BrokerUnavailable(f"{self._url} did not answer within {self._pace.timeout:g} s") from error

    async def _begin(self) -> None:
        self._dialling = True
        self.ended = None
        try:
            keeper, self._keeper = self._keeper, None
            await end(keeper)  # it may not have heard yet that its connection ended, nor why
            connection = await self._dial()
            self._keeper = asyncio.create_task(self._keep(connection), name="wowevent:client:link")
            self._keeper.add_done_callback(self._kept)
            await self._restored(connection)
        except BaseException:
            await self.close(0.0)
            raise
        finally:
            self._dialling = False
            self.changed.notify()

    async def _restored(self, connection: Connection) -> None:
        while self.connection is connection and not self._hooks.restored():
            await self.changed.wait()
        if self.connection is not connection:
            raise self.ended or BrokerUnavailable(f"{self._url} hung up at once")

    async def ready(self) -> Connection:
        """The connection, as soon as there is one; the caller sees to the time."""
        while self.connection is None:
            if not self.running:
                raise self.absent()
            await self.changed.wait()
        return self.connection

    async def close(self, seconds: float = _LAST_WORDS) -> None:
        """Say goodbye, and end; the router has `seconds` to answer."""
        self._closes += 1
        keeper, self._keeper = self._keeper, None
        connection = self.connection
        if connection is not None and seconds > 0:
            connection.close()
            try:
                async with asyncio.timeout(seconds):
                    await connection.ended()
            except TimeoutError:
                logger.warning("the router did not answer a goodbye", url=self._url)
        if connection is not None:
            connection.abort()
            await connection.ended()
        await end(keeper)
        self.ended = None
        self.changed.notify()

    # --- connecting -------------------------------------------------------------------------------------------------

    async def _dial(self) -> Connection:
        closes = self._closes
        connection = await dial(
            self._address, self._hello, timeout=self._pace.timeout, took=self._hooks.took, gone=self._gone
        )
        if self._closes != closes:
            connection.abort()
            raise Closed(f"disconnected from {self._url} while connecting")
        if self._keeper is not None:
            self.reconnects += 1
        self.connection = connection
        self.max_frame = connection.max_frame
        self._heart = self._clock.call_later(self._pace.heartbeat_interval, self._beat)
        self._hooks.opened(connection)
        self.changed.notify()
        return connection

    def _gone(self, connection: Connection) -> None:
        """It broke, or was closed."""
        if self.connection is not connection:
            return
        self.connection = None
        self._stop_heart()
        if self._keeper is not None:
            self.ended = self._final(connection)
            if self.ended is not None:
                logger.error("connection ended for good", url=self._url, error=self.ended)
            else:
                logger.warning(
                    "connection lost", url=self._url, code=connection.close_code, reason=connection.close_reason
                )
        self._hooks.lost()
        self.changed.notify()

    def _final(self, connection: Connection) -> BusError | None:
        """Why not to come back, if so."""
        renewed = connection.close_code == OVER and self._address.renews and self._pace.auto_reconnect
        if (refused := connection.final(self._url)) is not None and not renewed:
            return refused
        if not self._pace.auto_reconnect:
            why = f"{connection.close_code} {connection.close_reason}".strip()
            return BrokerUnavailable(f"the connection to {self._url} ended: {why}")
        return None

    async def _keep(self, connection: Connection) -> None:
        """See to the next connection whenever one ends."""
        pace = self._pace
        backoff = Backoff(pace.reconnect_interval, pace.max_reconnect_interval, pace.reconnect_decay)
        while True:
            began = self._clock.monotonic()
            await connection.ended()
            backoff.lasted(self._clock.monotonic() - began)
            again = await self._again(backoff) if self.ended is None else None
            if again is None:
                return
            connection = again
            logger.info("connected again", url=self._url)

    def _kept(self, keeper: asyncio.Task[None]) -> None:
        """There is no next connection: everybody is told, unless somebody connects or closes already."""
        if keeper.cancelled():
            return
        error = keeper.exception()
        if error is not None:
            logger.error("connecting stopped by an internal error", url=self._url, exc_info=error)
        if keeper is self._keeper:
            if error is not None:
                self.ended = BrokerUnavailable(f"{self._url} is not dialled again: the log says why")
            self._hooks.lost()
            self.changed.notify()

    async def _again(self, backoff: Backoff) -> Connection | None:
        """The next connection; None if the router wants us no more."""
        while True:
            pause = backoff.pause(random.random())  # noqa: S311 - jitter
            await self._clock.sleep(pause)
            try:
                return await self._dial()
            except NotPermitted as error:
                logger.error("connection ended for good", url=self._url, error=error)
                self.ended = error
                return None
            except BusError as error:
                logger.warning("still not connected", url=self._url, error=error)

    # --- heartbeat --------------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if (connection := self.connection) is not None:
            self._listen(connection)
            connection.call(Ping(), self._beaten)

    def _listen(self, connection: Connection) -> None:
        self._heart = self._clock.call_later(self._pace.timeout, partial(self._silent, connection, connection.heard))

    def _beaten(self, answer: Answer) -> None:
        if isinstance(answer, Pong):
            self._stop_heart()
            self._heart = self._clock.call_later(self._pace.heartbeat_interval, self._beat)

    def _silent(self, connection: Connection, heard: int) -> None:
        """A router from which something else came is there: on a narrow line its answer waits behind that."""
        if connection.heard > heard:
            self._listen(connection)
            return
        logger.warning("the router does not answer pings", url=self._url, timeout=self._pace.timeout)
        connection.abort()

    def _stop_heart(self) -> None:
        if self._heart is not None:
            self._heart.cancel()
            self._heart = None
