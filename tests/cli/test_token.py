"""`wowevent token`, and a service that asks for what it makes: alone, with workers, in the background, over TLS."""

import fcntl
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from tests.cli.daemons import PORTS, data, started, status
from tests.processes import address, end, environment, running, until, wowevent
from wowevent.cli.private import write_private

SECRET = re.compile(r"wow_[0-9a-f]{12}_[A-Za-z0-9_-]{43}")


def created(home: Path, name: str, *options: str, **changes: Any) -> str:
    """The secret of a new token; nothing else is on stdout."""
    done = wowevent(home, "token", "create", name, *options, **changes)
    assert done.returncode == 0, done.stderr
    secret = done.stdout.decode().strip()
    assert SECRET.fullmatch(secret)
    assert secret.encode() not in done.stderr
    return secret


def listed(home: Path, *options: str, **changes: Any) -> list[dict[str, Any]]:
    done = wowevent(home, "token", "list", "--json", *options, **changes)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def refused(url: str, secret: str) -> bool:
    return httpx.get(f"{url}/events", headers=bearer(secret)).status_code == 401


def test_from_create_to_revoke(home: Path) -> None:
    options = (
        "--publish",
        "task.*",
        "--publish",
        "log",
        "--subscribe",
        "#",
        "--dead-letters",
        "task.*",
        "--expires",
        "30d",
    )
    secret = created(home, "worker-1", *options, "--events", "100/s", "--clients", "3")
    other = created(home, "ops", "--admin", "--namespace", "prod")
    file = data(home) / "tokens.json"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for text in (file.read_text(), wowevent(home, "token", "list").stdout.decode(), str(listed(home))):
        assert not SECRET.search(text)
        assert secret[-43:] not in text
        assert other[-43:] not in text
    worker, ops = listed(home)
    assert worker["name"] == "worker-1"
    assert worker["grants"] == {"publish": ["task.*", "log"], "subscribe": ["#"], "dead_letters": ["task.*"]}
    assert worker["limits"] == {"events": "100/s", "clients": 3}
    assert worker["namespace"] == "default", "a token is for one namespace, unless its file was written by hand"
    assert 29.9 < (worker["expires"] - time.time()) / 86_400 <= 30
    assert (ops["grants"], ops["namespace"]) == ({"admin": ["#"]}, "prod")
    assert "sha256" not in worker

    assert wowevent(home, "token", "revoke", worker["id"]).stdout == f"revoked {worker['id']}\n".encode()
    assert wowevent(home, "token", "revoke", "j-1", "--jwt").returncode == 0
    assert [each["state"] for each in listed(home)] == ["revoked", "valid"]
    assert json.loads(file.read_bytes())["revoked_jwts"] == ["j-1"]
    gone = wowevent(home, "token", "revoke", "000000000000")
    assert (gone.returncode, gone.stderr[:24]) == (69, b"error[token_not_found]: ")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("a b",), 65),
        (("a", "--publish", "task*"), 78),
        (("a", "--publish", ""), 78),
        (("a", "--expires", "soon"), 2),
        (("a", "--expires", "0d"), 2),
        (("a", "--events", "many"), 78),
        (("a", "--clients", "0"), 2),
        (("a", "--namespace", "a b"), 65),
        ((), 2),
    ],
)
def test_what_no_token_can_be(home: Path, arguments: tuple[str, ...], status: int) -> None:
    done = wowevent(home, "token", "create", *arguments)

    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    assert not (data(home) / "tokens.json").exists()


def test_a_file_that_is_damaged_is_left_alone(home: Path) -> None:
    file = home / "mine.json"
    file.write_text('{"version": 2}')
    for arguments in (("create", "a"), ("list",), ("revoke", "000000000000")):
        done = wowevent(home, "token", *arguments, "--tokens", "mine.json")
        assert (done.returncode, done.stderr[:15]) == (78, b"error[config]: ")
        assert b"mine.json" in done.stderr
    assert file.read_text() == '{"version": 2}'
    inline = wowevent(home, "token", "list", WOWEVENT_TOKENS="{}")
    assert inline.returncode == 2


