"""The lines of the pages for a shell run as they stand, on a log, a Redis and services of the test's own.

What differs is ports, and names of machines and folders that are not here: each test says which. Lines for a cluster
are held against what the manifests declare, those for containers against the files that they name.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.daemons import processes_of
from tests.cli.dialogue import Terminal
from tests.conformance.engines import shared_redis
from tests.documents.pages import ROOT, Block, blocks, read
from tests.documents.shell import Shell, lines, wait
from tests.documents.test_data import LOOKED_AT, like, parsed
from tests.processes import running
from tests.servers import certificate, free_port
from tests.watching.manifests import Manifests, complaints
from wowevent import Event, EventBus, Reject, StormPolicy
from wowevent.cli.exits import INTERRUPTED

PAGES = (
    "README.md", "docs/backup.md", "docs/commands.md", "docs/deployment.md", "docs/doctor.md", "docs/mcp.md",
    "docs/monitoring.md", "docs/moving.md", "docs/pages.md", "docs/pauses.md", "docs/running.md", "docs/scaling.md",
    "docs/schedules.md", "docs/security.md", "docs/storms.md",
)  # fmt: skip
FOUND = {page: blocks(page, "sh") for page in PAGES}
RUNS = [block for found in FOUND.values() for block in found]
LOG = "sqlite:///events.db"
REDIS = "redis://localhost:6379"
pytestmark = pytest.mark.timeout(300)  # seconds: processes from nothing, on a machine that has other things to do
TWO_SECONDS_ARE_OVER = 28
"""curl's exit status where --max-time is over."""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """One whose bus is a file in its folder. Whatever it left running is killed."""
    yield Shell(tmp_path, WOWEVENT_URL=f"sqlite:///{tmp_path}/events.db")
    left = processes_of(tmp_path)
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=5)


def part(block: Block, *wanted: str) -> Block:
    """Those lines of a block that have one of these words in them."""
    return block._replace(
        text="".join(f"{line}\n" for line in lines(block.text) if any(each in line for each in wanted))
    )


def dead_letters(url: str, count: int) -> None:
    """Events that a subscription, the worker's, refused."""

    def refuse(_: Event) -> None:
        raise Reject("not this one")

    async def leave() -> None:
        async with EventBus(url) as bus:
            await bus.subscribe("task.created", refuse, "worker")
            await bus.publish_many([Event(topic="task.created", payload={"n": n}) for n in range(count)])
            await bus.join(timeout=10)

    asyncio.run(leave())


def storm(url: str) -> None:
    """A conversation that was parked: order-7."""

    async def begin() -> None:
        async with EventBus(url, storms=StormPolicy(max_visits=2)) as bus:

            async def again(_: Event) -> None:
                await bus.publish(Event(topic="turn.taken"))

            await bus.subscribe("turn.*", again, "ann")
            await bus.publish(Event(topic="turn.taken", correlation_id="order-7"))
            await bus.join(timeout=10)

    asyncio.run(begin())


def remembered(url: str, name: str) -> None:
    """A subscription that nobody serves."""

    async def declare() -> None:
        async with EventBus(url) as bus:
            await bus.subscribe("task.*", print, name)

    asyncio.run(declare())


# --- README -----------------------------------------------------------------------------------------------------------


