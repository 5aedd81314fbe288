"""The programs of the pages, each run in a directory of its own; it prints what its page says."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.documents.pages import ROOT, Block, blocks, printed
from tests.documents.shell import wait
from tests.processes import environment

README = blocks("README.md", "python")
(BLOCKING,) = blocks("docs/blocking.md", "python")
RUNS = [*README, BLOCKING]
PATIENCE = 90


@pytest.fixture
def started(tmp_path: Path) -> Iterator[dict[Block, subprocess.Popen[str]]]:
    """All of them side by side; what each prints is in `out.txt`."""
    with ExitStack() as stack:
        processes = {}
        for block in RUNS:
            home = tmp_path / str(block.line) / Path(block.page).stem
            home.mkdir(parents=True)
            (home / "program.py").write_text(block.text)
            out, err = (stack.enter_context((home / name).open("w")) for name in ("out.txt", "err.txt"))
            process = subprocess.Popen(
                [sys.executable, "program.py"], cwd=home, env=environment(home), stdout=out, stderr=err, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes[block] = process
        yield processes


@pytest.mark.timeout(2 * PATIENCE)
def test_a_program_prints_what_its_page_says(started: dict[Block, subprocess.Popen[str]], tmp_path: Path) -> None:
    for block, process in started.items():
        out = tmp_path / str(block.line) / Path(block.page).stem / "out.txt"
        if block is BLOCKING:  # it consumes until Ctrl-C
            wait(lambda out=out, block=block: out.read_text() == printed(block), f"{block}: {printed(block)}")  # type: ignore[misc]  # bound now
            process.send_signal(signal.SIGINT)
        assert (process.wait(PATIENCE), out.read_text()) == (0, printed(block)), str(block)


def test_the_first_program_is_an_example_too() -> None:
    assert (ROOT / "examples" / "quickstart.py").read_text().endswith(README[0].text)