def test_several_at_once_lose_nothing(home: Path) -> None:
    command = [sys.executable, "-m", "wowevent", "token", "create"]
    processes = [
        subprocess.Popen(
            [*command, f"agent-{n}"], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        for n in range(4)
    ]
    assert [process.wait(30) for process in processes] == [0] * 4
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    assert {each["name"] for each in listed(home)} == {f"agent-{n}" for n in range(4)}


def test_who_comes_by_a_link_waits_for_who_does_not(home: Path) -> None:
    (home / "real").mkdir()
    (home / "link.json").symlink_to(home / "real" / "tokens.json")
    created(home, "first", "--tokens", "link.json")
    assert (home / "link.json").is_symlink()
    folder = os.open(home / "real", os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    with pytest.raises(subprocess.TimeoutExpired):
        wowevent(home, "token", "create", "second", "--tokens", "link.json", timeout=3)
    os.close(folder)
    assert [each["name"] for each in listed(home, "--tokens", "real/tokens.json")] == ["first"]


def test_nobody_can_lay_a_link_in_the_way_of_a_private_file(tmp_path: Path) -> None:
    victim, file = tmp_path / "victim", tmp_path / "tokens.json"
    victim.write_text("kept")
    (tmp_path / f".tokens.json.{os.getpid()}").symlink_to(victim)
    write_private(file, b"new")
    assert victim.read_text() == "kept"
    assert not file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(("before", "after"), [(0o600, 0o600), (0o640, 0o640), (0o666, 0o640), (0o604, 0o600)])
def test_a_private_file_stays_readable_for_its_group_at_most(tmp_path: Path, before: int, after: int) -> None:
    file = tmp_path / "tokens.json"
    file.write_text("old")
    file.chmod(before)
    write_private(file, b"new")
    assert stat.S_IMODE(file.stat().st_mode) == after


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_private_file_stays_whose_it_is(tmp_path: Path) -> None:
    """Else a service of another user could not read what root revoked, and would go on by what it knew."""
    file = tmp_path / "tokens.json"
    file.write_text("old")
    os.chown(file, 65_532, 65_533)
    write_private(file, b"new")
    assert (file.stat().st_uid, file.stat().st_gid) == (65_532, 65_533)


def test_a_service_asks_and_a_revoked_token_is_out_within_two_seconds(home: Path) -> None:
    secret = created(home, "worker", "--publish", "#", "--replay", "#", "--tokens", "t.json")
    with running(home, "wowevent", "serve", *PORTS, "--tokens", "t.json", "--workers", "2") as process:
        url = address(home)
        assert httpx.get(f"{url}/events").status_code == 401
        until((data(home) / "wowevent.pid").exists, "the record")
        workers = json.loads((data(home) / "wowevent.pid").read_bytes())["workers"]
        for worker in workers:
            assert httpx.post(f"{worker['http']}/events", json={"topic": "a"}).status_code == 401
            answer = httpx.post(f"{worker['http']}/events", json={"topic": "a"}, headers=bearer(secret))
            assert answer.status_code == 202
            assert httpx.get(f"{worker['http']}/live").status_code == 200
        events = httpx.get(f"{url}/events", headers=bearer(secret)).json()["events"]
        assert [each["event"]["source_agent"] for each in events] == ["worker"] * 2

        wowevent(home, "token", "revoke", listed(home, "--tokens", "t.json")[0]["id"], "--tokens", "t.json")
        began = time.monotonic()
        for worker in workers:
            until(partial(refused, worker["http"], secret), "the refusal")
        assert time.monotonic() - began < 5, "2 s where nothing else runs"
        assert end(process) == 0
    (log,) = home.rglob("wowevent.log")
    assert " audit action=" in log.read_text()
    for said in (log, home / "out.txt", home / "err.txt"):
        assert secret not in said.read_text()
        assert secret[-43:] not in said.read_text()


def test_workers_that_start_later_protect_no_less(home: Path) -> None:
    """The configuration has changed meanwhile; their sockets are there already, and nobody would ask again."""
    created(home, "worker", "--tokens", "t.json")
    own = trustme.CA().issue_cert("127.0.0.1")
    own.private_key_pem.write_to_path(home / "key.pem")
    own.cert_chain_pems[0].write_to_path(home / "cert.pem")
    config, guarded, tls = home / "config.toml", 'tokens = "t.json"\n', 'tls_cert = "cert.pem"\ntls_key = "key.pem"\n'
    config.write_text(guarded + tls)
    with running(
        home, "wowevent", "serve", *PORTS, "--workers", "2", "--host", "0.0.0.0", WOWEVENT_CONFIG=str(config)
    ) as process:
        until((data(home) / "wowevent.pid").exists, "the record")
        url = json.loads((data(home) / "wowevent.pid").read_bytes())["http"]
        for left, why in ((tls, "names no tokens any more"), (guarded, "changed its mind about TLS")):
            config.write_text(left)
            process.send_signal(signal.SIGHUP)
            until(lambda why=why: why in (home / "err.txt").read_text(), "the refusal")  # type: ignore[misc]  # bound
            assert httpx.get(f"{url}/events", verify=False).status_code == 401  # noqa: S501 - the test's own
        assert end(process) == 0


def test_others_are_let_in_with_tokens(home: Path) -> None:
    created(home, "worker")
    file = str(data(home) / "tokens.json")
    with running(
        home, "wowevent", "serve", *PORTS, "--host", "0.0.0.0", "--tokens", file, WOWEVENT_HOSTS='["bus.example"]'
    ) as process:
        url = address(home)
        assert httpx.get(f"{url}/metrics").status_code == 401
        assert httpx.get(f"{url}/metrics", headers={"host": "evil.example"}).status_code == 403
        assert httpx.get(f"{url}/metrics", headers={"host": "bus.example"}).status_code == 401
        assert end(process) == 0


@pytest.mark.parametrize(
    ("options", "changes", "named"),
    [
        (("--tokens", "absent.json"), {}, b"absent.json"),
        (("--tls-cert", "absent.pem"), {}, b"tls_key"),
        (("--tls-cert", "absent.pem", "--tls-key", "absent.pem"), {}, b"absent.pem"),
        ((), {"WOWEVENT_JWT_KEYS": '{"keys": []}'}, b"jwt_audience"),
        ((), {"WOWEVENT_JWT_KEYS": '{"keys": []}', "WOWEVENT_JWT_AUDIENCE": "a"}, b"jwt_keys: no key in it"),
        ((), {"WOWEVENT_TOKENS": '{"version": 3}'}, b"tokens: version 3"),
    ],
)
@pytest.mark.parametrize("module", ["wowevent", "wowevent.service"])
def test_what_keeps_it_from_serving(
    home: Path, options: tuple[str, ...], changes: dict[str, Any], named: bytes, module: str
) -> None:
    if module == "wowevent":
        done = wowevent(home, "serve", *PORTS, *options, **changes)
        code, said = done.returncode, done.stderr
    else:
        names = {"--tokens": "WOWEVENT_TOKENS", "--tls-cert": "WOWEVENT_TLS_CERT", "--tls-key": "WOWEVENT_TLS_KEY"}
        given = {names[flag]: value for flag, value in zip(options[::2], options[1::2], strict=True)}
        with running(home, module, PORT="0", **given, **changes) as process:
            code = process.wait(20)
        said = (home / "err.txt").read_bytes()
    assert code == 78
    assert said.splitlines()[-1].startswith(b"error[config]: ")
    assert named in said.splitlines()[-1]


def test_in_the_background_over_tls(home: Path) -> None:
    """Paths are those of where it was started, also after a restart from elsewhere."""
    ca = trustme.CA()
    own = ca.issue_cert("127.0.0.1", "localhost")
    own.private_key_pem.write_to_path(home / "key.pem")
    own.cert_chain_pems[0].write_to_path(home / "cert.pem")
    secret = created(home, "worker", "--replay", "#", "--tokens", "t.json")
    options = ("--tls-cert", "cert.pem", "--tls-key", "key.pem", "--tokens", "t.json")
    said = started(home, *options, "--workers", "2")
    assert said["http"].startswith("https://")
    assert said["websocket"].startswith("wss://")
    code, answer = status(home)
    assert (code, answer["state"]) == (0, "running"), answer
    assert [each["status"] for each in answer["health"]["workers"]] == ["healthy", "healthy"]
    trusting = ssl.create_default_context()
    ca.configure_trust(trusting)
    assert httpx.get(f"{said['http']}/events", headers=bearer(secret), verify=trusting).status_code == 200
    with socket.create_connection(("127.0.0.1", int(said["http"].rpartition(":")[2])), timeout=5) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert b"200" not in plain.recv(1000)
    again = wowevent(home, "restart", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["http"].startswith("https://")
    assert status(home)[0] == 0
    assert wowevent(home, "stop").returncode == 0


def test_configuring_shows_no_secret(home: Path) -> None:
    secret = f"wow_{'0' * 12}_{'A' * 43}"
    keys = '{"keys": [{"k": "c2VjcmV0"}]}'
    done = wowevent(
        home, "configure", "--set", f"token={secret}", "--set", f"jwt_keys={keys}", "--set", "jwt_audience=us"
    )
    assert done.returncode == 0, done.stderr
    assert wowevent(home, "configure", "--set", "host=0.0.0.0").returncode == 0, "who comes is asked for a token"
    for arguments in (("configure", "--show"), ("configure", "--show", "--json")):
        shown = wowevent(home, *arguments).stdout
        assert b"jwt_audience" in shown
        assert secret.encode() not in shown
        assert b"c2VjcmV0" not in shown
    assert wowevent(home, "configure", "--unset", "jwt_keys").returncode == 77
    (file,) = home.rglob("config.toml")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
