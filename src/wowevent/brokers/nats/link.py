"""The line to a server: publishing with confirms, asking its API, being delivered to.

It is of one use. A message goes straight from the driver's parser to who waits for it, and what gathers in one turn of
the loop is written at once.
"""

from __future__ import annotations

import asyncio
import itertools
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from random import sample
from typing import Any, Final

import msgspec

from wowevent.brokers.nats.driver import Connection, Hear
from wowevent.brokers.nats.faults import is_missing, refusal, translate
from wowevent.brokers.nats.messages import NOBODY, Confirm, Found, Message, header_of, status_of
from wowevent.ending import end
from wowevent.errors import (
    BrokerError,
    BrokerUnavailable,
    BusError,
    Closed,
    NotSupported,
    PayloadTooLarge,
)

SILENCE: Final = 9.5
"""Seconds without an answer after which the server is taken to be gone (obligation 9)."""
_OLDEST: Final = (2, 11)  # of servers: messages that live for a while
_AGAIN: Final = 2.0  # seconds after which what changes nothing is asked once more: who was asked may be gone
_LOOKS: Final = (
    "STREAM.INFO.", "STREAM.NAMES", "STREAM.MSG.GET.", "CONSUMER.INFO.", "CONSUMER.LIST.", "CONSUMER.NAMES.", "INFO",
)  # fmt: skip
_DOUBT: Final = 0.8  # of that time, after which it is asked why nothing comes
_LEARNS: Final = 0.25  # seconds in which a node learns that a stream is there,
_TRIES: Final = 3  # and as often it is asked
_UNHEARD: Final = 4.0  # seconds after which it is asked whether the server is there, since an answer is missing
_SPARE: Final = 40_960  # bytes of a message's greatest length that are for what it says of itself
_confirm: Final = msgspec.json.Decoder(Confirm)
_json: Final = msgspec.json.Decoder(dict[str, Any])
_encode: Final = msgspec.json.Encoder().encode


