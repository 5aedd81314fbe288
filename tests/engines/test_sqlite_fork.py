"""A child that was forked while the log was open: it is refused the log, and its parent notices nothing."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import apsw
import pytest

from tests.processes import environment

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

FORKS = """
    import asyncio, os, signal, sys, threading, time
    import wowevent
    from wowevent import BusError, Event
    from wowevent.blocking import EventBus

    def url(path):
        return f"sqlite:///{os.path.abspath(path)}"

    def task(n=0):
        return Event(topic="task.created", payload={"n": n})

    def published(path):
        with EventBus(url(path)) as bus:
            return bus.publish(task())

    def in_child(job, seconds=20):
        '''What a forked child says of its job before it ends in the ordinary way; "hangs" if it does not.'''
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                said = str(job())
            except BusError as error:
                said = f"{error.code}: {error}"
            os.write(writing, said.encode())
            sys.exit(0)
        os.close(writing)
        deadline = time.monotonic() + seconds
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                return "hangs"
            time.sleep(0.002)
        with os.fdopen(reading) as pipe:
            return pipe.read()
"""


def program(home: Path, code: str, *arguments: str) -> list[str]:
    """The lines of a program that forks, which ended well and said nothing on stderr."""
    quiet = "ignore:This process:DeprecationWarning"  # that it has threads, and forks
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", quiet, "-c", textwrap.dedent(FORKS) + textwrap.dedent(code), *arguments],
        cwd=home, env=environment(home), capture_output=True, text=True, timeout=55, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def stored(path: Path) -> int:
    """How many events are in a log that is whole."""
    db = apsw.Connection(str(path))
    try:
        assert db.pragma("integrity_check") == "ok"
        return int(db.execute("SELECT count(*) FROM log").get)
    finally:
        db.close()


REFUSED = """
    async def published_async(path):
        async with wowevent.EventBus(url(path)) as bus:
            return await bus.publish(task())

    def child():
        if sys.argv[1] == "blocking":
            return published(sys.argv[2])
        return asyncio.run(published_async(sys.argv[2]))

    bus = EventBus(url("events.db"))
    bus.publish(task())
    os.symlink("events.db", "symbolic.db")
    os.link("events.db", "hard.db")
    seen = []
    bus.subscribe("q", ["#"], seen.append)
    bus.start_consuming("q", blocking=False)
    print(in_child(child))
    print(all(bus.publish(task(n)) for n in range(10)))
    while len(seen) < 10:
        time.sleep(0.01)
    bus.close()
"""


@pytest.mark.parametrize("face", ["blocking", "async"])
@pytest.mark.parametrize("name", ["events.db", "symbolic.db", "hard.db"])
def test_a_new_bus_in_the_child_is_refused_the_file_and_the_parent_goes_on(
    tmp_path: Path, face: str, name: str
) -> None:
    refused, goes_on = program(tmp_path, REFUSED, face, name)
    assert refused.startswith(f"not_supported: {tmp_path / name} was open when this process was forked, and SQLite's")
    assert "start the child afresh (multiprocessing's spawn" in refused
    assert goes_on == "True"
    assert stored(tmp_path / "events.db") == 11, "the child wrote nothing"


def test_a_child_of_the_child_is_refused_too(tmp_path: Path) -> None:
    code = """
        with EventBus(url("events.db")) as bus:
            bus.publish(task())
            print(in_child(lambda: in_child(lambda: published("events.db"))))
    """
    (refused,) = program(tmp_path, code)
    assert refused.startswith("not_supported: ")


def test_it_is_refused_at_once_while_the_parent_is_writing(tmp_path: Path) -> None:
    """Whatever the parent's threads were at when they were cut off."""
    code = """
        bus, free = EventBus(url("events.db") + "?synchronous=off"), threading.Event()

        def write():
            while not free.is_set():
                assert bus.publish(task())

        bus.publish(task())
        threads = [threading.Thread(target=write) for _ in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            print(in_child(lambda: published("events.db"), seconds=5)[:13])
        free.set()
        for thread in threads:
            thread.join()
        bus.close()
    """
    assert set(program(tmp_path, code)) == {"not_supported"}
    assert stored(tmp_path / "events.db") > 0


def test_a_file_that_was_not_open_at_the_fork_is_open_to_the_child(tmp_path: Path) -> None:
    code = """
        closed = EventBus(url("closed.db"))
        closed.publish(task())
        closed.get_queue_info("q")
        closed.close()
        with EventBus(url("events.db")) as bus:
            bus.publish(task())
            print(in_child(lambda: published("closed.db")), in_child(lambda: published("new.db")))
    """
    assert program(tmp_path, code) == ["True True"]
    assert (stored(tmp_path / "closed.db"), stored(tmp_path / "new.db")) == (2, 1)


def test_a_fork_while_another_thread_opens_a_file_leaves_the_child_able_to(tmp_path: Path) -> None:
    code = """
        from wowevent.brokers.sqlite.opening import _files

        with _files.opening:
            print(in_child(lambda: published("events.db")))
    """
    assert program(tmp_path, code) == ["True"]
