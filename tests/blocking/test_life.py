"""A bus from its making to its end: settings, health, threads, forks, signals, and interpreters that just end."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.blocking.conftest import QUICK, Open, Seen, task
from tests.processes import environment, until
from tests.rabbitmq import PLACE as RUN
from tests.servers import free_port, redis_running
from wowevent import BrokerUnavailable, Closed, InvalidEvent, NotSupported
from wowevent.blocking import EventBus
from wowevent.blocking.address import Address


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("RABBITMQ_", "WOWEVENT_")) and not name.startswith(RUN):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def count(bus: EventBus, queue: str) -> int:
    info = bus.get_queue_info(queue)
    return -1 if info is None else int(info["message_count"])


# --- settings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "given", "shown"),
    [
        ({}, {}, "amqp://***@localhost:5672/%2F?heartbeat=600"),
        ({}, {"host": "h", "port": 1, "vhost": "/v"}, "amqp://***@h:1/%2Fv?heartbeat=600"),
        ({"RABBITMQ_HOST": "r", "RABBITMQ_PORT": "7"}, {}, "amqp://***@r:7/%2F?heartbeat=600"),
        ({"RABBITMQ_HOST": "r", "RABBITMQ_HEARTBEAT": "9"}, {"port": 3}, "amqp://***@r:3/%2F?heartbeat=9"),
        ({"RABBITMQ_HOST": "r", "WOWEVENT_URL": "memory://w"}, {}, "memory://w"),
        ({"RABBITMQ_HOST": "r", "WOWEVENT_URL": "memory://w"}, {"host": "h"}, "amqp://***@h:5672/%2F?heartbeat=600"),
        ({"WOWEVENT_URL": "memory://w"}, {"url": "memory://x"}, "memory://x"),
        ({"WOWEVENT_URL": "memory://w"}, {"prefetch_count": 3}, "memory://w"),
        ({"RABBITMQ_PORT": "tcp://10.0.0.1:5672"}, {"url": "memory://x"}, "memory://x"),  # as Kubernetes sets it
    ],
)
def test_where_a_bus_finds_its_engine(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], given: dict[str, Any], shown: str
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert repr(EventBus(**given)) == f"<blocking EventBus {shown}>"


@pytest.mark.parametrize(
    "given",
    [
        {"exchange_type": "fanout"},
        {"port": 0},
        {"port": "tcp://10.0.0.1:5672"},
        {"prefetch_count": 0},
        {"connection_timeout": 0},
        {"heartbeat": -1},
        {"heartbeat": 65_535},
        {"url": "amqp://h?haertbeat=60"},
        {"url": "amqp://h?heartbeat=soon"},
        {"url": "amqp://h?max_aeg=60"},
        {"url": "amqp://"},
        {"url": "memory://x", "host": "h"},
        {"url": "ftp://x"},
        {"url": "sqlite:///x?cached=1"},
        {"url": b"memory://"},
        {"url": "memory://x", "namespace": "a b"},
    ],
)
def test_settings_that_cannot_be_are_refused_at_once(given: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, NotSupported, InvalidEvent)):
        EventBus(**given)


def test_a_password_is_never_shown(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("RABBITMQ_PASSWORD", "s/e@c:ret")
    monkeypatch.setenv("RABBITMQ_CONNECTION_TIMEOUT", "0.3")
    nowhere: dict[str, Any] = {"host": "127.0.0.1", "port": free_port()}
    redis = "redis://me:s%2Fe%40c%3Aret@127.0.0.1:1/0"
    for bus in (EventBus(**nowhere), EventBus(**nowhere, password="s/e@c:ret"), EventBus(redis)):
        with bus:
            assert bus.publish(task()) is False
            with pytest.raises(BrokerUnavailable) as refused:
                bus.purge_queue("q")
            said = repr(bus) + repr(bus.__dict__) + str(bus.health_check()) + caplog.text + str(refused.value)
        for spelling in ("s/e@c:ret", "s%2Fe%40c%3Aret", "ret@"):
            assert spelling not in said.replace("'", "").replace("password=SecretStr(**********)", "")


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("unix://me:s3cret@/run/redis.sock", "run/redis.sock"),
        ("memory://a@b", "a@b"),
        ("redis://me:s3cret@h:6379", "h"),
        ("nats://me:s3cret@a:1,b:2", "a:1,b:2"),
    ],
)
def test_a_place_is_without_who_logs_in(url: str, host: str) -> None:
    assert Address(url).place["host"] == host


@pytest.mark.parametrize("host", ["", "../h", "h/x", "u:p@h", "h?x", "h#x"])
def test_a_host_that_would_be_another_part_of_a_url_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="host"):
        EventBus(host=host)


def test_a_rabbitmq_that_is_not_there_is_waited_for_as_long_as_was_said() -> None:
    port = free_port()
    with EventBus(host="127.0.0.1", port=port, username="u", password="p", vhost="/production",
                  exchange_type="topic", prefetch_count=10, connection_timeout=0.5, heartbeat=300) as bus:  # fmt: skip
        health = bus.health_check()
        assert (health["status"], health["connected"]) == ("unhealthy", False)
        assert (health["details"]["host"], health["details"]["port"]) == ("127.0.0.1", port)
        assert health["details"]["exchange"] == "agent_events"
        assert "refused" in health["details"]["error"]
        asked: list[Callable[[], Any]] = [
            lambda: bus.subscribe("q", ["#"], Seen()),
            lambda: bus.get_queue_info("q"),
            lambda: bus.purge_queue("dlq.q"),
        ]
        for ask in asked:
            started = time.monotonic()
            with pytest.raises(BrokerUnavailable, match="refused"):
                ask()
            assert 0.3 < time.monotonic() - started < 3
        bus.subscribe("dlq.q", ["#"], Seen())  # a view, which needs no engine before it is consumed


def test_the_exchange_is_the_namespaces(tmp_path: Path) -> None:
    for namespace, exchange in {"default": "agent_events", "staging": "agent_events.staging"}.items():
        with EventBus(f"memory://{tmp_path.name}", namespace=namespace) as bus:
            assert bus.health_check()["details"]["exchange"] == exchange


def test_namespaces_see_nothing_of_each_other(opened: Open) -> None:
    one, two = opened(namespace="one"), opened(namespace="two")
    one.subscribe("q", ["#"], Seen())
    two.publish(task())
    assert count(one, "q") == 0
    assert two.get_queue_info("q") is None


# --- health ---------------------------------------------------------------------------------------------------------


def test_health_of_a_bus_that_runs(bus: EventBus) -> None:
    health = bus.health_check()
    assert (health["status"], health["connected"]) == ("healthy", True)
    assert health["details"]["exchange"] == "agent_events"
    assert health["details"]["host"]
    assert "error" not in health["details"]


def test_health_with_the_engine_down_says_so_soon(caplog: pytest.LogCaptureFixture) -> None:
    with EventBus(f"redis://127.0.0.1:{free_port()}") as bus:
        started = time.monotonic()
        health = bus.health_check()
        assert time.monotonic() - started < 5
    assert (health["status"], health["connected"]) == ("unhealthy", False)
    assert "refused" in health["details"]["error"]


@pytest.mark.parametrize("how", ["kill", "pause"])
def test_health_when_the_engine_goes_away_and_comes_back(tmp_path: Path, how: str) -> None:
    with redis_running(tmp_path) as redis, EventBus(f"redis://127.0.0.1:{redis.port}") as bus:
        assert bus.health_check()["status"] == "healthy"
        redis.kill() if how == "kill" else redis.pause()
        started = time.monotonic()
        health = bus.health_check()
        assert time.monotonic() - started < 6
        assert (health["status"], health["connected"]) == ("unhealthy", False)
        assert health["details"]["error"]
        redis.start() if how == "kill" else redis.resume()
        until(lambda: bus.health_check()["status"] == "healthy", "health")


def test_health_of_a_closed_bus(bus: EventBus) -> None:
    bus.close()
    health = bus.health_check()
    assert (health["status"], health["connected"], health["details"]["error"]) == (
        "unhealthy", False, "this bus is closed",
    )  # fmt: skip


# --- queues ---------------------------------------------------------------------------------------------------------


def test_purging_drops_what_is_ready(bus: EventBus) -> None:
    bus.subscribe("q", ["#"], Seen())
    for n in range(5):
        bus.publish(task(n))
    assert bus.purge_queue("q") == 5
    assert count(bus, "q") == 0


def test_deleting_forgets_the_queue(bus: EventBus) -> None:
    bus.subscribe("q", ["#"], Seen())
    bus.start_consuming("q", blocking=False)
    assert bus.delete_queue("q") is True
    assert bus.delete_queue("q") is False
    assert bus.get_queue_info("q") is None
    with pytest.raises(ValueError, match="part of its queue"):
        bus.delete_queue("dlq.q")


# --- begin and end --------------------------------------------------------------------------------------------------


def test_nothing_runs_before_it_is_needed(url: str) -> None:
    before = threading.enumerate()
    bus = EventBus(url)
    assert threading.enumerate() == before
    bus.close()
    bus.close()


def test_closing_is_idempotent_from_any_thread(bus: EventBus) -> None:
    bus.subscribe("q", ["#"], Seen())
    bus.start_consuming("q", blocking=False)
    threads = [threading.Thread(target=bus.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    bus.close()
    for ask in (lambda: bus.publish(task()), lambda: bus.subscribe("q", ["#"], Seen()), lambda: bus.purge_queue("q")):
        with pytest.raises(Closed):
            ask()
    bus.stop_consuming("q")


def test_closing_ends_a_blocking_consume(bus: EventBus) -> None:
    bus.subscribe("q", ["#"], Seen())
    thread = threading.Thread(target=bus.start_consuming, args=("q",))
    thread.start()
    until(lambda: (bus.get_queue_info("q") or {}).get("consumer_count"), "the consumer")
    bus.close()
    thread.join(10)
    assert not thread.is_alive()


def test_closing_does_not_wait_longer_than_it_says(opened: Open) -> None:
    bus, other, free = opened(), opened(), threading.Event()
    began = threading.Event()

    def callback(event: object) -> None:
        began.set()
        free.wait(20)

    bus.subscribe("q", ["#"], callback)
    bus.start_consuming("q", blocking=False)
    other.publish(task())
    assert began.wait(10)
    started = time.monotonic()
    bus.close(timeout=0.5)
    assert time.monotonic() - started < 4
    free.set()
    assert count(other, "q") == 1  # it was given back


def test_a_call_in_the_loops_own_thread_is_a_clear_error(bus: EventBus) -> None:
    """A handler of log lines, or a payload model, runs there."""
    errors: list[Exception] = []

    class Publishes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            try:
                bus.publish(task())
            except RuntimeError as error:
                errors.append(error)

    handler = Publishes()
    logging.getLogger("wowevent").addHandler(handler)
    try:
        bus.subscribe("q", ["#"], Seen(fails=1))
        bus.start_consuming("q", blocking=False)
        bus.publish(task())  # its callback raises, which is a line of the log
        until(lambda: errors, "the error")
    finally:
        logging.getLogger("wowevent").removeHandler(handler)
    assert "cannot wait for itself" in str(errors[0])


# --- processes ------------------------------------------------------------------------------------------------------


def program(tmp_path: Path, code: str, *arguments: str, timeout: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        env=environment(tmp_path), capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


OPEN_BUS = """
    import sys, time
    from wowevent import Event
    from wowevent.blocking import EventBus

    bus = EventBus(sys.argv[1])
    bus.subscribe("q", ["#"], lambda event: time.sleep(60) if sys.argv[2] == "busy" else None)
    bus.start_consuming("q", blocking=False)
    for n in range(20):
        bus.publish(Event(topic="task.created", payload={"n": n}), persistent=n % 2 == 0)
    print("the last line")
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_an_interpreter_that_ends_with_an_open_bus_ends(url: str, broker_name: str, tmp_path: Path, state: str) -> None:
    started = time.monotonic()
    done = program(tmp_path, OPEN_BUS, url, state)
    assert (done.returncode, done.stdout) == (0, "the last line\n"), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert time.monotonic() - started < 10
    if broker_name != "memory" and state == "busy":
        with EventBus(url) as bus:
            assert bus.get_queue_info("q") == {"queue_name": "q", "message_count": 20, "consumer_count": 0}


