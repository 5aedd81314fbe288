"""The guards of tests/conftest.py, each seen to fail on what it is there for, and to pass what is right."""

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

FAILING = {
    "a blocked loop": (
        "the test blocked the event loop",
        """
        import time

        async def test():
            time.sleep(1.1)
        """,
    ),
    "a loop that computes": (
        "the test blocked the event loop",
        """
        import time

        async def test():
            until = time.monotonic() + 1.1
            while time.monotonic() < until:
                sum(range(10_000_000))
        """,
    ),
    "a task left running": (
        "the test left tasks running",
        """
        import asyncio

        async def test():
            asyncio.get_running_loop().kept = asyncio.create_task(asyncio.sleep(30))
        """,
    ),
    "a thread left running": (
        "the test left threads running",
        """
        import threading, time

        def test():
            threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        """,
    ),
    "a warning": (
        "DeprecationWarning: old",
        """
        import warnings

        def test():
            warnings.warn("old", DeprecationWarning)
        """,
    ),
    "a broker that cannot be had": (
        "--broker=nats was asked for, and cannot be had",
        """
        import sys

        sys.modules["wowevent.brokers.nats"] = None

        def test(broker_name):
            pass
        """,
    ),
}

PASSING = {
    "a test that cleans up": """
        import asyncio, pytest, threading, time

        async def test():
            stopping = asyncio.create_task(asyncio.sleep(30))
            stopping.cancel()
            assert await asyncio.to_thread(threading.active_count) > 1

        @pytest.fixture
        async def server():
            task = asyncio.create_task(asyncio.sleep(30))
            yield
            task.cancel()

        async def test_whose_fixture_cleans_up(server):
            await asyncio.sleep(0)
        """,
    "a slow step below the threshold": """
        import time

        async def test():
            time.sleep(0.15)
        """,
    "what waits while the loop does not run": """
        import pytest, time

        @pytest.fixture
        async def server():
            return 1

        @pytest.fixture
        def slow(server):
            time.sleep(1.2)

        async def test(slow):
            pass
        """,
    "a machine that stands still": """
        import os, signal, subprocess

        async def test():
            subprocess.Popen(["sh", "-c", f"kill -STOP {os.getpid()}; sleep 1.5; kill -CONT {os.getpid()}"]).wait()
        """,
    "a thread that ends by itself": """
        import threading, time

        def test():
            threading.Thread(target=time.sleep, args=(0.1,)).start()
        """,
}


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    limit = "BLOCKED_SECONDS = 4.0"
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    assert limit in conftest
    pytester.makeconftest(conftest.replace(limit, "BLOCKED_SECONDS = 1.0"))  # so that it need not block for as long
    pytester.makepyfile(source)
    config = ("-c", ROOT / "pyproject.toml", "--rootdir", pytester.path, "-p", "no:cacheprovider")
    return pytester.runpytest_subprocess(*config, *options, pytester.path)


@pytest.mark.parametrize(("message", "source"), FAILING.values(), ids=FAILING.keys())
def test_fails(pytester: pytest.Pytester, message: str, source: str) -> None:
    result = run(pytester, source, "--broker=nats")

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(f"*{message}*")


@pytest.mark.parametrize("source", PASSING.values(), ids=PASSING.keys())
def test_passes(pytester: pytest.Pytester, source: str) -> None:
    assert run(pytester, source).ret == pytest.ExitCode.OK


def test_an_unknown_broker_is_refused(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test(): pass", "--broker=memory,kafka")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("*'kafka'* not among memory, *")
