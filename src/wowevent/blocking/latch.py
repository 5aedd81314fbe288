"""Waiting for another thread, in a way that a signal's handler may do too."""

from __future__ import annotations

from _thread import allocate_lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Latch:
    """Opened once, by any thread; whoever waits goes on.

    It is a bare lock. What `threading` builds of locks takes them in Python code, which a signal can interrupt: its
    handler, waiting for a thread that needs the same lock, would wait for itself.
    """

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def open(self) -> None:
        """Let all who wait go on. Opened twice is opened once, if it is the same thread that opens."""
        if self._lock.locked():
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Return True once it is open, False after `timeout` seconds."""
        if not self._lock.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            return False
        self._lock.release()  # for the next who waits
        return True


class Answer(Generic[T]):
    """What a call of another thread comes to: a result, or what it raised."""

    __slots__ = ("_error", "_latch", "_result")

    def __init__(self) -> None:
        self._latch = Latch()
        self._error: BaseException | None = None
        self._result: T | None = None

    def give(self, result: T) -> None:
        """The result; the first word holds."""
        if not self._latch.wait(0):
            self._result = result
            self._latch.open()

    def fail(self, error: BaseException) -> None:
        """What is raised instead; the first word holds."""
        if not self._latch.wait(0):
            self._error = error
            self._latch.open()

    def wait(self, timeout: float) -> T:
        """The result, or what was raised; TimeoutError after `timeout` seconds."""
        if not self._latch.wait(timeout):
            raise TimeoutError
        if self._error is not None:
            raise self._error
        return self._result  # type: ignore[return-value]  # it was given