CONSUME = """
    import signal, sys, threading
    from wowevent import Event
    from wowevent.blocking import EventBus

    with EventBus(sys.argv[1]) as bus:
        bus.subscribe("q", ["#"], lambda event: print("event", flush=True))
        bus.publish(Event(topic="task.created"))
        if sys.argv[2] == "SIGTERM":
            signal.signal(signal.SIGTERM, lambda *_: bus.stop_consuming("q"))
        bus.start_consuming("q", blocking=True)
        print("goes on", bus.get_queue_info("q"))
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_a_blocking_consume(url: str, tmp_path: Path, name: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CONSUME), url, name],
        env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "event\n"
        time.sleep(0.2)
        process.send_signal(getattr(signal, name))
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert out == "goes on {'queue_name': 'q', 'message_count': 0, 'consumer_count': 0}\n"
    assert err == ""


ENDED_BY_A_FORK = {"memory", "sqlite"}


def in_child(job: Callable[[], Any]) -> str:
    """What a forked child says; killed if it hangs."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = repr(job())
        except BaseException as error:  # noqa: BLE001 - it is what the child has to say
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise AssertionError("the child hangs")
        time.sleep(0.01)
    with os.fdopen(reading) as pipe:
        return pipe.read()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_connects_anew_or_says_that_it_cannot(bus: EventBus, broker_name: str) -> None:
    seen = Seen()
    bus.subscribe("q", ["#"], seen)
    bus.start_consuming("q", blocking=False)
    bus.publish(task(0))

    def child() -> object:
        published = [bus.publish(task(n)) for n in range(1, 11)]
        bus.subscribe("child", ["#"], seen)
        found = bus.get_queue_info("q")
        bus.close()
        return all(published), found is not None

    said = in_child(child)
    until(lambda: seen.events, "the parent's")
    if broker_name in ENDED_BY_A_FORK:
        assert said.startswith("Closed: this bus was in use before os.fork()")
        assert bus.publish(task(1))
        until(lambda: seen.numbers == [0, 1], "the parent goes on")
        return
    assert said == "(True, True)"
    for n in range(11, 21):
        assert bus.publish(task(n))
    until(lambda: len(seen.events) == 21, "the child's and the parent's")
    assert sorted(seen.numbers) == list(range(21))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_consumes_what_was_subscribed_before_the_fork(opened: Open, broker_name: str) -> None:
    if broker_name in ENDED_BY_A_FORK:
        return  # as the test before says
    bus, seen = opened(), Seen()
    bus.subscribe("q", ["#"], seen)
    bus.publish(task(7))

    def child() -> object:
        bus.start_consuming("q", blocking=False)
        until(lambda: seen.events, "the event")
        bus.close()
        return seen.numbers

    assert in_child(child) == "[7]"
    assert count(bus, "q") == 0


def test_a_bus_that_was_made_before_the_fork_and_used_after_it_works(opened: Open, broker_name: str) -> None:
    bus = opened()

    def child() -> object:
        bus.subscribe("q", ["#"], Seen())
        published = bus.publish(task(7))
        bus.close()
        return published

    assert in_child(child) == "True"
    assert count(bus, "q") == (-1 if broker_name == "memory" else 1)


def test_ctrl_c_leaves_the_event_that_is_handled_to_its_callback(tmp_path: Path) -> None:
    """A KeyboardInterrupt in the waiting thread does not touch the queue's."""
    seen = Seen()
    with EventBus(f"memory://{tmp_path.name}", retry=QUICK) as bus:

        def callback(event: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)
            seen(event)

        bus.subscribe("q", ["#"], callback)
        bus.publish(task())
        bus.start_consuming("q")  # returns: the test runs in the main thread
        assert seen.numbers == [0]
        assert count(bus, "q") == 0
