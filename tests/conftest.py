"""The harness of every suite: the brokers that a run names, and the guards that no test may trip."""

import asyncio
import asyncio.constants
import importlib
import os
import selectors
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Generator, Iterator

import pytest

from tests.conformance.engines import shared_nats, shared_redis
from tests.rabbitmq import shared_rabbit
from tests.zygote import COVERED_PROCESSES, prepare

BROKERS = ("memory", "sqlite", "redis", "rabbitmq", "nats")

# A step of the loop that takes longer is a blocked loop: a call that waits without awaiting waits for its timeout, and
# those are five seconds and more. One second is not enough: three workers with coverage on two busy cores have taken it
# for a router's start. What the machine stood still itself is taken off.
BLOCKED_SECONDS = 4.0
# How often the pulse beats, in seconds.
BEAT = 0.05
# What a test started may need a moment to end, once it has been told to.
GRACE_SECONDS = 0.5


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("wowevent")
    group.addoption(
        "--broker",
        default="memory,sqlite",
        metavar="NAMES",
        help=f"the brokers to test, joined by commas, of {', '.join(BROKERS)} (default: %(default)s)",
    )
    group.addoption(
        "--redis",
        default="plain",
        choices=("plain", "sentinel", "cluster"),
        help="how the suites' redis is reached (default: %(default)s)",
    )
    group.addoption("--long", action="store_true", help="run the fault tests in their long form")
    group.addoption("--report", metavar="FILE", help="write what the fault tests measured into this file, as JSON")
    group.addoption(
        "--minutes", type=float, default=0.0, help="fuzz each target of tests/fuzz for so long (default: a short round)"
    )
    group.addoption(
        "--cover-each",
        type=int,
        default=1,
        metavar="N",
        help="let coverage look at each Nth test alone: what it looks at takes nearly twice as long",
    )
    group.addoption("--screenshots", action="store_true", help="write the pictures of the pages into docs/pages")


def pytest_configure(config: pytest.Config) -> None:
    # A shell starts what runs in its background with Ctrl-C ignored, and commands under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # For asyncio's loops; uvloop's are not watched. The loop's debug mode would say which callback it was, and triples
    # what the suites cost: -o asyncio_debug=true, which `make nightly` runs too. With more than one frame of where each
    # callback came from it would be 15 times.
    asyncio.set_event_loop_policy(_Policy())
    asyncio.constants.DEBUG_STACK_DEPTH = 1  # type: ignore[misc]
    shared_redis.form = config.getoption("--redis")
    _pulse.start()
    unknown = set(_named_brokers(config)) - set(BROKERS)
    if unknown:
        message = f"--broker: {sorted(unknown)} not among {', '.join(BROKERS)}"
        raise pytest.UsageError(message)
    if config.getoption("--report") and config.getoption("numprocesses", None):
        message = "--report: what is measured beside others says little; without -n"
        raise pytest.UsageError(message)
    if "rabbitmq" in _named_brokers(config) and not config.option.collectonly:
        shared_rabbit.start()  # before there are workers, which inherit where it is


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    each = config.getoption("--cover-each")
    _uncovered.update(item.nodeid for number, item in enumerate(items) if number % each)
    if _uncovered:
        prepare()  # now: a module that is imported while coverage looks away would seem not to run


_uncovered: set[str] = set()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Coverage looks away: from the test, from what its fixtures do, and from the processes it starts."""
    if item.nodeid not in _uncovered:
        return (yield)
    # Not pytest-cov's own pause: each of xdist's workers has two of what measures, and the other one would go on.
    tracer, of_threads, processes = sys.gettrace(), threading.gettrace(), os.environ.pop(COVERED_PROCESSES, None)
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        if processes is not None:
            os.environ[COVERED_PROCESSES] = processes
        threading.settrace(of_threads)
        sys.settrace(tracer)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "broker_name" in metafunc.fixturenames:
        metafunc.parametrize("broker_name", _named_brokers(metafunc.config), indirect=True, scope="session")


def _named_brokers(config: pytest.Config) -> list[str]:
    return [name.strip() for name in config.getoption("--broker").split(",")]


@pytest.fixture(scope="session")
def broker_name(request: pytest.FixtureRequest) -> str:
    """Each broker that ``--broker`` names. One that cannot be had fails its tests: it was asked for."""
    name: str = request.param
    try:
        importlib.import_module(f"wowevent.brokers.{name}")
    except ImportError as error:
        pytest.fail(f"--broker={name} was asked for, and cannot be had: {error}")
    if name == "redis":
        shared_redis.url()  # now: starting it would block the loop of the first test
    if name == "nats":
        shared_nats.url()
    if name == "rabbitmq":
        try:
            shared_rabbit.url()
        except AssertionError as error:
            pytest.fail(f"--broker={name} was asked for, and cannot be had: {error}")
    return name


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether a fault test runs all its rounds (``--long``), or about five."""
    return bool(request.config.getoption("--long"))


