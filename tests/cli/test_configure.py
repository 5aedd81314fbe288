"""`wowevent configure`, and what its file means to every command."""

import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.cli.daemons import PORTS, free_port, started
from tests.cli.dialogue import Terminal
from tests.processes import address, running, wowevent
from wowevent.settings import masked


def file_of(home: Path) -> Path:
    return home / ".config" / "wowevent" / "config.toml"


def said(home: Path) -> dict[str, Any]:
    return tomllib.loads(file_of(home).read_text())


def shown(home: Path, *before: str, **changes: Any) -> dict[str, Any]:
    done = wowevent(home, *before, "configure", "--show", "--json", **changes)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def write(home: Path, text: str) -> Path:
    file_of(home).parent.mkdir(parents=True, exist_ok=True)
    file_of(home).write_text(text)
    return file_of(home)


# --- flags ----------------------------------------------------------------------------------------------------------


def test_flags_ask_nothing(home: Path) -> None:
    done = wowevent(
        home, "configure", "--url", "sqlite:////data/x.db", "--host", "localhost", "--port", "9191",
        "--http-port", "8181", "--log-level", "debug", "--namespace", "staging", "--set", "max_payload=1000",
        "--set", 'origins=["https://a.example"]', "--set", "data_dir=/data/x",
    )  # fmt: skip
    assert (done.returncode, done.stdout.decode()) == (0, f"wrote {file_of(home)}\n")
    assert said(home) == {
        "url": "sqlite:////data/x.db", "host": "localhost", "port": 9191, "http_port": 8181, "log_level": "debug",
        "namespace": "staging", "max_payload": 1000, "origins": ["https://a.example"], "data_dir": "/data/x",
    }  # fmt: skip
    assert stat.S_IMODE(file_of(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(file_of(home).parent.stat().st_mode) == 0o700
    assert list(file_of(home).parent.iterdir()) == [file_of(home)]

    assert wowevent(home, "configure", "--port", "9292", "--unset", "http_port", "--unset", "url").returncode == 0
    assert (said(home)["port"], "http_port" in said(home), "url" in said(home)) == (9292, False, False)


def test_where_it_is(home: Path) -> None:
    assert wowevent(home, "configure", "--path").stdout.decode() == f"{file_of(home)}\n"
    assert wowevent(home, "configure", "--path", WOWEVENT_CONFIG="c.toml").stdout.decode() == f"{home}/c.toml\n"
    assert wowevent(home, "--config", "d.toml", "configure", "--path").stdout.decode() == f"{home}/d.toml\n"


@pytest.mark.parametrize(
    ("arguments", "status", "complaint"),
    [
        ((), 2, "without a terminal"),
        (("--json",), 2, "--json goes with --show"),
        (("--show", "--port", "1"), 2, "change nothing"),
        (("--port", "many"), 2, "--port"),
        (("--port", "65536"), 78, "port: "),
        (("--set", "port"), 2, "NAME=VALUE"),
        (("--set", "nix=1"), 78, "nix: is not known"),
        (("--set", "port=x"), 78, "port: "),
        (("--set", "port=2026-01-01"), 78, "port: "),
        (("--unset", "nix"), 2, "settings are url"),
        (("--log-level", "loud"), 78, "is not a log level"),
        (("--namespace", "a b"), 78, "is not a name"),
        (("--url", "gopher://x"), 78, "gopher"),
        (("--url", "sqlite:///x?synchronos=full"), 78, "synchronos"),
        (("--host", ""), 78, "host: "),
        (("--host", "0.0.0.0"), 77, "--allow-anonymous"),
        (("--port", "8080"), 78, "both 8080"),
    ],
)
def test_what_is_refused_is_not_written(home: Path, arguments: tuple[str, ...], status: int, complaint: str) -> None:
    done = wowevent(home, "configure", *arguments)

    assert done.returncode == status, done.stderr
    assert complaint in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert not file_of(home).exists()


def test_others_are_let_in_if_that_is_said(home: Path) -> None:
    assert wowevent(home, "configure", "--host", "0.0.0.0", "--allow-anonymous").returncode == 0
    assert wowevent(home, "configure", "--no-allow-anonymous").returncode == 77


def test_a_link_to_the_file_stays_one(home: Path) -> None:
    (home / "real.toml").write_text("port = 1\n")
    file_of(home).parent.mkdir(parents=True)
    file_of(home).symlink_to(home / "real.toml")
    assert wowevent(home, "configure", "--http-port", "2").returncode == 0

    assert file_of(home).is_symlink()
    assert tomllib.loads((home / "real.toml").read_text()) == {"port": 1, "http_port": 2}


def test_what_else_there_is_to_know(home: Path) -> None:
    started(home)
    done = wowevent(home, "configure", "--http-port", "8181", "--url", "sqlite:///x.db", PORT="8282")

    for word in ("PORT is set in the environment", "wowevent restart", "another file in each folder"):
        assert word in done.stderr.decode()


# --- what it means --------------------------------------------------------------------------------------------------


def test_flags_over_the_environment_over_the_file_over_defaults(home: Path) -> None:
    told = shown(home)
    assert (told["settings"]["http_port"], told["sources"]["http_port"]) == (8080, "default")
    write(home, "http_port = 8181\nnamespace = 'filed'\n")
    told = shown(home)
    assert (told["settings"]["http_port"], told["sources"]["http_port"]) == (8181, "file")
    for variable in ("PORT", "WOWEVENT_HTTP_PORT"):
        told = shown(home, **{variable: "8282"})
        assert (told["settings"]["http_port"], told["sources"]["http_port"]) == (8282, f"environment, {variable}")
    port = free_port()
    done = wowevent(
        home, "start", "--daemon", "--json", "--port", "0", "--http-port", str(port), PORT="8282", LOG_LEVEL="debug"
    )
    said = json.loads(done.stdout)
    assert (said["http"], said["namespace"]) == (f"http://127.0.0.1:{port}", "filed")


def test_every_command_sees_it(home: Path) -> None:
    write(home, f"url = 'sqlite:///{home}/filed.db'\nlog_level = 'DEBUG'\n")
    done = wowevent(home, "publish", "a.b")
    assert (done.returncode, done.stderr) == (0, b""), "the file's log level is the service's"
    assert (home / "filed.db").exists()
    assert b" a.b " in wowevent(home, "history").stdout
    assert f"sqlite:///{home}/filed.db" in json.dumps(started(home))


def test_the_service_of_containers_sees_it(home: Path) -> None:
    port = free_port()
    write(home, f"http_port = {port}\nurl = 'memory://'\n")
    with running(home, "wowevent.service"):
        assert address(home) == f"http://127.0.0.1:{port}"


def test_a_file_elsewhere(home: Path) -> None:
    (home / "c.toml").write_text("port = 9999\n")
    assert shown(home, WOWEVENT_CONFIG="c.toml")["settings"]["port"] == 9999
    assert shown(home, "--config", "c.toml")["settings"]["port"] == 9999
    done = wowevent(home, "--config", "gone.toml", "status")
    assert done.returncode == 78
    assert b"gone.toml: there is no such file" in done.stderr
    done = wowevent(home, "--config", "new.toml", "configure", "--port", "1")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("prot = 9191", "prot: is not known; known are url, "),
        ("port = '9191'", "port: Input should be a valid integer"),
        ("port = 9191.0\nnix = 1", "nix: is not known"),
        ("port = true", "port: "),
        ("port = -1", "port: "),
        ("max_body = nan", "max_body: "),
        ("allow_anonymous = 1", "allow_anonymous: "),
        ("origins = 'x'", "origins: "),
        ("host = 1", "host: "),
        ("url = 2026-01-01", "url: "),
        ("[server]\nport = 1", "server: "),
        ("namespace = 'a b'", "namespace: "),
        ("log_level = 'loud'", "log_level: 'loud' is not a log level"),
        ("port = ", "Invalid value (at "),
        ("port = 1\nport = 2", "(at "),
        ("port = " + "[" * 2_000, "recursion"),
    ],
)
@pytest.mark.parametrize("command", [("serve", *PORTS), ("history",)])
def test_a_file_that_is_wrong(home: Path, text: str, complaint: str, command: tuple[str, ...]) -> None:
    file = write(home, text)
    done = wowevent(home, *command)

    assert done.returncode == 78
    assert done.stderr.decode().startswith(f"error[config]: {file}: ")
    assert complaint in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1


