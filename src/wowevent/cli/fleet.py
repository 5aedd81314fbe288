"""Several workers of `wowevent serve` on the same ports: started, watched, started again, exchanged one after another.

          slot 1    slot 2    slot 3      a slot has a socket at each port, which outlives its worker
  port ─────┼─────────┼─────────┤         the kernel deals out connections among them
          worker    worker    worker      a process each; two while they are exchanged

dies      its sockets close, so that nobody waits at them -> a pause -> a new worker, which listens on new ones
SIGHUP    slot after slot: a new worker on the same sockets -> it serves -> the old one drains
SIGTERM   all sockets close, all workers drain

Each slot has sockets of its own (SO_REUSEPORT) and not all of them the same: connections last, so what counts is who
gets how many, and a socket that all share gives more of them to whoever happens to wake first (300 clients of three
idle workers: 66, 109, 125; with a socket each 91, 100, 109). They are made here and inherited, not made by the workers:
a socket that is closed resets what nobody has taken from it yet, and so an exchange would lose connections.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from wowevent.access.address import Listening, beside, claim, listen
from wowevent.access.keyring import Keyring
from wowevent.cli.exits import SAID, CommandError
from wowevent.cli.front import Front, let_go_of_stderr
from wowevent.cli.pidfile import Record, Worker
from wowevent.cli.serving import Inherited, Post, Told, at, open_bus
from wowevent.cli.workers import BROKEN, WELL, end_process, refuse_unshared
from wowevent.ending import end
from wowevent.log import logger
from wowevent.process.logs import pass_on
from wowevent.process.loop import ending
from wowevent.settings import Settings

_GRACE: Final = 18.0  # seconds to drain: a service gets 20
_SERVES: Final = 30.0  # seconds until a worker serves
_PAUSE: Final = 0.5  # seconds before a worker that died is started again, doubled each time
_DEATHS: Final = 5  # in a row: then starting again does not help
_LAST_WORDS: Final = 1.0  # seconds for the rest of its output
_CHUNK: Final = 64 * 1024


class Fleet:
    """What several processes serve, and where; its ports are taken as soon as it is made.

    Raises CommandError for an engine whose log they could not share.
    """

    def __init__(self, settings: Settings, options: dict[str, Any], log: Path, command: Sequence[str]) -> None:
        """`command` is that of a worker, but for its post."""
        self._ports: list[Listening] = []
        self._slots: list[_Slot] = []
        self._command = command
        self._count: int = options["workers"]
        if settings.event_bus_enabled:
            refuse_unshared(open_bus(settings))
        self._authenticated = Keyring.of(settings) is not None
        http = self._claim(settings, *at(settings, "http"))
        websocket = self._claim(settings, *at(settings, "ws")) if settings.event_bus_enabled else None
        url = None if websocket is None else websocket.url
        self._front = Front(settings, options, log, http=http.url, websocket=url)
        self._announced = False
        self._register: Callable[[Record], None] | None = None
        self._detached = False

    def _claim(self, settings: Settings, scheme: str, port: int) -> Listening:
        allowed = settings.allow_anonymous
        claimed = claim(scheme, settings.host, port, allow_anonymous=allowed, authenticated=self._authenticated)
        self._ports.append(claimed)
        return claimed

    async def run(self, register: Callable[[Record], None] | None, *, detached: bool) -> None:
        """Keep them serving until told to end; say so, and who they are, as `Alone` does.

        Raises CommandError with what kept one from serving at first, or workers_failed.
        """
        self._register, self._detached = register, detached
        told, hangup = ending(), _hangups()
        read, write = os.pipe()  # its other end closes when this process ends, however it does
        numbers = range(1, self._count + 1)
        self._slots = [
            _Slot(number, self._ports, self._command, read, self._changed, guarded=self._authenticated)
            for number in numbers
        ]
        keeping = [asyncio.create_task(slot.keep(), name=f"wowevent:slot:{slot.number}") for slot in self._slots]
        waiting = asyncio.create_task(told.wait())
        exchanging = asyncio.create_task(self._exchanging(hangup, told))
        try:
            await asyncio.wait({waiting, exchanging, *keeping}, return_when=asyncio.FIRST_COMPLETED)
            logger.info("workers are told to end", workers=self._count)
        finally:
            for claimed in self._ports:
                claimed.socket.close()
            await end(waiting, exchanging, *keeping)
            os.close(read)
            os.close(write)
        for task in (exchanging, *keeping):
            if not task.cancelled():
                task.result()
        logger.info("stopped")

    def _changed(self) -> None:
        """A worker serves, or does no longer; the first time that all serve is when the service does."""
        serving = [slot.worker for slot in self._slots if slot.worker is not None]
        if not self._announced and len(serving) < self._count:
            return
        for told in (worker.told for worker in serving if worker.told is not None):
            self._front.engine, self._front.namespace = told.engine, told.namespace
            if not self._announced:
                self._front.show(told.promise)
                self._announced = True
        if self._register is not None:
            self._register(self._front.record([slot.shown() for slot in self._slots]))
        if self._detached:
            let_go_of_stderr()
            self._detached = False

    async def _exchanging(self, hangup: asyncio.Event, told: asyncio.Event) -> None:
        """Exchange all, one after another, at each hangup; what was asked for meanwhile is done behind it."""
        terminal = _has_terminal()
        while True:
            await hangup.wait()
            hangup.clear()
            if terminal and not _has_terminal():  # it was closed: nobody means a restart by that
                told.set()
                return
            logger.info("workers are exchanged", workers=self._count)
            try:
                for slot in self._slots:
                    await slot.exchange()
            except (CommandError, OSError) as error:
                logger.error("workers are not exchanged, those before go on", error=error)
            else:
                logger.info("workers were exchanged", workers=self._count)


class _Slot:
    """The place of one worker."""

    def __init__(
        self,
        number: int,
        ports: Sequence[Listening],
        command: Sequence[str],
        parent: int,
        changed: Callable[[], None],
        *,
        guarded: bool,
    ) -> None:
        self.number = number
        self.worker: _Worker | None = None
        """The one that serves."""
        self._own = listen(ports[0].url.partition(":")[0], "127.0.0.1", 0, allow_anonymous=False)
        self._ports = ports
        self._command = command
        self._parent = parent
        self._changed = changed
        self._guarded = guarded
        self._sockets: list[Listening] = []
        self._workers: set[_Worker] = set()  # that were started, and have not ended
        self._exchange = asyncio.Lock()

    def shown(self) -> Worker:
        """What the record says of it."""
        return Worker(number=self.number, pid=None if self.worker is None else self.worker.pid, http=self._own.url)

    async def keep(self) -> None:
        """One worker after another, until cancelled; then those that are there drain.

        Raises CommandError for one that never served, or that dies again and again.
        """
        deaths, first = 0, True
        try:
            while True:
                self._sockets = [beside(port) for port in self._ports]
                began = time.monotonic()
                worker = await self._start()
                if await worker.serves():
                    self._serve(worker)
                    first = False
                    worker = await self._ended()
                else:
                    await self._end(worker)
                    if first:
                        raise worker.failure()
                self._close()
                if self.worker is not None:
                    self.worker = None
                    self._changed()
                deaths = 1 if time.monotonic() - began > WELL else deaths + 1
                logger.error("worker died", worker=self.number, process=worker.pid, status=worker.status)
                if worker.status in BROKEN or deaths == _DEATHS:
                    times = "" if deaths == 1 else f" {deaths} times in a row, now"
                    raise CommandError("workers_failed", f"worker {self.number} ended{times} {worker.why}")
                await asyncio.sleep(_PAUSE * 2 ** (deaths - 1))
        finally:
            self._close()
            await asyncio.gather(*(self._end(worker) for worker in list(self._workers)))
            self._own.socket.close()

    async def exchange(self) -> None:
        """Let a new worker serve in the place of the one that does; returns when that one has drained.

        Raises CommandError if the new one does not come to serve: then nothing has changed. One that is being started
        again is left alone: it is new.
        """
        if self.worker is None:
            return
        async with self._exchange:
            new = await self._start()
            if not await new.serves():
                await self._end(new)
                raise new.failure()
            old = self.worker
            self._serve(new)
        await self._end(old)

    def _serve(self, worker: _Worker) -> None:
        self.worker = worker
        logger.info("worker serves", worker=self.number, process=worker.pid)
        self._changed()

    async def _ended(self) -> _Worker:
        """The worker that ended while it was the one to serve."""
        while (worker := self.worker) is not None:
            await worker.ended()
            async with self._exchange:  # a new one may be about to take its place
                if self.worker is worker:
                    self._workers.discard(worker)
                    return worker
        raise AssertionError("a slot that is kept has a worker")

    def _close(self) -> None:
        """Nobody takes what comes to its sockets: it goes to others, and what has come is reset."""
        for shared in self._sockets:
            shared.socket.close()
        self._sockets = []

    # --- processes ----------------------------------------------------------------------------------------------

    async def _start(self) -> _Worker:
        shared = [Inherited(each.socket.fileno(), each.url) for each in self._sockets]
        http, websocket = shared[0], shared[1] if len(shared) > 1 else None
        own = Inherited(self._own.socket.fileno(), self._own.url)
        post = Post(self.number, self._parent, own, http, websocket, guarded=self._guarded)
        process = await asyncio.create_subprocess_exec(
            *(*self._command, "--post", msgspec.json.encode(post).decode()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[self._parent, own.fd, *(each.fd for each in shared)],
            start_new_session=True,  # what a terminal says is for this process, which passes it on
        )
        worker = _Worker(process)
        self._workers.add(worker)
        logger.info("worker started", worker=self.number, process=worker.pid)
        return worker

    async def _end(self, worker: _Worker) -> None:
        """SIGTERM, and SIGKILL for one that does not heed it."""
        await worker.end(_GRACE)
        self._workers.discard(worker)


class _Worker:
    """One process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.pid: int = process.pid
        self.told: Told | None = None
        """What it said as it began to serve."""
        self._process = process
        self._error: tuple[str, str] | None = None  # code and message of what ended it, in its own words
        self._logging = asyncio.create_task(self._log(), name=f"wowevent:worker:{process.pid}")

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._process.returncode

    async def serves(self) -> bool:
        """Wait until it does; False if it ends before, or takes too long."""
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        with suppress(TimeoutError):
            async with asyncio.timeout(_SERVES):
                line = await self._process.stdout.readline()
                self.told = msgspec.json.decode(line, type=Told) if line else None
        return self.told is not None

    @property
    def why(self) -> str:
        """How it ended."""
        said = "the log may say why" if self._error is None else self._error[1]
        return f"with status {self.status}: {said}"

    def failure(self) -> CommandError:
        """Why it does not serve, in its own words where it had some."""
        if self._error is not None:
            return CommandError(*self._error)
        return CommandError("workers_failed", f"a worker ended {self.why}")

    async def ended(self) -> None:
        """Return when it has, and what it said last is logged."""
        await self._process.wait()
        await asyncio.wait({self._logging}, timeout=_LAST_WORDS)
        self._logging.cancel()

    async def end(self, seconds: float) -> None:
        """Tell it to end, and kill it if it has not within so many seconds."""
        await end_process(self._process, seconds)
        await self.ended()

    async def _log(self) -> None:
        """Log its lines with ours; the one that says why it ended is kept for whoever says that."""
        assert self._process.stderr is not None  # noqa: S101 - it was asked for
        rest = b""
        while chunk := await self._process.stderr.read(_CHUNK):
            complete, newline, rest = (rest + chunk).rpartition(b"\n")
            if newline:
                self._say(complete)
        if rest:
            self._say(rest)

    def _say(self, said: bytes) -> None:
        lines = said.decode("utf-8", "backslashreplace").split("\n")
        if (error := SAID.fullmatch(lines[-1])) is not None:
            self._error = error[1], error[2]
            lines.pop()
        if lines:
            pass_on("\n".join(lines))


def command_of(flags: Sequence[str]) -> list[str]:
    """What a worker is started with, but for its post."""
    return [sys.executable, "-P", "-m", "wowevent", "serve", *flags]


def _hangups() -> asyncio.Event:
    """An event that each SIGHUP sets."""
    hangup = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hangup.set)
    return hangup


def _has_terminal() -> bool:
    """Whether there is a terminal that Ctrl-C of this process comes from."""
    try:
        os.close(os.open(os.ctermid(), os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
