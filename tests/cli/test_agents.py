"""`wowevent agents`: the table and the objects; a process that ends says goodbye, one that is killed does not."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.cli.broken import URL, said
from tests.processes import end, running, until, wowevent


def test_who_is_there(tmp_path: Path) -> None:
    assert wowevent(tmp_path, "agents", *URL).stdout.split()[:2] == [b"AGENT", b"STATE"]
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--name", "reader", *URL) as process:
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        (reader,) = said(tmp_path, "agents")
        assert (reader["name"], reader["state"]) == ("reader", "online")
        assert [each["pid"] for each in reader["processes"]] == [process.pid]
        assert reader["subscriptions"][0]["patterns"] == ["a.*"]
        lines = wowevent(tmp_path, "agents", *URL).stdout.decode().splitlines()
        assert lines[1].split()[:2] == ["reader", "online"]
        assert lines[1].split()[2] in {f"{seconds}s" for seconds in range(6)}
        assert lines[1].split()[-2:] == ["a.*", "-"]
        assert end(process, signal.SIGTERM) == 0
    (reader,) = said(tmp_path, "agents")
    assert (reader["state"], reader["processes"]) == ("offline", [])


def test_publish_says_who_is_not_served(tmp_path: Path) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*", "--name", "reader", *URL) as process:
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        assert b"unserved" not in wowevent(tmp_path, "publish", "a.b", *URL).stdout
        assert end(process, signal.SIGTERM) == 0
    done = wowevent(tmp_path, "publish", "a.b", *URL)
    assert done.stdout.endswith(b" matched=1 unserved=reader~a.*\n")
