"""`wowevent subscriptions`: the list, and what drops something, which is asked for first."""

import signal
from pathlib import Path

import pytest

from tests.cli.broken import URL, WORKER, broken, said
from tests.cli.terminal import answered
from tests.processes import running, until, wowevent


def ready(home: Path, name: str = "idle") -> int:
    return int(said(home, "info", name)[0]["ready"])


def test_the_list(tmp_path: Path) -> None:
    broken(tmp_path)
    found = said(tmp_path, "subscriptions")

    assert [(each["id"], each["ready"], each["dead"]) for each in found] == [
        ("idle", 5, 0),
        ("worker~log.*", 0, 0),
        (WORKER, 0, 4),
    ]
    assert [each["id"] for each in said(tmp_path, "subscriptions", "list")] == [each["id"] for each in found]
    lines = wowevent(tmp_path, "subscriptions", *URL).stdout.decode().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["SUBSCRIPTION", "STATE", "READY"],
        ["idle", "unserved", "5"],
        ["worker~log.*", "unserved", "0"],
        [WORKER, "unserved", "0"],
    ]


def test_live_ones_are_marked_and_cannot_be_removed(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*", *URL):
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        (live,) = said(tmp_path, "subscriptions")
        assert (live["durable"], live["patterns"], live["consumers"]) == (False, ["a.*"], 1)
        assert wowevent(tmp_path, "subscriptions", *URL).stdout.splitlines()[1].split()[1] == b"live"
        for verb in ("purge", "remove", "pause", "resume"):
            sure = ["--yes"] if verb in {"purge", "remove"} else []
            done = wowevent(tmp_path, "subscriptions", verb, live["id"], *sure, *URL)
            assert done.returncode == 69
            assert b"is live" in done.stderr
        assert len(said(tmp_path, "subscriptions")) == 1


def test_pause_and_resume(tmp_path: Path) -> None:
    broken(tmp_path)

    def paused() -> dict[str, bool]:
        return {each["id"]: each["paused"] for each in said(tmp_path, "subscriptions")}

    assert wowevent(tmp_path, "subscriptions", "pause", "idle", *URL).stdout == b"paused idle\n"
    assert paused() == {"idle": True, "worker~log.*": False, WORKER: False}
    assert wowevent(tmp_path, "subscriptions", *URL).stdout.splitlines()[1].split()[:3] == [b"idle", b"paused", b"5"]
    (info,) = said(tmp_path, "info", "idle")
    assert (info["paused"], info["subscriptions"][0]["paused"], info["ready"]) == (True, True, 5)
    assert said(tmp_path, "info")[0]["paused"] == ["idle"]
    assert b"paused" in wowevent(tmp_path, "info", *URL).stdout
    assert wowevent(tmp_path, "subscriptions", "resume", "idle", *URL).stdout == b"resumed idle\n"
    assert set(paused().values()) == {False}
    assert said(tmp_path, "info")[0]["paused"] == []


def test_an_agent_is_paused_with_all_that_it_has(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "subscriptions", "pause", "worker", *URL)

    assert sorted(done.stdout.decode().splitlines()) == ["paused worker~log.*", f"paused {WORKER}"]
    info = said(tmp_path, "info", "worker")[0]
    assert (info["paused"], [part["paused"] for part in info["subscriptions"]]) == (True, [True, True])
    assert not said(tmp_path, "info", "idle")[0]["paused"]


def test_what_is_paused_is_handled_when_it_is_resumed(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--name", "reader", *URL):
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        assert wowevent(tmp_path, "subscriptions", "pause", "reader", *URL).returncode == 0
        until(lambda: "subscription paused" in (tmp_path / "err.txt").read_text(), "the pause")
        assert wowevent(tmp_path, "publish", "a.b", *URL).returncode == 0
        assert ready(tmp_path, "reader") == 1
        assert wowevent(tmp_path, "subscriptions", "resume", "reader", *URL).returncode == 0
        until(lambda: "a.b" in (tmp_path / "out.txt").read_text(), "the event")


@pytest.mark.parametrize("verb", ["purge", "remove"])
def test_nothing_is_dropped_without_a_yes(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "subscriptions", verb, "idle", *URL, stdin=b"y\n")

    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error[usage]: ")
    assert b"5 events" in done.stderr
    assert b"--yes" in done.stderr
    assert ready(tmp_path) == 5


def test_purge(tmp_path: Path) -> None:
    broken(tmp_path)
    assert wowevent(tmp_path, "subscriptions", "purge", "idle", "--yes", *URL).stdout == b"purged 5 events\n"
    assert wowevent(tmp_path, "subscriptions", "purge", "worker", "--yes", *URL).stdout == b"purged 0 events\n"
    assert ready(tmp_path) == 0
    assert len(said(tmp_path, "dlq", "list")) == 4


def test_remove_an_agent(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "subscriptions", "remove", "worker", "--yes", *URL)

    assert sorted(done.stdout.decode().splitlines()) == ["removed worker~log.*", f"removed {WORKER}"]
    assert [each["id"] for each in said(tmp_path, "subscriptions")] == ["idle"]
    assert said(tmp_path, "dlq", "list") == []


def test_a_person_is_asked(tmp_path: Path) -> None:
    broken(tmp_path)
    status, out, seen = answered(tmp_path, "subscriptions", "remove", WORKER, *URL, answer=b"no\n")
    assert (status, out) == (1, b"")
    assert "0 events and 4 dead letters. Go on? [y/N]" in seen
    assert "error[declined]: nothing was changed" in seen
    assert answered(tmp_path, "subscriptions", "purge", "idle", *URL, answer=b"\n")[0] == 1
    assert answered(tmp_path, "subscriptions", "purge", "idle", *URL, answer=signal.SIGINT)[0] == 130
    assert ready(tmp_path) == 5

    status, out, seen = answered(tmp_path, "subscriptions", "purge", "idle", *URL, answer=b"y\n")
    assert (status, out) == (0, b"purged 5 events\n")
    assert "5 events that idle has not handled will be dropped" in seen
    assert ready(tmp_path) == 0


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("purge", "nix", "--yes"), 69),
        (("remove", "nix", "--yes"), 69),
        (("purge", "nix"), 69),
        (("pause", "nix"), 69),
        (("resume", "nix"), 69),
        (("pause",), 2),
        (("purge",), 2),
        (("nix",), 2),
        (("--json", "purge", "idle"), 2),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int) -> None:
    done = wowevent(tmp_path, "subscriptions", *arguments, *URL)

    assert done.returncode == status
    assert done.stderr.startswith(b"error[")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("verb", ["purge", "remove"])
def test_no_name_is_nobodys_and_not_all_that_have_no_agent(tmp_path: Path, verb: str) -> None:
    broken(tmp_path)
    for name in ("", "nix"):
        done = wowevent(tmp_path, "subscriptions", verb, name, "--yes", *URL)
        assert (done.returncode, done.stdout) == (69, b"")
        assert done.stderr == f"error[subscription_not_found]: no subscription or agent '{name}' is known\n".encode()
    assert ready(tmp_path) == 5
