"""Every example as a user runs it: a process of its own, in a directory of its own, its output checked."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import environment

ROOT = Path(__file__).parents[2]


def run(home: Path, script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(
        command, cwd=home, env=environment(home), capture_output=True, text=True, timeout=50, check=False
    )


OUTPUT = {
    "quickstart.py": [
        "dead 2 after 3 attempts: ConnectionError: the model does not answer",
        "done [1, 2, 3]",
    ],
    "request_reply.py": [
        "reply: {'mean': 3.0}",
        "failed: ZeroDivisionError: division by zero",
        "timed out",
        "nobody answers that",
    ],
    "typed_handlers.py": [
        "audit: shop ordered lamp, attempt 1",
        "refused by audit: validation_error: validation: order.placed: count: Input should be greater than 0",
        "refused by stock: validation_error: validation: order.placed: count: Input should be greater than 0",
        "stock: 2 x lamp",
    ],
}


@pytest.mark.parametrize("name", OUTPUT)
def test_an_example_says_what_it_should(tmp_path: Path, name: str) -> None:
    done = run(tmp_path, ROOT / "examples" / name)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert (sorted(lines) if name == "typed_handlers.py" else lines) == OUTPUT[name]  # agents work side by side


def test_every_example_is_tested() -> None:
    assert {file.name for file in (ROOT / "examples").glob("*.py")} == {*OUTPUT, "git_history.py"}


# --- README -------------------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


def test_the_code_of_the_readme_prints_what_the_readme_says(tmp_path: Path) -> None:
    (code,) = blocks("python")
    (printed,) = blocks("text")
    (tmp_path / "readme.py").write_text(code)
    done = run(tmp_path, tmp_path / "readme.py")

    assert (done.returncode, done.stdout) == (0, printed), done.stderr
    assert (ROOT / "examples" / "quickstart.py").read_text().endswith(code)


def test_the_readme_links_to_what_is_there() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "README.md").read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


# --- the demo -----------------------------------------------------------------------------------------------------


def repository(home: Path, commits: int) -> Path:
    """A repository of so many commits in a line, each of two files, and a merge on top of more than one."""
    where = home / "repository"
    subprocess.run(["git", "init", "--quiet", str(where)], check=True, env=environment(home))
    stream: list[str] = []

    def commit(mark: int, parents: str) -> None:
        who = f"Agent {mark % 3} <agent@example.org> {1_600_000_000 + mark} +0000"
        stream.append(
            f"commit HEAD\nmark :{mark}\nauthor {who}\ncommitter {who}\ndata <<EOT\nchange {mark} “é”\nEOT\n{parents}"
        )
        stream.extend(f'M 100644 inline "folder/a\\tb {number}"\ndata <<EOT\n{mark}\nEOT\n' for number in range(2))
        stream.append("\n")

    for mark in range(1, commits + 1):
        commit(mark, f"from :{mark - 1}\n" if mark > 1 else "")
    if commits > 1:
        commit(commits + 1, f"from :{commits}\nmerge :{commits - 1}\n")
    importing = ["git", "-C", str(where), "fast-import", "--quiet"]
    subprocess.run(importing, input="".join(stream).encode(), check=True, env=environment(home))
    return where


@pytest.mark.parametrize(
    ("commits", "lines"),
    [
        (
            1,
            [
                "0 handled at once + 0 after a retry + 1 dead letters",
                "1 dead letters sent again and handled; 0 are left",
            ],
        ),
        (
            300,
            [
                "264 handled at once + 30 after a retry + 7 dead letters",
                "7 dead letters sent again and handled; 0 are left",
            ],
        ),
    ],
)
def test_the_demo_adds_up(tmp_path: Path, commits: int, lines: list[str]) -> None:
    where = repository(tmp_path, commits)
    for _ in range(2):  # in the same directory again, as if it were the first time
        done = run(tmp_path, ROOT / "examples" / "git_history.py", str(where), "--directory", str(tmp_path / "log"))
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-3] == "all numbers add up"
        for line in lines:
            assert line in done.stdout
    changes = (tmp_path / "log" / "CHANGES.txt").read_text().splitlines()
    assert len(changes) == (commits + 1 if commits > 1 else 1)
    assert "change 1 “é” (Agent 1)" in changes[0]


@pytest.mark.parametrize("where", ["nowhere", "empty"])
def test_the_demo_without_a_history(tmp_path: Path, where: str) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "empty")], check=True, env=environment(tmp_path))
    done = run(tmp_path, ROOT / "examples" / "git_history.py", str(tmp_path / where))

    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