def test_what_the_readme_says_make_does_it_does() -> None:
    two, *_ = FOUND["README.md"]
    targets = dict(re.findall(r"^([a-z-]+):.*## (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert [line.split() for line in lines(two.text)] == [["make", "run"], ["make", "test"]]
    assert targets["run"].startswith("start the router and the service on the embedded log")
    assert targets["test"].startswith("run every test")


def test_the_readme_over_http(shell: Shell) -> None:
    _, asked, _ = FOUND["README.md"]
    with shell.serving("wowevent serve") as url:
        for line in lines(asked.with_({"localhost:8080": url.removeprefix("http://")}).text):
            endless = "/events/stream" in line
            line = line.replace("curl -N", "curl -N --max-time 2") if endless else line  # noqa: PLW2901 - else it never ends
            said = shell.line(
                line.replace("curl ", "curl -fsS "), statuses=(TWO_SECONDS_ARE_OVER,) if endless else (0,)
            )
            assert said, line


def test_the_readme_in_production(shell: Shell, tmp_path: Path) -> None:
    *_, block = FOUND["README.md"]
    create, serve, doctor = lines(block.text)
    guarded(shell, tmp_path, create, serve)
    shell.line(doctor.replace("redis://redis.example.com:6379", shared_redis.emptied()), statuses=(0, 1))


def guarded(shell: Shell, home: Path, create: str, serve: str, ask: str = "") -> None:
    """A token that one line makes lets its agent into the service that the next one starts, and nobody else.

    `ask` is a line that does so with $SECRET.
    """
    secret = shell.line(create).strip()
    assert secret.startswith("wow_")
    for made, wanted in zip(certificate(home), ("cert.pem", "key.pem"), strict=True):
        made.rename(home / wanted)
    with shell.serving(serve) as url, httpx.Client(base_url=url, verify=False) as client:  # noqa: S501 - its own certificate
        event = {"topic": "task.created", "payload": {}}
        assert client.post("/events", json=event).status_code == 401
        assert client.post("/events", json=event, headers={"authorization": f"Bearer {secret}"}).status_code == 202
        if ask:
            ask = ask.replace("https://bus.example:8080", url.replace("0.0.0.0", "localhost"))
            ask = ask.replace("--json", "-H 'content-type: application/json' --data")  # curl before 7.82 has no --json
            said = shell.line(f"SECRET={secret}; {ask} --cacert cert.pem")
            assert json.loads(said)["receipts"], said


# --- the log, and other engines ---------------------------------------------------------------------------------------


def test_backups(shell: Shell, tmp_path: Path) -> None:
    first, nightly, restore, copies, _, _ = FOUND["docs/backup.md"]
    shell.line("wowevent publish task.kept")
    shell.follow(first)
    assert "task.kept" in shell.line("wowevent history --url sqlite:///there.db")

    (tmp_path / "backup").mkdir()
    here = {"/var/lib/wowevent/events.db": f"{tmp_path}/events.db", " /backup/": f" {tmp_path}/backup/"}
    command = " ".join(nightly.with_(here).text.split()[5:]).replace("\\%", "%")  # five words say when; cron reads % so
    shell.line(command)
    assert list((tmp_path / "backup").glob("events.[1-7]"))

    shell.line("wowevent publish task.lost")
    shell.follow(
        part(restore, "restore", "verify", "stop").with_({"/var/lib/wowevent/events.db": f"{tmp_path}/events.db"})
    )
    shell.line(f"{lines(restore.text)[-1]} --port 0 --http-port 0")
    shell.line("wowevent stop")
    assert "task.lost" not in shell.line("wowevent history")

    there, back = shared_redis.emptied(), shared_redis.emptied()
    shell.line(f"wowevent publish task.kept --url {there}")
    shell.follow(copies, {"redis://redis.example.com:6379": there, "redis://another:6379": back})
    assert "task.kept" in shell.line(f"wowevent history --url {back}")


def test_the_backup_of_redis_is_what_a_test_does() -> None:
    """A real server is backed up and put back by tests/cli/test_backup_redis.py; the page's lines name its steps."""
    *_, made, put_back = FOUND["docs/backup.md"]
    test = (ROOT / "tests" / "cli" / "test_backup_redis.py").read_text()
    for step in ("--rdb", "appendonlydir", "appendonly.aof", "epoch"):
        assert step in made.text + put_back.text
        assert step in test, step
    for block in (made, put_back):
        for line in lines(block.text):
            assert shutil.which(re.sub(r"^until ", "", line).split()[0]), line


def test_commands(shell: Shell, tmp_path: Path) -> None:
    asked, copying, schemas = FOUND["docs/commands.md"]
    dead_letters(f"sqlite:///{tmp_path}/events.db", count=3)
    there = shared_redis.emptied()
    here = {REDIS: there, LOG: f"sqlite:///{tmp_path}/events.db"}
    assert shell.follow(copying, here).strip().endswith("}")
    assert "task.created" in shell.line(f"wowevent history --url {there}")

    assert shell.follow(part(asked, "sort")).split()[0] == "3"
    shell.follow(part(asked, "dlq redeliver", "replay"))
    assert "audit.tasks" in shell.line("wowevent history")

    (tmp_path / "schemas").mkdir()
    for where, version, wanted in (
        ("schemas/a.json", "1.0.0", ["n"]),
        ("old.json", "1.0.0", []),
        ("new.json", "2.0.0", ["n"]),
    ):
        schema = {
            "event_type": "task.created",
            "version": version,
            "json_schema": {"type": "object", "required": wanted},
        }
        (tmp_path / where).write_text(json.dumps(schema))
    shell.follow(schemas, statuses=(0, 65))
    assert "task.created" in shell.line("wowevent schema list")


def test_the_doctor(shell: Shell) -> None:
    (block,) = FOUND["docs/doctor.md"]
    said = shell.follow(block, {REDIS: shared_redis.emptied()}, statuses=(0, 1))
    assert re.search(r'"check": ?"', said), said


def test_moving(shell: Shell, tmp_path: Path) -> None:
    (block,) = FOUND["docs/moving.md"]
    there = shared_redis.emptied()
    export, *copy, serve = lines(
        block.with_({LOG: f"sqlite:///{tmp_path}/events.db", "redis://redis.example.com:6379": there}).text
    )
    shell.line("wowevent publish task.moved")
    shell.line("\n".join([export, *copy]))
    with shell.serving(serve.replace("$TO", there)) as url:
        assert "task.moved" in httpx.get(f"{url}/events").text


# --- one machine ------------------------------------------------------------------------------------------------------


def test_running(shell: Shell, tmp_path: Path) -> None:
    (block,) = FOUND["docs/running.md"]
    configure, start, status, monitor, logs, restart, stop = lines(block.text)
    shell.line(f"{configure} --port {free_port()} --http-port {free_port()}")
    assert "http://" in shell.line(start)
    assert "running" in shell.line(status)
    with Terminal(tmp_path, *shlex.split(monitor)[1:]) as terminal:
        terminal.wait_for("connected")
        terminal.type("q")
        assert terminal.end()[0] == 0
    with Terminal(tmp_path, *shlex.split(logs)[1:]) as terminal:
        terminal.leave("\x03")
        assert terminal.end()[0] in {0, INTERRUPTED}, "it looks on until somebody leaves it"
    shell.line(restart)
    shell.line(stop)


def test_what_a_service_says_of_itself_is_as_it_is_shown(shell: Shell, tmp_path: Path) -> None:
    """The two objects of docs/running.md: a line of the log, and what `monitor --json` prints."""
    line, look = (parsed(block.text) for block in LOOKED_AT)
    (tmp_path / "bus.py").write_text(FAILING)
    shell.line("wowevent publish task.created")
    with running(tmp_path, "wowevent", "run", "bus:bus", WOWEVENT_LOG_FORMAT="json", **shell.settings):
        wait(lambda: "delivery failed" in (tmp_path / "err.txt").read_text(), "a failed delivery")
        said = [
            json.loads(each) for each in (tmp_path / "err.txt").read_text().splitlines() if "delivery failed" in each
        ]
    assert line.keys() <= said[0].keys(), said[0]
    assert {name: line[name] for name in ("logger", "message")} == {
        name: said[0][name] for name in ("logger", "message")
    }

    with shell.serving("wowevent serve") as url:
        where = re.search(r"ws://\S+", (tmp_path / "out.txt").read_text() + (tmp_path / "err.txt").read_text())
        assert where
        watch = f"wowevent monitor '#' --once --json --url {where[0].rstrip(',')}"
        httpx.post(f"{url}/events", json={"topic": "task.created", "payload": {}})
        said = [json.loads(each) for each in shell.line(watch).splitlines()]
    assert said
    assert like({**look, "events": []}, {**said[-1], "events": []}), said[-1]


FAILING = """
from wowevent import Event, EventBus

bus = EventBus()

@bus.on("task.*", name="worker", start="first")
async def work(event: Event) -> None:
    raise OSError("no answer")

@bus.on("never.*")
async def never(event: Event) -> None: ...
"""


def test_scaling(shell: Shell) -> None:
    several, spread = FOUND["docs/scaling.md"]
    there = shared_redis.emptied()
    serve, start, exchange = lines(
        several.with_({"--workers 4": "--workers 2"}).text
    )  # four take long to start at once
    with shell.serving(serve):
        pass
    shell.line(f"{start} --port 0 --http-port 0")
    shell.line(exchange)
    shell.line("wowevent stop")
    for line in lines(
        spread.with_({"redis://eu.redis.internal:6379": there, "redis://us.redis.internal:6379": there}).text
    ):
        with shell.serving(line) as url:
            assert httpx.get(f"{url}/health").status_code == 200


def test_monitoring(shell: Shell) -> None:
    for_jq, overview = FOUND["docs/monitoring.md"]
    with shell.serving("wowevent serve") as url:
        for block in (for_jq, overview):
            assert shell.follow(block, {"localhost:8080": url.removeprefix("http://")}).strip() not in {"", "null"}


def test_who_sent_a_corrected_letter_stands_in_the_log(shell: Shell, tmp_path: Path) -> None:
    """docs/pages.md: what a page sent again is found in the service's log."""
    (block,) = FOUND["docs/pages.md"]
    dead_letters(f"sqlite:///{tmp_path}/events.db", count=1)
    shell.line("wowevent start --daemon --port 0 --http-port 0 --log-file wowevent.log")
    url = json.loads(shell.line("wowevent status --json"))["http"]
    (letter,) = httpx.get(f"{url}/dead-letters").json()["dead_letters"]
    done = httpx.post(f"{url}/dead-letters/{letter['id']}/resend", json={"payload": {"n": 7}})
    assert done.status_code < 300, done.text
    assert "dead_letter resent" in shell.follow(block)


def test_pauses(shell: Shell) -> None:
    (block,) = FOUND["docs/pauses.md"]
    remembered(shell.settings["WOWEVENT_URL"], "worker-1")
    shell.follow(block)
    assert "everything" not in shell.line("wowevent pauses")


def test_schedules(shell: Shell) -> None:
    (block,) = FOUND["docs/schedules.md"]
    assert "cache.sweep" in shell.follow(block)
    assert "sweep" not in shell.line("wowevent schedule list")


def test_security(shell: Shell, tmp_path: Path) -> None:
    served, tokens, jwts, audit = FOUND["docs/security.md"]
    guarded(shell, tmp_path, *lines(served.text))

    create, listed, revoke = lines(tokens.text)
    secret = shell.line(create).strip()
    said = shell.line(listed)
    assert secret.split("_")[1] in said
    assert "ops" in said
    shell.line(revoke.replace("9f1c0a2b3c4d", secret.split("_")[1]))

    key = {"kid": "k1", "kty": "oct", "alg": "HS256", "k": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key]}))
    (line,) = lines(jwts.text)
    with shell.serving(line) as url:
        assert httpx.get(f"{url}/events").status_code == 401
    (tmp_path / "wowevent.log").write_text((tmp_path / "err.txt").read_text() + (tmp_path / "out.txt").read_text())
    assert "outcome=refused" in shell.follow(audit)


