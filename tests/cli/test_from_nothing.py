"""Commands as people start them: Python and all imports from nothing, by the script and by `python -m wowevent`.

The other tests fork them (see tests/zygote.py), so that whatever a command imports late is there already.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

SCRIPT = (str(Path(sys.executable).with_name("wowevent")),)
MODULE = (sys.executable, "-m", "wowevent")
SERVICE = (sys.executable, "-m", "wowevent.service")


def run(home: Path, *command: str, stdin: str = "", **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=home,
        env=environment(home, **changes),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("wowevent", [SCRIPT, MODULE], ids=["script", "module"])
def test_an_event_there_and_back(tmp_path: Path, wowevent: tuple[str, ...]) -> None:
    done = run(tmp_path, *wowevent, "publish", "a.b", "-", stdin='{"n": 1}\n{"n": 2}\n')
    assert (done.returncode, done.stdout, done.stderr) == (0, "published 2 events\n", "")
    done = run(tmp_path, *wowevent, "history", "--json")
    assert (done.returncode, done.stdout.count('"topic":"a.b"'), done.stderr) == (0, 2, "")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("configure --show", 0),
        ("copy --to sqlite:///there.db", 0),
        ("dlq list", 0),
        ("info --json", 0),
        ("logs", 74),
        ("monitor --once --url ws://127.0.0.1:9", 69),
        ("publish a.b {}", 0),
        ("replay --into b.c --yes", 0),
        ("run nix:bus", 2),
        ("schema list", 0),
        ("serve --host 0.0.0.0", 77),
        ("status", 69),
        ("stop", 0),
        ("subscriptions", 0),
        ("version", 0),
        ("nix", 2),
    ],
)
def test_every_command_has_what_it_needs(tmp_path: Path, arguments: str, status: int) -> None:
    done = run(tmp_path, *SCRIPT, *arguments.split())

    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert "internal_error" not in done.stderr


def test_a_service_that_cannot_serve(tmp_path: Path) -> None:
    done = run(tmp_path, *SERVICE, WOWEVENT_URL="nix://x", PORT="0")

    assert done.returncode == 78
    assert done.stderr.splitlines()[-1].startswith("error[not_supported]: ")


def test_ctrl_c_while_it_waits_for_more(tmp_path: Path) -> None:
    command = (*SCRIPT, "subscribe", "a.*")
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(tmp_path), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
