"""`wowevent schema`: what is registered holds for all that use the log; files are checked before anything is done."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.broken import EVIL, URL, obeys
from tests.cli.terminal import answered
from tests.processes import wowevent

NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}}
INTEGER = {"type": "object", "properties": {"a": {"type": "integer"}}}


def write(home: Path, name: str, content: Any) -> str:
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return name


def fields(json_schema: Any, version: str = "1.0.0", **more: Any) -> dict[str, Any]:
    return {"event_type": "task.created", "version": version, "json_schema": json_schema, "description": "", **more}


def schema(home: Path, *arguments: str) -> tuple[int, str, str]:
    done = wowevent(home, "schema", *arguments, *(() if arguments[0] == "diff" else URL))
    assert "--json" in arguments or not obeys(done.stdout)
    assert not obeys(done.stderr)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def listed(home: Path, *arguments: str) -> list[dict[str, Any]]:
    status, out, _ = schema(home, "list", *arguments, "--json")
    assert status == 0
    return [json.loads(line) for line in out.splitlines()]


def test_files_and_folders_are_registered_and_hold_for_every_publish(tmp_path: Path) -> None:
    write(tmp_path, "all/task.created@2.0.0.json", {"required": ["title"]})
    write(tmp_path, "all/one.json", fields(NUMBER, description=EVIL))

    assert schema(tmp_path, "register", "all") == (
        0,
        "registered task.created 1.0.0\nregistered task.created 2.0.0\n",
        "",
    )
    assert schema(tmp_path, "register", "all")[0] == 0, "the same twice is once"
    assert (
        listed(tmp_path)
        == listed(tmp_path, "task.created")
        == [
            fields(NUMBER, description=EVIL),
            fields({"required": ["title"]}, "2.0.0"),
        ]
    )
    assert listed(tmp_path, "nix") == []
    status, out, _ = schema(tmp_path, "list")
    assert (status, len(out.splitlines())) == (0, 3)


def test_one_is_shown(tmp_path: Path) -> None:
    schema(tmp_path, "register", write(tmp_path, "one.json", fields(NUMBER, description=f"a task {EVIL}")))
    schema(tmp_path, "register", write(tmp_path, "two.json", fields(INTEGER, "2.0.0")))

    status, out, _ = schema(tmp_path, "show", "task.created", "--version", "1")
    assert status == 0
    for told in ("task.created 1.0.0", "a task", '"type": "number"'):
        assert told in out
    status, out, _ = schema(tmp_path, "show", "task.created", "--json")
    assert json.loads(out) == fields(INTEGER, "2.0.0")


def test_a_check_says_every_break_by_its_status_too(tmp_path: Path) -> None:
    schema(tmp_path, "register", write(tmp_path, "one.json", fields(NUMBER)))
    two = write(tmp_path, "two.json", fields({**INTEGER, "required": ["b"]}, "2.0.0"))
    status, out, err = schema(tmp_path, "check", two)

    assert status == 65
    assert out.splitlines()[0] == "task.created 2.0.0"
    assert {line.strip() for line in out.splitlines()[1:]} == {
        "payload.a: type was number, is integer",
        "payload.b: required was no, is yes",
    }
    assert err == "error[schema_conflict]: 2 breaks in 1 schema\n"
    status, out, _ = schema(tmp_path, "check", two, "--json")
    assert status == 65
    assert {json.loads(line)["what"] for line in out.splitlines()} == {"type", "required"}
    assert schema(tmp_path, "check", "one.json") == (0, "compatible: 1 schema\n", "")
    assert len(listed(tmp_path)) == 1


def test_a_check_holds_new_versions_against_each_other(tmp_path: Path) -> None:
    write(tmp_path, "new/task.created@1.json", NUMBER)
    write(tmp_path, "new/task.created@2.json", INTEGER)

    assert schema(tmp_path, "check", "new")[0] == 65


def test_backward_registers_all_or_none(tmp_path: Path) -> None:
    write(tmp_path, "new/task.created@1.json", NUMBER)
    write(tmp_path, "new/task.created@2.json", INTEGER)
    status, out, err = schema(tmp_path, "register", "new", "--backward")

    assert (status, out) == (65, "")
    assert err.startswith("error[schema_conflict]: task.created 2 is not backward compatible: payload.a: ")
    assert listed(tmp_path) == []
    assert schema(tmp_path, "register", "new")[0] == 0


def test_another_schema_of_a_version_registers_nothing(tmp_path: Path) -> None:
    schema(tmp_path, "register", write(tmp_path, "one.json", fields(NUMBER)))
    more = write(tmp_path, "more.json", [fields({}, "0.1.0"), fields(INTEGER, "1")])
    status, _, err = schema(tmp_path, "register", more)

    assert (status, err.partition(":")[0]) == (65, "error[schema_conflict]")
    assert listed(tmp_path) == [fields(NUMBER)]


def test_a_diff_needs_no_log(tmp_path: Path) -> None:
    old = write(tmp_path, "old.json", {"properties": {"a": {"type": "number"}, "b": {"type": "integer"}}})
    new = write(tmp_path, "new.json", {"properties": {"a": {"type": "integer"}, "b": {"type": "number"}}})
    status, out, err = schema(tmp_path, "diff", old, new)

    assert (status, err) == (0, "")
    assert [line.strip() for line in out.splitlines()] == [
        "breaks",
        "payload.a: type was number, is integer",
        "harmless",
        "payload.b: type was integer, is number",
    ]
    found = json.loads(schema(tmp_path, "diff", old, new, "--json")[1])
    assert [each["path"] for each in found["breaks"] + found["harmless"]] == ["payload.a", "payload.b"]
    assert "none" in schema(tmp_path, "diff", old, old)[1]


def test_one_is_removed_by_who_says_yes(tmp_path: Path) -> None:
    schema(tmp_path, "register", write(tmp_path, "one.json", fields(NUMBER)))
    remove = ("schema", "remove", "task.created", "--version", "1")

    assert wowevent(tmp_path, *remove, *URL).returncode == 2
    status, _, seen = answered(tmp_path, *remove, *URL, answer=b"n\n")
    assert status == 1
    assert "task.created 1.0.0 will be removed" in seen
    assert len(listed(tmp_path)) == 1
    assert schema(tmp_path, *remove[1:], "--yes") == (0, "removed task.created 1.0.0\n", "")
    assert listed(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("register",), 2, "usage"),
        (("register", "nix.json"), 74, "io_error"),
        (("register", "bad.json"), 65, "invalid_event"),
        (("check", "bad.json"), 65, "invalid_event"),
        (("diff", "bad.json", "good.json"), 65, "invalid_event"),
        (("diff", "good.json", "nix.json"), 74, "io_error"),
        (("show", "nix"), 69, "schema_not_found"),
        (("show", "\udcff\x1b"), 69, "schema_not_found"),
        (("remove", "nix", "--version", "1", "--yes"), 69, "schema_not_found"),
        (("remove", "nix", "--yes"), 2, "usage"),
    ],
)
def test_what_it_refuses(tmp_path: Path, arguments: tuple[str, ...], status: int, code: str) -> None:
    write(tmp_path, "bad.json", {"type": "strin", "json_schema": 1})
    write(tmp_path, "good.json", {})
    done, out, err = schema(tmp_path, *arguments)

    assert (done, out) == (status, "")
    assert err.startswith(f"error[{code}]: ")
