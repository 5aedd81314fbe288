"""`wowevent info`: the numbers of the engine, of a subscription and of an agent."""

from pathlib import Path

from tests.cli.broken import URL, WORKER, broken, obeys, said
from tests.processes import running, until, wowevent


def test_the_engine(tmp_path: Path) -> None:
    broken(tmp_path)
    (engine,) = said(tmp_path, "info")

    wanted = {
        "engine": "sqlite", "namespace": "default", "durable": True, "shared": True, "url": "sqlite:///broken.db",
        "subscriptions": 3, "served": 0, "live": 0, "ready": 5, "leased": 0, "delayed": 0, "dead": 4, "lapsed": [],
    }  # fmt: skip
    assert wanted.items() <= engine.items()
    assert engine["position"].endswith("-5")
    shown = wowevent(tmp_path, "info", *URL).stdout.decode()
    assert engine["promise"] in shown
    assert engine["position"] in shown


def test_a_subscription(tmp_path: Path) -> None:
    broken(tmp_path)
    (info,) = said(tmp_path, "info", "idle")

    assert info["name"] == "idle"
    assert (info["ready"], info["dead"], info["consumers"], info["lost"], info["lapsed"]) == (5, 0, 0, 0, False)
    assert 0 < info["oldest"] < 60
    (part,) = info["subscriptions"]
    assert (part["id"], part["patterns"], part["filter"]) == ("idle", ["task.*"], None)


def test_an_agent_of_several_is_summed(tmp_path: Path) -> None:
    broken(tmp_path)
    (info,) = said(tmp_path, "info", "worker")

    assert (info["ready"], info["dead"], info["oldest"]) == (0, 4, None)
    assert {part["id"]: part["dead"] for part in info["subscriptions"]} == {WORKER: 4, "worker~log.*": 0}
    assert info["subscriptions"][1]["filter"]["priorities"] == [7, 8]


def test_a_filter_cannot_steer_the_terminal(tmp_path: Path) -> None:
    broken(tmp_path)
    shown = wowevent(tmp_path, "info", "worker", *URL).stdout

    assert not obeys(shown)
    assert rb"types log \x1b[31m" in shown


def test_one_that_is_served(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--name", "reader", *URL):
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        assert said(tmp_path, "info", "reader")[0]["consumers"] == 1
        assert said(tmp_path, "info")[0]["served"] == 1
        assert b"served" in wowevent(tmp_path, "info", "reader", *URL).stdout


def test_one_that_is_unknown(tmp_path: Path) -> None:
    for name in ("nix", "", "\x1b[31m", "\udcff"):
        done = wowevent(tmp_path, "info", name, *URL)
        assert (done.returncode, done.stdout) == (69, b"")
        assert done.stderr.startswith(b"error[subscription_not_found]: ")
        assert not obeys(done.stderr)


def test_an_engine_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "broken.db").write_bytes(b"this is no database" * 100)
    done = wowevent(tmp_path, "info", *URL)

    assert done.returncode == 74
    assert done.stderr.startswith(b"error[storage_damaged]: ")
