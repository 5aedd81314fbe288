"""`wowevent trace`: the tree of a conversation, for people and for programs."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cli.broken import EVIL, URL, broken, obeys, said
from tests.processes import wowevent
from wowevent import Event, EventBus, RetryPolicy
from wowevent.cli.trace import _drawn
from wowevent.conversation import Step


async def _told(file: Path) -> str:
    """A conversation with a fan-out, a failure and an orphan; its root."""
    async with EventBus(f"sqlite:///{file}") as bus:

        async def plan(event: Event) -> None:
            for n in range(2):
                await bus.publish(Event(topic="task.made", payload={"n": n}, source_agent="planner"))

        async def work(event: Event) -> None:
            if event.payload["n"]:
                raise ConnectionError(f"no answer {EVIL} [red] :boom:")
            await bus.publish(Event(topic="task.done", event_type="done", source_agent="worker", target="boss"))

        await bus.subscribe("plan.made", plan, "planner")
        await bus.subscribe("task.made", work, "worker", retry=RetryPolicy(max_retries=1, initial=0))
        root = Event(topic="plan.made", source_agent="boss")
        await bus.publish(root)
        await bus.join(10)
        await bus.publish(Event(topic="stray", correlation_id=root.event_id, parent_event_id="gone"))
    return root.event_id


@pytest.fixture
def root(tmp_path: Path) -> str:
    return asyncio.run(_told(tmp_path / "broken.db"))


def test_the_tree_for_a_person(tmp_path: Path, root: str) -> None:
    done = wowevent(tmp_path, "trace", root, *URL)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert re.match(rf"conversation {root}  \d{{4}}-\d\d-\d\d ", lines[0])
    assert lines[1] == f"plan.made boss  {root}"
    shapes = [
        r"├─ task\.made planner  \+\d+ ms  [0-9a-f-]{36}",
        r"│  └─ task\.done \(done\) worker → boss  \+\d+ ms  [0-9a-f-]{36}",
        r"├─ task\.made planner  \+\d+ ms  [0-9a-f-]{36}",
        r"│     ✗ worker~task\.made: handler_error after 2 attempts, .*: ConnectionError: no answer .* \[red\] :boom:",
        r"└─ stray  orphan of gone  [0-9a-f-]{36}",
        r"5 events, 3 agents, \d+ ms from first to last, 1 failure, 1 orphan",
    ]
    for line, shape in zip(lines[2:], shapes, strict=True):
        assert re.fullmatch(shape, line), line
    assert not obeys(done.stdout)


def test_the_tree_for_a_program_by_any_id(tmp_path: Path, root: str) -> None:
    (found,) = said(tmp_path, "trace", root)
    assert (found["id"], found["agents"], found["failures"]) == (root, ["boss", "planner", "worker"], 1)
    assert [(step["depth"], step["topic"]) for step in found["steps"]] == [
        (0, "plan.made"), (1, "task.made"), (2, "task.done"), (1, "task.made"), (1, "stray"),
    ]  # fmt: skip
    assert said(tmp_path, "trace", found["steps"][2]["event_id"]) == [found]
    (some,) = said(tmp_path, "trace", root, "--limit", "2")
    assert (len(some["steps"]), some["failures"], some["more"]) == (2, 0, True)


def test_a_limit_is_said(tmp_path: Path, root: str) -> None:
    assert b"there is more than these 1" in wowevent(tmp_path, "trace", root, "-n", "1", *URL).stderr


@pytest.mark.parametrize(
    ("id", "status", "code"), [("job-9", 69, "conversation_not_found"), ("a b", 65, "invalid_event")]
)
def test_what_is_not_there(tmp_path: Path, id: str, status: int, code: str) -> None:
    done = wowevent(tmp_path, "trace", id)
    assert (done.returncode, done.stderr.decode().partition(":")[0]) == (status, f"error[{code}]")


def test_what_came_with_an_event_is_not_obeyed(tmp_path: Path) -> None:
    broken(tmp_path)
    done = wowevent(tmp_path, "trace", "job-1", *URL)
    assert done.returncode == 0
    assert not obeys(done.stdout)
    assert "2 failures" in done.stdout.decode()
    json.loads(wowevent(tmp_path, "trace", "job-1", "--json", *URL).stdout)


def _step(depth: int) -> Step:
    known: dict[str, Any] = dict.fromkeys(Step.__struct_fields__)
    return Step(**known | {"depth": depth, "failures": ()})


def test_what_is_drawn_left_of_each_step() -> None:
    depths = [0, 1, 2, 3, 1, 2, 2, 0, 1]
    drawn = [guide for guide, _, _ in _drawn([_step(depth) for depth in depths])]
    assert drawn == ["", "├─ ", "│  └─ ", "│     └─ ", "└─ ", "   ├─ ", "   └─ ", "", "└─ "]


def test_a_tree_that_is_deeper_than_a_terminal_is_wide() -> None:
    guides = [guide for guide, _, _ in _drawn([_step(depth) for depth in range(1_000)])]
    assert max(map(len, guides)) < 80
    assert guides[-1].endswith("(999) ")
