"""`wowevent backup`, `verify`, `restore`: one file, sound or said not to be, and a log of it that all will notice."""

import asyncio
import json
import os
import pty
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from select import select
from typing import Any

import apsw
import pytest
from websockets.asyncio.client import connect

from tests.processes import PATIENCE, address, end, environment, running, until, wowevent
from wowevent import Event, EventBus, PositionLost, current
from wowevent.broker import Position
from wowevent.brokers.sqlite.opening import alone
from wowevent.brokers.sqlite.restore import restore
from wowevent.errors import BrokerUnavailable

URL = "sqlite:///events.db"
FILE = "events.backup"
EMPTY = b"SQLite format 3\0"
CHANGED = "UPDATE log SET body = CAST(replace(body, '\"n\":1', '\"n\":7') AS BLOB) WHERE offset = 2"
BESIDE = ("-wal", "-shm", "-journal")


def run(home: Path, *arguments: str, status: int = 0) -> str:
    """What a command says: on stdout, or where it fails on stderr."""
    done = wowevent(home, *arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    return (done.stderr if status else done.stdout).decode()


def publish(home: Path, *numbers: int, url: str = URL) -> None:
    lines = "\n".join(json.dumps({"topic": "task.created", "payload": {"n": n}}) for n in numbers)
    assert wowevent(home, "publish", "--events", "--url", url, stdin=lines.encode()).returncode == 0


def history(home: Path, url: str = URL) -> list[int]:
    return [json.loads(line)["payload"]["n"] for line in run(home, "history", "--json", "--url", url).splitlines()]


def subscriptions(home: Path, url: str = URL) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(home, "subscriptions", "--json", "--url", url))
    return found


def back_up(home: Path, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(home, "backup", FILE, "--url", URL, "--json", *arguments))
    return found


def sql(home: Path, statement: str, name: str = "events.db") -> list[tuple[Any, ...]]:
    db = apsw.Connection(str(home / name))
    try:
        return db.execute(statement).fetchall()
    finally:
        db.close()


def names(home: Path) -> list[str]:
    """The files that are there, without those of the harness."""
    return sorted(path.name for path in home.iterdir() if path.is_file() and path.suffix != ".txt")


async def numbers_behind(bus: EventBus, after: str | None) -> list[int]:
    position = None if after is None else Position.parse(after)
    return [stored.event.payload["n"] async for stored in bus.history(after=position)]


async def soon(look: Callable[[], Any]) -> None:
    """Return once it finds something."""
    async with asyncio.timeout(PATIENCE):
        while not look():  # noqa: ASYNC110 - a file tells nobody that it changed
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------ there and back


def test_there_and_back(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1, 2)
    run(tmp_path, "subscribe", "task.*", "--name", "worker", "--from", "first", "-n", "1", "--url", URL)
    before = subscriptions(tmp_path)
    said = run(tmp_path, "backup", FILE, "--url", URL)
    epoch = sql(tmp_path, "SELECT epoch FROM state")[0][0]
    held = f"3 events ({epoch}-1 to {epoch}-3), 1 subscription"

    assert said.startswith(f"backed up {held} into {FILE}, ")
    assert said.endswith(" MB, and every event is what was written\n")
    assert run(tmp_path, "verify", FILE).startswith(f"{FILE} is sound: {held}, made 2")
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    said = run(tmp_path, "restore", FILE, "--url", "sqlite:///new/there.db")
    assert said.startswith(f"restored {held} into sqlite:///new/there.db; its positions are ")
    assert said.count("\n") == 1
    assert history(tmp_path, "sqlite:///new/there.db") == history(tmp_path) == [0, 1, 2]
    assert subscriptions(tmp_path, "sqlite:///new/there.db") | {"oldest": 0} == before | {"oldest": 0}
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / "there.db").stat().st_mode) == 0o600


def test_it_is_one_file_complete_by_itself(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / FILE, tmp_path / "elsewhere")
    before = (tmp_path / FILE).read_bytes()
    run(tmp_path, "verify", f"elsewhere/{FILE}")
    run(tmp_path, "restore", f"elsewhere/{FILE}", "--url", "sqlite:///there.db")

    assert names(tmp_path / "elsewhere") == [FILE]
    assert (tmp_path / "elsewhere" / FILE).read_bytes() == before
    assert before[18:20] == b"\1\1"  # no write-ahead log is looked for beside it
    assert names(tmp_path) == [FILE, "events.db", "there.db"]