@pytest.fixture(autouse=True)
def _guard_threads() -> Iterator[None]:
    """Fail the test that leaves a thread behind. Set up first, so that it looks when all else is closed."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + GRACE_SECONDS
    for thread in set(threading.enumerate()) - before:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread for thread in threading.enumerate() if thread not in before]
    if left:
        pytest.fail(f"the test left threads running: {left}")


@pytest.fixture(autouse=True)
def _guard_loop(request: pytest.FixtureRequest, _guard_threads: None) -> Iterator[None]:
    """Fail the test that blocks an event loop, and the async test that leaves a task behind."""
    if request.node.get_closest_marker("asyncio"):
        request.getfixturevalue("_guard_tasks")
    _slow_steps.clear()
    yield
    if steps := [s for ended, s in list(_slow_steps) if s - _pulse.stopped(ended, s) >= BLOCKED_SECONDS]:
        pytest.fail(f"the test blocked the event loop for {', '.join(f'{seconds:.1f} s' for seconds in steps)}")


@pytest.fixture
async def _guard_tasks() -> AsyncIterator[None]:
    yield
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=GRACE_SECONDS)
    if left:
        pytest.fail(f"the test left tasks running: {left}")


class _Policy(asyncio.DefaultEventLoopPolicy):
    """Every new loop is watched."""

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        return _WatchedLoop()


class _WatchedLoop(asyncio.SelectorEventLoop):
    """Notes when it was away for long."""

    def __init__(self) -> None:
        self._asking = _WatchedSelector()
        super().__init__(self._asking)

    def run_forever(self) -> None:
        self._asking.left = None  # what happened before it ran, it did not do
        super().run_forever()


class _WatchedSelector(selectors.DefaultSelector):
    """Tells how long a loop was away: from when it was told what is ready until it asks again, its callbacks ran."""

    left: float | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        now = time.monotonic()
        if self.left is not None and now - self.left >= BLOCKED_SECONDS:
            _slow_steps.append((now, now - self.left))
        ready = super().select(timeout)
        self.left = time.monotonic()
        return ready


# When the loop was back, after how many seconds.
_slow_steps: deque[tuple[float, float]] = deque(maxlen=1_000)


class _Pulse:
    """A thread that beats, and so knows when nothing ran here: the machine had other things to do, or stood still.

    A beat that is late while this process computed is none of that: then something here kept the others from running.
    """

    def __init__(self) -> None:
        self._stops: deque[tuple[float, float]] = deque(maxlen=1_000)  # when it went on, after how many seconds
        self._beats = 0

    def start(self) -> None:
        """Once a process."""
        threading.Thread(target=self._beat, name="pulse", daemon=True).start()

    def _beat(self) -> None:
        before, worked = time.monotonic(), time.process_time()
        while True:
            time.sleep(BEAT)
            now, work = time.monotonic(), time.process_time()
            late = now - before - BEAT
            if late > BEAT and work - worked < late / 10:
                self._stops.append((now, late))
            before, worked = now, work
            self._beats += 1

    def stopped(self, ended: float, seconds: float) -> float:
        """For how long nothing ran within that step."""
        beats = self._beats
        while self._beats < beats + 2:  # what the pulse has slept through, it says when it is awake
            time.sleep(BEAT)
        return sum(late for now, late in list(self._stops) if ended - seconds < now < ended + 2 * BEAT)


_pulse = _Pulse()