def test_storms(shell: Shell, tmp_path: Path) -> None:
    (block,) = FOUND["docs/storms.md"]
    storm(shell.settings["WOWEVENT_URL"])
    listed, letters, once, release = lines(block.text)
    assert "order-7" in shell.line(listed)
    assert "loop_detected" in shell.line(letters)
    for line in (once, release):
        shell.line(line.replace("dlq redeliver", "dlq redeliver --yes"))  # there is no terminal to ask on
    assert "order-7" not in shell.line(listed)


def test_the_mcp_server(shell: Shell, tmp_path: Path) -> None:
    install, over_http = FOUND["docs/mcp.md"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert lines(install.text) == ["pip install 'wowevent[mcp]'"]
    assert "mcp" in extras
    create, serve = lines(over_http.text)
    secret = shell.line(create).strip()
    with shell.serving(serve) as url:
        assert httpx.post(f"{url}/mcp", json={}).status_code == 401
        hello = {"authorization": f"Bearer {secret}", "accept": "application/json, text/event-stream"}
        assert httpx.post(f"{url}/mcp", json={}, headers=hello).status_code not in {401, 403, 404}


# --- containers -------------------------------------------------------------------------------------------------------


def test_lines_for_clusters_and_containers_name_what_is_there() -> None:
    manifests = Manifests()
    seen = set()
    for block in FOUND["docs/deployment.md"]:
        for line in lines(block.text):
            words = shlex.split(line)
            seen.add(words[0])
            match words[0]:
                case "kubectl":
                    assert not complaints(manifests, words), line
                case "docker":
                    for word in words:
                        assert not word.endswith((".yml", "Dockerfile")) or (ROOT / word).is_file(), line
                    if "--profile" in words:
                        assert f"profiles: [{words[words.index('--profile') + 1]}]" in (ROOT / words[3]).read_text(), (
                            line
                        )
                case "curl":
                    assert words[1].startswith("http://localhost:8080/")
                case other:
                    assert other == "wowevent", line
    assert seen == {"kubectl", "docker", "curl", "wowevent"}


def test_the_token_of_the_deployment(shell: Shell, tmp_path: Path) -> None:
    (line,) = [
        each for block in FOUND["docs/deployment.md"] for each in lines(block.text) if each.startswith("wowevent")
    ]
    shell.line(line)
    assert (tmp_path / "tokens.json").stat().st_mode & 0o777 == 0o600


# --- how lines are read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ls  # all\n\n# nothing\ncat a#b\n", ["ls", "cat a#b"]),
        ("one \\\n  two\n", ["one    two"]),
        ("say '#'  # hash", ["say '#'"]),
    ],
)
def test_lines_without_their_comments(text: str, found: list[str]) -> None:
    assert lines(text) == found


def test_a_line_that_fails_is_told(shell: Shell) -> None:
    (block,) = read("page.md", "```sh\nwowevent info nobody\n```\n")
    with pytest.raises(AssertionError, match="wowevent info nobody\nends with 69"):
        shell.follow(block)
    with pytest.raises(AssertionError, match="ends with 1"):
        shell.line("false | cat")