def test_for_programs(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    made = back_up(tmp_path)
    seen = json.loads(run(tmp_path, "verify", FILE, "--json"))
    live = json.loads(run(tmp_path, "verify", "--url", URL, "--json"))
    done = json.loads(run(tmp_path, "restore", FILE, "--url", "sqlite:///there.db", "--json"))

    assert (made["events"], made["first"], made["last"], made["subscriptions"], made["dead_letters"]) == (2, 1, 2, 0, 0)
    assert (made["trouble"], made["wrong"], made["file"], made["url"]) == ("", 0, FILE, URL)
    assert seen == {name: value for name, value in made.items() if name != "url"}
    assert live.items() <= made.items()
    assert (done["made_at"], done["aside"]) == (made["made_at"], None)
    assert done["epoch"] != made["epoch"]
    assert back_up(tmp_path, "--no-verify", "--force")["trouble"] is None


def test_a_namespace_is_a_log_of_its_own(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    done = wowevent(tmp_path, "publish", "task.created", '{"n": 7}', "--url", URL, "--namespace", "staging")
    assert done.returncode == 0
    run(tmp_path, "backup", FILE, "--url", URL, "--namespace", "staging")
    run(tmp_path, "restore", FILE, "--url", URL, "--namespace", "test")

    assert history(tmp_path, "sqlite:///events.test.db") == [7]


def test_a_person_sees_a_bar(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "wowevent", "backup", FILE, "--url", URL]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=terminal,
    ) as process:
        os.close(terminal)
        out, _ = process.communicate(timeout=PATIENCE)
    seen = b""
    while select([main], [], [], 0.2)[0]:
        try:
            seen += os.read(main, 4096)
        except OSError:  # what Linux says when the other side is closed
            break
    os.close(main)
    assert out.startswith(b"backed up 1 event ")
    for word in (b"copying", b"checking", b"digest", b"100%", b"1 events"):
        assert word in seen


# ------------------------------------------------------------------------------------------------ what is refused


def test_a_file_that_is_there_is_only_replaced_on_demand(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    (tmp_path / FILE).write_text("precious")

    assert "--force replaces it" in run(tmp_path, "backup", FILE, "--url", URL, status=2)
    assert (tmp_path / FILE).read_text() == "precious"
    back_up(tmp_path, "--force")
    assert run(tmp_path, "verify", FILE)


def test_one_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    waits = alone(str(tmp_path / "events.db"), 5.0)
    with waits, running(tmp_path, "wowevent", "backup", FILE, "--url", URL) as process:
        until((tmp_path / f"{FILE}.part").exists, "it has begun")
        time.sleep(0.3)  # the moment in which it makes the file is over
        assert end(process) == 130
    assert names(tmp_path) == ["events.db"]


def test_a_backup_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    publish(tmp_path, *range(200))
    back_up(tmp_path)
    before = (tmp_path / FILE).read_bytes()
    log = bytearray((tmp_path / "events.db").read_bytes())
    log[4096 * 3 : 4096 * 4] = bytes(4096)
    (tmp_path / "events.db").write_bytes(log)

    assert run(tmp_path, "backup", FILE, "--url", URL, "--force", status=74).startswith("error[storage_damaged]: ")
    assert (tmp_path / FILE).read_bytes() == before
    assert names(tmp_path) == [FILE, "events.db"]


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("backup", "events.db", "--url", URL, "--force"), 2, "is the log itself"),
        (("backup", "events.db-wal", "--url", URL, "--force"), 2, "is the log itself"),
        (("backup", ".", "--url", URL, "--force"), 2, "is no file"),
        (("backup", FILE, "--url", "sqlite:///nowhere.db"), 69, "there is no log"),
        (("backup", f"nowhere/{FILE}", "--url", URL), 74, "nowhere"),
        (("verify", FILE), 74, "No such file"),
        (("verify", FILE, "--url", URL), 2, "one of the two"),
        (("verify", "events.db"), 74, "a log is verified with --url"),
        (("restore", FILE, "--url", "sqlite:///there.db"), 74, "No such file"),
        (("backup", FILE, "--url", "memory://"), 78, "gone with its process"),
        (("backup", FILE, "--url", "redis+sentinel://h:1/main"), 78, "BGSAVE"),
        (("restore", FILE, "--url", "amqp://h:1"), 78, "definitions"),
        (("verify", "--url", "tls://h:1"), 78, "nats stream backup"),
    ],
)
def test_what_is_refused(tmp_path: Path, arguments: Sequence[str], status: int, word: str) -> None:
    (tmp_path / "events.db").write_bytes(EMPTY)
    said = run(tmp_path, *arguments, status=status)

    assert said.startswith("error[")
    assert word in said
    assert said.count("\n") == 1
    assert names(tmp_path) == ["events.db"]


