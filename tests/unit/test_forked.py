"""Commands that tests fork: each is a process of its own, as one that was started from nothing would be."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.forked import Forks
from tests.processes import environment, running, start, until, wowevent

ROOT = Path(__file__).parents[2]
# What `python -m` runs in these tests: a module of their own, next to which a command starts.
TELLS = """
import json, os, random, sys, uuid
from wowevent.id import new_id

if __name__ == "__main__":
    said = sys.stdin.read()
    told = {
        "pid": os.getpid(), "parent": os.getppid(), "cwd": os.getcwd(), "path": sys.path[0], "home": os.environ["HOME"],
        "argv": sys.argv[1:], "session": os.getsid(0), "said": said, "id": new_id(), "random": random.random(),
        "open": sorted(int(name) for name in os.listdir("/proc/self/fd")), "own": os.environ.get("WOWEVENT_URL"),
    }
    print(json.dumps(told))
    print("to stderr", file=sys.stderr)
    sys.exit(3)
"""
ENDS = """
import os, signal
from tests.processes import wowevent
from pathlib import Path

wowevent(Path.cwd(), "version")
os.kill(os.getpid(), signal.SIGKILL)
"""


def told(home: Path, *arguments: str, stdin: bytes = b"", **changes: str) -> dict[str, object]:
    """What a fork that runs TELLS says of itself."""
    import json

    (home / "tells.py").write_text(TELLS)
    (home / "in").write_bytes(stdin)
    with (home / "in").open("rb") as read, (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        files = (read.fileno(), out.fileno(), err.fileno())
        process = start(("tells", *arguments), home, environment(home, **changes), files)
        assert process.wait(20) == 3
    assert (home / "err").read_text() == "to stderr\n"
    found: dict[str, object] = json.loads((home / "out").read_bytes())
    assert found["pid"] == process.pid
    return found


def test_it_has_what_it_was_given_and_nothing_else(tmp_path: Path) -> None:
    one = told(tmp_path, "a", "", "\udcff", stdin=b"hello", WOWEVENT_URL="memory://")

    assert (one["argv"], one["said"], one["own"]) == (["a", "", "\udcff"], "hello", "memory://")
    assert (one["cwd"], one["path"], one["home"]) == (str(tmp_path),) * 3
    assert one["session"] == os.getsid(0)
    assert one["parent"] != os.getpid()
    assert one["open"] == [0, 1, 2, 3]  # the last is that of the look
    assert told(tmp_path)["own"] is None


def test_two_of_them_share_no_luck(tmp_path: Path) -> None:
    one, other = told(tmp_path), told(tmp_path)

    assert one["id"] != other["id"]
    assert one["random"] != other["random"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_signal_ends_it(tmp_path: Path, number: int) -> None:
    with running(tmp_path, "wowevent", "subscribe", "a.*") as process:
        until(lambda: "listening" in (tmp_path / "err.txt").read_text(), "listening")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) in {-signal.SIGKILL, 0}
        process.send_signal(number)  # to nobody
        assert not psutil.pid_exists(process.pid)


def test_one_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        wowevent(tmp_path, "subscribe", "a.*", timeout=0.5)
    assert time.monotonic() - began < 5


def test_what_an_interpreter_reads_at_its_start_wants_another_one(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import os\nos._exit(7)\n")

    assert wowevent(tmp_path, "version", PYTHONPATH=str(tmp_path)).returncode == 7
    assert not Forks().can(environment(tmp_path, TZ="Asia/Tokyo"))
    assert Forks().can(environment(tmp_path, WOWEVENT_URL="memory://"))


def test_what_forks_them_ends_with_the_tests_also_if_they_are_killed(tmp_path: Path) -> None:
    env = environment(tmp_path, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    env["WOWEVENT_ZYGOTE"] = str(tmp_path)

    def there() -> list[psutil.Process]:
        marked = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("WOWEVENT_ZYGOTE") == str(tmp_path) and process.is_running():
                    marked.append(process)
            except psutil.Error:
                continue
        return marked

    with subprocess.Popen([sys.executable, "-c", ENDS], cwd=tmp_path, env=env) as process:
        until(there, "the processes")
        assert process.wait(30) == -signal.SIGKILL
    until(lambda: not there(), "their end")