def test_a_file_that_is_not_text(home: Path) -> None:
    write(home, "").write_bytes(b"\xff\xfe")
    assert wowevent(home, "history").returncode == 78


def test_a_file_that_is_wrong_can_be_mended(home: Path) -> None:
    write(home, "prot = 9191\nhost = 'localhost'\n")
    assert wowevent(home, "configure", "--unset", "prot").returncode == 0
    assert said(home) == {"host": "localhost"}


def test_passwords_are_not_shown(home: Path) -> None:
    url = "redis://user:s3cr@t@host:6379/0"
    write(home, f"redis_url = '{url}'\n")
    assert masked(url) == "redis://***@host:6379/0"
    assert shown(home)["settings"]["redis_url"] == masked(url)
    assert b"s3cr" not in wowevent(home, "configure", "--show").stdout
    write(home, f"url = '{url}'\nport = 'x'\n")
    assert b"s3cr" not in wowevent(home, "history").stderr


@pytest.mark.parametrize(
    ("url", "masked_as"),
    [
        ("redis://:hun/ter@h:6379/0", "redis://***@h:6379/0"),
        ("amqp://u:hun?t#er@h/v", "amqp://***@h/v"),
        ("nats://hun@ter@h", "nats://***@h"),
        ("nats://u:hun\nter@h", "nats://***@h"),
        ("u:hunter@h", "***@h"),
        ("redis://h?password=hunter&db=0", "redis://h?password=***&db=0"),
        ("rediss://h?db=0&ssl_password=hun/ter", "rediss://h?db=0&ssl_password=***"),
        ("cannot reach redis://:hun/ter@h: refused", "cannot reach redis://***@h: refused"),
        ("sqlite:////data/a@b.db", "sqlite:////data/a@b.db"),
        ("memory://a@b", "memory://a@b"),
        ("redis://h:6379/0", "redis://h:6379/0"),
    ],
)
def test_a_url_that_is_written_wrongly_shows_no_password_either(url: str, masked_as: str) -> None:
    assert masked(url) == masked_as