def test_a_backup_is_not_opened_as_a_log(tmp_path: Path) -> None:
    """It would give out positions that its log has given to other events since."""
    publish(tmp_path, 0)
    back_up(tmp_path)
    before = (tmp_path / FILE).read_bytes()

    said = run(tmp_path, "publish", "task.created", "{}", "--url", f"sqlite:///{FILE}", status=78)
    assert "wowevent restore" in said
    assert (tmp_path / FILE).read_bytes() == before


# ------------------------------------------------------------------------------------------------ what is damaged


def test_what_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"a letter to my aunt")

    assert "no backup" in run(tmp_path, "verify", FILE, status=74)
    assert "no backup" in run(tmp_path, "restore", FILE, "--url", URL, status=74)
    assert names(tmp_path) == [FILE]


def test_a_changed_event_is_named_by_its_position(tmp_path: Path) -> None:
    publish(tmp_path, *range(500))
    epoch = back_up(tmp_path)["epoch"]
    content = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content.replace(b'"n":321}', b'"n":421}'))
    said = run(tmp_path, "verify", FILE, status=74)

    assert f"{FILE}: its SHA-256 is not that of what was written; {epoch}-322: " in said
    assert "SHA-256" in run(tmp_path, "restore", FILE, "--url", "sqlite:///there.db", status=74)
    assert names(tmp_path) == [FILE, "events.db"]


def test_a_log_is_verified_too(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1, 2)
    assert run(tmp_path, "verify", "--url", URL).startswith(f"{URL} is sound: 3 events ")
    sql(tmp_path, CHANGED)
    before = (tmp_path / "events.db").read_bytes()

    assert "-2: the bytes stored" in run(tmp_path, "verify", "--url", URL, status=74)
    assert json.loads(wowevent(tmp_path, "verify", "--url", URL, "--json").stdout)["wrong"] == 1
    assert (tmp_path / "events.db").read_bytes() == before


def test_a_log_that_is_damaged_is_backed_up_as_it_is_and_restored(tmp_path: Path) -> None:
    """What can be read is worth keeping, and the log itself serves no damaged event."""
    publish(tmp_path, 0, 1, 2)
    sql(tmp_path, CHANGED)

    said = run(tmp_path, "backup", FILE, "--url", URL, status=74)
    assert "copied as it is, and is damaged: " in said
    assert "-2: the bytes stored" in run(tmp_path, "verify", FILE, status=74)
    done = wowevent(tmp_path, "restore", FILE, "--url", "sqlite:///there.db")
    assert done.returncode == 0
    assert b"note: the log was damaged before it was backed up: " in done.stderr
    done = wowevent(tmp_path, "history", "--json", "--url", "sqlite:///there.db")
    assert b'"n":7' not in done.stdout


# ------------------------------------------------------------------------------------------------ in its place


def test_a_log_that_is_there_is_kept_aside(tmp_path: Path) -> None:
    publish(tmp_path, 0, 1)
    back_up(tmp_path)
    publish(tmp_path, 2)

    assert "--force keeps it" in run(tmp_path, "restore", FILE, "--url", URL, status=2)
    assert history(tmp_path) == [0, 1, 2]
    done = json.loads(run(tmp_path, "restore", FILE, "--url", URL, "--force", "--json"))
    aside = Path(done["aside"])
    assert history(tmp_path) == [0, 1]
    assert aside.parent == tmp_path
    assert history(tmp_path, f"sqlite:///{aside}") == [0, 1, 2]
    assert stat.S_IMODE((tmp_path / "events.db").stat().st_mode) == 0o600
    publish(tmp_path, 3)
    assert history(tmp_path) == [0, 1, 3]
    assert history(tmp_path, f"sqlite:///{aside}") == [0, 1, 2]