class Link:
    """See the module. One that broke stays so."""

    def __init__(self, connection: Connection) -> None:
        """By `dial`."""
        self.error: Exception | None = None
        """Why it broke."""
        self.on_end: list[Callable[[], object]] = []
        """Called when it broke or was closed."""
        self.refuses: Callable[[Sequence[Message]], Awaitable[BusError | None]] = _nothing_refused
        """Asked why these are not stored, when no answer comes."""
        self.doubted: bool = False
        """There is a stream that stores nothing: it is asked before more is published."""
        self.version: str = str(connection.connected_server_version).strip("<>").rpartition(" v")[2]
        """The server's."""
        self.cluster: str = str(connection._server_info.get("cluster") or "")  # noqa: SLF001 - the driver tells it to nobody
        """The name of the server's cluster; empty for one that stands alone."""
        self._connection = connection
        self._most = connection.max_payload
        self._inbox = connection.new_inbox()
        self._numbers = itertools.count()
        self._answers: dict[bytes, asyncio.Future[tuple[bytes, bytes]]] = {}
        self._rounds: dict[bytes, _Round] = {}
        self._pending: list[bytes] = []
        self._waited: set[asyncio.Future[Any]] = set()
        self._asking: set[asyncio.Task[None]] = set()
        connection.broke = lambda error: self.fail(translate(error))
        connection.forbade = lambda error: self.refused(translate(error))

    @classmethod
    async def dial(cls, servers: Sequence[str], options: dict[str, Any]) -> Link:
        """Connect to one of these. BrokerUnavailable, NotPermitted, NotSupported."""
        for left, server in enumerate(sample(servers, len(servers)), 1 - len(servers)):
            try:
                return await cls._dial(server, options, SILENCE / len(servers))
            except BrokerUnavailable:
                if not left:
                    raise
        raise BrokerUnavailable("nats: no server is named")

    @classmethod
    async def _dial(cls, server: str, options: dict[str, Any], seconds: float) -> Link:
        connection = Connection()
        try:
            async with asyncio.timeout(seconds):
                await connection.join(server, options)
                link = cls(connection)
                await link._start()
                return link
        except BaseException as error:
            with suppress(Exception):
                await connection.close()
            if isinstance(error, Exception) and not isinstance(error, BusError):
                raise translate(error) from error
            raise

    async def _start(self) -> None:
        version = self._connection.connected_server_version
        if (version.major, version.minor) < _OLDEST:
            raise NotSupported(f"nats: server {self.version} is older than {'.'.join(map(str, _OLDEST))}")
        self.hear(f"{self._inbox}.>", self._hear)

    def fail(self, error: Exception) -> None:
        """It is of no use any more: what waits for it is told."""
        if self.error is not None:
            return
        self.error = error
        self.refused(error)
        for call in list(self.on_end):
            call()

    def refused(self, error: Exception) -> None:
        """All that is asked now is answered so: the server does not say what it refuses."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(error)
        for each in self._rounds.values():
            each.fail(error)
        for answer in self._waited:
            if not answer.done():
                answer.set_exception(error)

    async def close(self) -> None:
        """End the connection."""
        self._write()
        self.fail(Closed("this broker is closed"))
        await end(*self._asking)
        with suppress(Exception):
            async with asyncio.timeout(1):
                await self._connection.close()

    def _broken(self) -> Exception:
        error = self.error or BrokerUnavailable("nats: connection lost")
        return type(error)(*error.args)

    # --- out ------------------------------------------------------------------------------------------------------

    def send(self, subject: str, body: bytes = b"", reply: str = "", headers: bytes = b"") -> None:
        """Publish, and wait for nothing. PayloadTooLarge: the server would end the connection."""
        if self.error is not None:
            raise self._broken()
        if len(body) + len(headers) + _OWN > self._most:
            raise PayloadTooLarge(
                f"nats: {len(body)} bytes are more than the server's max_payload of {self._most} allows"
            )
        target = f"{subject} {reply}" if reply else subject
        if headers:
            lines = b"NATS/1.0\r\n%b\r\n" % headers
            frame = b"HPUB %b %d %d\r\n%b%b\r\n" % (target.encode(), len(lines), len(lines) + len(body), lines, body)
        else:
            frame = b"PUB %b %d\r\n%b\r\n" % (target.encode(), len(body), body)
        self._put(frame)

    def answer(self, replies: Sequence[bytes], body: bytes) -> None:
        """Publish this to each of these, and wait for nothing."""
        if self.error is not None:
            raise self._broken()
        if not replies:
            return
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._write)
        end = b" %d\r\n%b\r\n" % (len(body), body)
        self._pending += [b"PUB " + reply + end for reply in replies]

    def _put(self, frame: bytes) -> None:
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._write)
        self._pending.append(frame)

    def _write(self) -> None:
        connection, frames = self._connection, self._pending
        self._pending = []
        transport = connection._transport  # noqa: SLF001 - the driver's own way wakes a task for each message
        if connection._pending:  # noqa: SLF001 - what the driver has to say was said before
            frames, connection._pending = connection._pending + frames, []  # noqa: SLF001 - as above
            connection._pending_data_size = 0  # noqa: SLF001 - as above
        if frames and self.error is None and transport is not None:
            try:
                transport.write(b"".join(frames))
            except Exception as error:  # noqa: BLE001 - whatever it is, this line is of no use any more
                self.fail(translate(error))

    def fitting(self, message: Message) -> Message:
        """It, if the server will take copies of it too, with all that became of it. PayloadTooLarge."""
        room = max(self._most // 2, self._most - _SPARE)
        if len(message.body) > room:
            raise PayloadTooLarge(f"nats: {len(message.body)} bytes; {room} go with a max_payload of {self._most}")
        return message

    async def publish(self, messages: Sequence[Message]) -> Sequence[Confirm]:
        """Store them, in this order; what the server said of each. One that it refused has `error`."""
        if self.error is not None:
            raise self._broken()
        if self.doubted and (error := await self.refuses(messages)) is not None:
            raise error
        key = f"{next(self._numbers)}"
        done = _Round(messages, asyncio.get_running_loop().create_future())
        self._rounds[key.encode()] = done
        inbox = f"{self._inbox}.p.{key}."
        try:
            for number, message in enumerate(messages):
                self.send(message.subject, message.body, f"{inbox}{number}", message.headers)
            await self._answered(done.answer, lambda: done.left, lambda: self._ask_why(messages, done))
        finally:
            del self._rounds[key.encode()]
        return done.confirms

    def _ask_why(self, messages: Sequence[Message], done: _Round) -> None:
        async def ask() -> None:
            with suppress(BusError):
                if (error := await self.refuses(messages)) is not None:
                    done.fail(error)

        task = asyncio.create_task(ask(), name="nats:why")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def store(self, messages: Sequence[Message]) -> Sequence[Confirm]:
        """The same, where a refusal of any is an error."""
        confirms = await self.publish(messages)
        for confirm in confirms:
            if confirm.error is not None:
                raise refusal(confirm.error)
        return confirms

    # --- asking ---------------------------------------------------------------------------------------------------

    async def request(
        self, subject: str, body: bytes = b"", headers: bytes = b"", *, again: bool = False
    ) -> tuple[bytes, bytes]:
        """One answer: body and headers. `again`: no answer is not waited out, the question is put once more."""
        key, loop = f"{next(self._numbers)}", asyncio.get_running_loop()
        answer = self._answers[key.encode()] = loop.create_future()
        timer: asyncio.TimerHandle | None = None

        def put() -> None:
            nonlocal timer
            timer = loop.call_later(_AGAIN, put) if again else None
            with suppress(BusError):  # the answer says it, too
                self.send(subject, body, f"{self._inbox}.a.{key}", headers)

        try:
            self.send(subject, body, f"{self._inbox}.a.{key}", headers)
            timer = loop.call_later(_AGAIN, put) if again else None
            await self._answered(answer)
        finally:
            if timer is not None:
                timer.cancel()
            del self._answers[key.encode()]
        body, headers = answer.result()
        return body, headers

    async def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """An answer of the JetStream API. Raises what it refuses: BrokerError with `code` in its cause."""
        question = _encode(arguments) if arguments else b""
        body, headers = await self.request(f"$JS.API.{what}", question, again=what.startswith(_LOOKS))
        if status_of(headers) == NOBODY:
            raise BrokerUnavailable("nats: JetStream does not answer; is it switched on?")
        answer = _json.decode(body)
        if (error := answer.get("error")) is not None:
            raise refusal(error)
        return answer

    async def tell(self, subject: str, body: bytes) -> bool:
        """Whether who hears it says so. Who is not there does not, nor a consumer that has never known a message."""
        key, loop = f"{next(self._numbers)}", asyncio.get_running_loop()
        answer = self._answers[key.encode()] = loop.create_future()
        timer = loop.call_later(_UNHEARD, _answer_nothing, answer)
        try:
            self.send(subject, body, f"{self._inbox}.a.{key}")
            _, headers = await answer
        except BusError as error:
            raise type(error)(*error.args) from error.__cause__
        finally:
            timer.cancel()
            del self._answers[key.encode()]
        if headers is _NOTHING:
            await self.reach(SILENCE - _UNHEARD)
        return headers is not _NOTHING and status_of(headers) != NOBODY

    async def get(self, stream: str, *, seq: int = 0, subject: str = "") -> Found | None:
        """A message by its sequence, or the newest of a subject; None if there is none."""
        asked = (subject, b"") if subject else ("", b'{"seq":%d}' % seq)
        question = f"$JS.API.DIRECT.GET.{stream}.{asked[0]}".removesuffix(".")
        body, headers = await self.request(question, asked[1], again=True)
        if not status_of(headers):
            where = header_of(headers, b"Nats-Subject")
            return Found(where, int(header_of(headers, b"Nats-Sequence")), body, headers)
        try:  # a replica that lags may have answered: its leader knows
            wish: dict[str, Any] = {"last_by_subj": subject} if subject else {"seq": seq}
            told = (await self.ask(f"STREAM.MSG.GET.{stream}", **wish))["message"]
        except BrokerError as error:
            if is_missing(error):
                return None
            raise
        return Found(
            told["subject"], int(told["seq"]), b64decode(told.get("data", "")), b64decode(told.get("hdrs", ""))
        )

    async def reach(self, seconds: float = SILENCE) -> None:
        """Return once the server has taken in all that was sent, and all that it had sent by then is here."""
        try:
            async with asyncio.timeout(seconds):
                self._write()
                await self._connection.flush(timeout=int(SILENCE))
        except Exception as error:
            self.fail(translate(error))
            raise self._broken() from error

    async def _answered(
        self,
        answer: asyncio.Future[Any],
        left: Callable[[], int] = lambda: 0,
        doubt: Callable[[], object] = lambda: None,
    ) -> None:
        """The same for one that nobody else waits for: it is given up with who waits, and costs a third.

        It is silence only if `left` of many answers are as many as before. Shortly before, `doubt` is called.
        """
        loop, timers = asyncio.get_running_loop(), list[asyncio.TimerHandle]()
        doubted = SILENCE * _DOUBT

        def look(before: int, *, doubts: bool) -> None:
            if left() != before:
                timers[:] = [loop.call_later(doubted, partial(look, left(), doubts=True))]
            elif doubts:
                doubt()
                timers[:] = [loop.call_later(SILENCE - doubted, partial(look, before, doubts=False))]
            else:
                self._silent()

        timers.append(loop.call_later(doubted, partial(look, left(), doubts=True)))
        try:
            await answer
        except BusError as error:  # an error of its own for each: all that wait get the same one
            raise type(error)(*error.args) from error.__cause__
        finally:
            timers[0].cancel()

    def _silent(self) -> None:
        self.fail(BrokerUnavailable(f"nats: no answer within {SILENCE:g} s"))

    async def patiently(self, answer: asyncio.Future[Any]) -> None:
        """Until it is there. One that does not come in time breaks the link."""
        if self.error is not None:
            raise self._broken()
        self._waited.add(answer)
        try:
            await asyncio.wait([answer], timeout=SILENCE)
        finally:
            self._waited.discard(answer)
        if not answer.done():
            self._silent()
            answer.cancel()
            raise self._broken()
        if (error := answer.exception()) is not None:
            raise type(error)(*error.args) from error.__cause__

    # --- in -------------------------------------------------------------------------------------------------------

    def hear(self, subject: str, hear: Hear) -> int:
        """Have `hear` called with whatever comes; the number by which it ends.

        The driver knows nothing of it: its own subscriptions have a queue each, and are 4 KiB.
        """
        if self.error is not None:
            raise self._broken()
        number = self._connection.number()
        self._connection.hear[number] = hear
        self._put(b"SUB %b %d\r\n" % (subject.encode(), number))
        return number

    async def unhear(self, number: int) -> None:
        """Hear no more of it."""
        if self.error is None and number in self._connection.hear:
            self._put(b"UNSUB %d\r\n" % number)
            with suppress(BusError):
                await self.reach()
        self._connection.hear.pop(number, None)

    def new_inbox(self) -> str:
        """A subject that nobody else has."""
        return self._connection.new_inbox()

    def _hear(self, subject: bytes, _reply: bytes, body: bytes, headers: bytes) -> None:
        kind, key, *number = subject[len(self._inbox) + 1 :].split(b".")
        if kind == b"p":
            if (done := self._rounds.get(key)) is not None:
                if status_of(headers) == NOBODY:
                    self._unheard(key, done, int(number[0]))
                else:
                    done.take(int(number[0]), body)
        elif (answer := self._answers.get(key)) is not None and not answer.done():
            answer.set_result((body, headers))

    def _unheard(self, key: bytes, done: _Round, number: int) -> None:
        """In a cluster a node learns a little later than others that a stream is there, or who leads it now."""
        if not done.tries:
            self.fail(BrokerUnavailable("nats: nothing stores this; its stream is gone"))  # joining makes it again
        elif not done.unheard:
            asyncio.get_running_loop().call_later(_LEARNS, self._put_again, key, done)
        done.unheard.append(number)

    def _put_again(self, key: bytes, done: _Round) -> None:
        if self.error is not None or self._rounds.get(key) is not done:
            return
        numbers, done.unheard = sorted(done.unheard), []
        done.tries -= 1
        for number in numbers:
            message = done.messages[number]
            self.send(message.subject, message.body, f"{self._inbox}.p.{key.decode()}.{number}", message.headers)


async def _nothing_refused(_messages: Sequence[Message]) -> BusError | None:
    return None


def _answer_nothing(answer: asyncio.Future[tuple[bytes, bytes]]) -> None:
    if not answer.done():
        answer.set_result((b"", _NOTHING))


_NOTHING: Final = b"no answer"


class _Round:
    """The confirms of what was published at once."""

    def __init__(self, messages: Sequence[Message], answer: asyncio.Future[None]) -> None:
        self.messages = messages
        self.confirms: list[Confirm] = [Confirm()] * len(messages)
        self.answer = answer
        self.left = len(messages)
        self.unheard: list[int] = []
        self.tries = _TRIES
        if not messages:
            answer.set_result(None)

    def take(self, number: int, body: bytes) -> None:
        try:
            self.confirms[number] = _confirm.decode(body)
        except msgspec.MsgspecError as error:
            self.fail(translate(error))
            return
        self.left -= 1
        if not self.left and not self.answer.done():
            self.answer.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


_OWN: Final = 12  # bytes of the first line of headers, and of the last