# --- the dialogue ---------------------------------------------------------------------------------------------------


def test_a_dialogue(home: Path) -> None:
    write(home, "http_port = 8181\nmax_body = 5000\n")
    with Terminal(home, "configure") as terminal:
        terminal.answer("[embedded log]: ", "gopher://x")
        terminal.answer("[embedded log]: ", "memory://")
        terminal.answer("[127.0.0.1]: ", "")
        terminal.answer("[9090]: ", "many")
        terminal.answer("[9090]: ", "8181")
        terminal.answer("[9090]: ", "9191")
        terminal.answer("[8181]: ", "")
        terminal.answer("[INFO]: ", "loud")
        terminal.answer("[INFO]: ", "warning")
        terminal.answer("[default]: ", "a b")
        terminal.answer("[default]: ", "staging")
        code, seen = terminal.end()
    assert code == 0
    for problem in (
        "gopher",
        "valid integer",
        "both 8181",
        "is not a log level",
        "is not a name",
        f"wrote {file_of(home)}",
    ):
        assert problem in seen
    assert said(home) == {
        "http_port": 8181, "max_body": 5000, "url": "memory://", "port": 9191, "log_level": "warning",
        "namespace": "staging",
    }  # fmt: skip


def test_a_dialogue_about_a_host_that_others_reach(home: Path) -> None:
    write(home, "url = 'memory://'\n")
    with Terminal(home, "configure") as terminal:
        terminal.answer("[memory://]: ", "-")
        terminal.answer("[127.0.0.1]: ", "0.0.0.0")
        terminal.answer("[y/N]: ", "y")
        for _ in range(4):
            terminal.answer("]: ", "")
        assert terminal.end()[0] == 0
    assert said(home) == {"host": "0.0.0.0", "allow_anonymous": True}


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_a_dialogue_that_is_left_changes_nothing(home: Path, key: str) -> None:
    with Terminal(home, "configure") as terminal:
        terminal.answer("[embedded log]: ", "memory://")
        terminal.wait_for("[127.0.0.1]: ")
        terminal.leave(key)
        assert terminal.end()[0] == 130
    assert not file_of(home).exists()