def test_the_write_ahead_log_of_a_killed_process_goes_aside_with_its_log(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    with running(tmp_path, "wowevent", "subscribe", "task.*", "--name", "worker", "--url", URL) as process:
        until(lambda: sql(tmp_path, "SELECT 1 FROM serving"), "somebody there")
        publish(tmp_path, 1)
        end(process, signal.SIGKILL)
    assert (tmp_path / "events.db-wal").stat().st_size > 0
    done = json.loads(run(tmp_path, "restore", FILE, "--url", URL, "--force", "--json"))

    assert history(tmp_path) == [0]
    assert history(tmp_path, f"sqlite:///{done['aside']}") == [0, 1]
    assert run(tmp_path, "verify", "--url", URL)


def test_a_log_that_nobody_can_read_is_replaced_with_all_that_is_beside_it(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    for suffix in ("", *BESIDE):
        (tmp_path / f"events.db{suffix}").write_bytes(b"garbage" * 1_000)
    done = json.loads(run(tmp_path, "restore", FILE, "--url", URL, "--force", "--json"))

    assert history(tmp_path) == [0]
    assert Path(done["aside"]).read_bytes() == b"garbage" * 1_000


def test_what_is_left_beside_a_log_that_was_deleted_does_not_meet_the_new_one(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    with running(tmp_path, "wowevent", "subscribe", "task.*", "--name", "worker", "--url", URL) as process:
        until(lambda: sql(tmp_path, "SELECT 1 FROM serving"), "somebody there")
        publish(tmp_path, 1)
        end(process, signal.SIGKILL)
    (tmp_path / "events.db").unlink()
    run(tmp_path, "restore", FILE, "--url", URL, "--force")

    assert history(tmp_path) == [0]
    assert run(tmp_path, "verify", "--url", URL)


@pytest.mark.parametrize("stopped", [False, True])
def test_nothing_is_restored_while_somebody_has_the_log_open(tmp_path: Path, stopped: bool) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    publish(tmp_path, 1)
    with running(tmp_path, "wowevent", "subscribe", "none.*", "--url", URL) as process:
        until(lambda: sql(tmp_path, "SELECT 1 FROM serving"), "somebody there")
        if stopped:
            process.send_signal(signal.SIGSTOP)
        said = run(tmp_path, "restore", FILE, "--url", URL, "--force", status=69)
        assert f"is open, by process {process.pid} " in said
        process.send_signal(signal.SIGCONT)
        assert end(process, signal.SIGINT) == 0
    assert history(tmp_path) == [0, 1]
    run(tmp_path, "restore", FILE, "--url", URL, "--force")
    assert history(tmp_path) == [0]


def test_who_comes_while_the_backup_is_looked_at_is_noticed(tmp_path: Path) -> None:
    publish(tmp_path, 0)
    back_up(tmp_path)
    with ExitStack() as stack:

        def told(step: str, _count: int, part: float) -> None:
            if (step, part) == ("checking", 1.0):
                stack.enter_context(running(tmp_path, "wowevent", "subscribe", "none.*", "--url", URL))
                until((tmp_path / "events.db-shm").exists, "somebody there")

        with pytest.raises(BrokerUnavailable, match="is open, by process"):
            restore(tmp_path / FILE, str(tmp_path / "events.db"), force=True, told=told)
    assert not list(tmp_path.glob("events.db.*"))


def test_who_opens_the_log_waits_until_the_new_one_is_in_place(tmp_path: Path) -> None:
    """Else it would have the old file, and by its name the write-ahead log of the new one."""
    publish(tmp_path, 0)
    publish(tmp_path, 1, url="sqlite:///new.db")
    log = tmp_path / "events.db"
    with ExitStack() as stack:
        with alone(str(log), 5.0):
            log.rename(tmp_path / "aside.db")  # where one that did not wait would make an empty log
            command = ("wowevent", "publish", "task.created", '{"n": 2}', "--url", URL)
            process = stack.enter_context(running(tmp_path, *command))
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1.5)
            assert not log.exists()
            (tmp_path / "new.db").rename(log)
        assert process.wait(PATIENCE) == 0
    assert history(tmp_path) == [1, 2]


# ------------------------------------------------------------------------------------------------ from then on


async def test_positions_of_before_are_told_and_subscriptions_go_on(tmp_path: Path) -> None:
    """The restored log gives out positions that the lost one had given to other events."""
    url = f"sqlite:///{tmp_path}/events.db"
    seen: list[int] = []

    def handle(event: Event) -> None:
        seen.append(event.payload["n"])

    async def published(bus: EventBus, *numbers: int) -> list[str]:
        return [str((await bus.publish(Event(topic="task.created", payload={"n": n}))).position) for n in numbers]

    async with EventBus(url) as bus:
        worker = await bus.subscribe("task.*", handle, "worker")
        await published(bus, 0, 1)
        await bus.join(timeout=10)
        await worker.cancel()
        inside = (await published(bus, 2, 3))[-1]
    await asyncio.to_thread(back_up, tmp_path)
    async with EventBus(url) as bus:
        beyond = (await published(bus, 4, 5, 6))[-1]
        assert await numbers_behind(bus, inside) == [4, 5, 6]
    await asyncio.to_thread(run, tmp_path, "restore", FILE, "--url", URL, "--force")
    async with EventBus(url) as bus:
        await published(bus, 7, 8, 9, 10, 11)
        assert await numbers_behind(bus, None) == [0, 1, 2, 3, 7, 8, 9, 10, 11]
        for position in (inside, beyond):
            with pytest.raises(PositionLost):
                await numbers_behind(bus, position)
        with pytest.raises(PositionLost):
            await bus.subscribe("task.*", handle, "other", subscription="other", start=Position.parse(beyond))
        await bus.subscribe("task.*", handle, "worker")
        await soon(lambda: len(seen) == 9)
    assert seen == [0, 1, 2, 3, 7, 8, 9, 10, 11]


async def subscribed(home: Path, after: str | None) -> dict[str, Any]:
    """What the router that runs answers to a subscription behind that position."""
    await asyncio.to_thread(address, home)  # until it answers
    said = (home / "out.txt").read_text() + (home / "err.txt").read_text()
    async with connect(next(word for word in said.split() if word.startswith("ws://"))) as socket:
        await socket.send(json.dumps({"type": "subscribe", "subscription": {"topics": ["*"], "after": after}}))
        async for text in socket:
            frame: dict[str, Any] = json.loads(text)
            if frame["type"] == "subscribed":
                return frame
    raise AssertionError("the router closed the connection")


async def test_a_router_tells_its_clients_that_their_place_is_lost(home: Path) -> None:
    serve = ("wowevent", "serve", "--url", URL, "--port", "0", "--http-port", "0")
    publish(home, 0, 1)
    back_up(home)
    publish(home, 2, 3)
    with running(home, *serve) as process:
        place = (await subscribed(home, None))["position"]
        assert (await subscribed(home, place))["recovered"]
        assert end(process) == 0
    run(home, "restore", FILE, "--url", URL, "--force")
    publish(home, 4, 5, 6)
    with running(home, *serve) as process:
        assert not (await subscribed(home, place))["recovered"]
        assert end(process) == 0


async def test_what_was_leased_is_ready_again_uncharged_and_nothing_lapses(tmp_path: Path) -> None:
    """A backup of last month is not a subscription that was not served for a month."""
    url = f"sqlite:///{tmp_path}/events.db"
    attempts: list[tuple[int, bool]] = []

    async def stay(_: Event) -> None:
        await asyncio.sleep(60)

    def handle(_: Event) -> None:
        delivery = current()
        assert delivery is not None
        attempts.append((delivery.attempt, delivery.redelivered))

    def handled(count: int) -> bool:
        return len(attempts) == count

    async with EventBus(url) as bus:
        await bus.subscribe("task.*", stay, "worker")
        await bus.publish(Event(topic="task.created", payload={"n": 0}))
        await soon(lambda: sql(tmp_path, "SELECT 1 FROM lease"))
        await asyncio.to_thread(back_up, tmp_path)
        await bus.stop(timeout=0.1)
    await asyncio.to_thread(run, tmp_path, "restore", FILE, "--url", "sqlite:///there.db")
    month_ago = "UPDATE subscription SET served_at = served_at - 2592000"
    sql(tmp_path, month_ago, "events.db")
    await asyncio.to_thread(back_up, tmp_path, "--force")
    await asyncio.to_thread(run, tmp_path, "restore", FILE, "--url", "sqlite:///late.db")
    for count, name in enumerate(("there.db", "late.db"), 1):
        assert subscriptions_of(tmp_path, name) == (1, 0, 0, 0)
        async with EventBus(f"sqlite:///{tmp_path}/{name}") as bus:
            await bus.subscribe("task.*", handle, "worker")
            await soon(partial(handled, count))
    assert attempts == [(1, False), (1, False)]


def subscriptions_of(home: Path, name: str) -> tuple[int, int, int, int]:
    """Ready, leased, consumers, and whether it has lapsed, after the janitor has been."""
    run(home, "publish", "none", "{}", "--url", f"sqlite:///{name}")
    found = subscriptions(home, f"sqlite:///{name}")
    return found["ready"], found["leased"], found["consumers"], int(found["lapsed"])


def test_numbers_that_were_given_out_since_are_not_given_again(tmp_path: Path) -> None:
    """The id of a dead letter that was lost must not come to name another one."""
    publish(tmp_path, 0)
    back_up(tmp_path)
    first = "SELECT seq FROM sqlite_sequence WHERE name = 'instance'"
    before = sql(tmp_path, first)[0][0]
    run(tmp_path, "restore", FILE, "--url", URL, "--force")
    found = dict(sql(tmp_path, "SELECT name, seq FROM sqlite_sequence"))

    assert set(found) == {"live", "delayed", "subscription", "dead", "instance"}
    assert found["dead"] >= 2**20
    assert found["instance"] >= before + 2**20
