"""SchemaRegistry: versions, conflicts, compatibility, files, watchers; which version an event is held against."""

import json
from pathlib import Path
from typing import Any

import pytest

from wowevent import Event, EventSchema, InvalidEvent, SchemaConflict, SchemaNotFound, SchemaRegistry, ValidationError
from wowevent.schema import SchemaBreak, read_schema

NUMBER = {"type": "object", "properties": {"a": {"type": "number"}}}
INTEGER = {"type": "object", "properties": {"a": {"type": "integer"}}}


def made(json_schema: Any, version: str = "1.0.0", event_type: str = "task.created") -> EventSchema:
    return EventSchema(event_type=event_type, version=version, json_schema=json_schema)


class Seen(list[tuple[str, bool]]):
    """What a watcher was told."""

    def __call__(self, schema: EventSchema, there: bool) -> None:
        self.append((schema.key, there))


def test_versions_are_in_their_order() -> None:
    registry = SchemaRegistry()
    for version in ("1.10.0", "1.9.0", "1.2"):
        registry.register_schema(made(NUMBER, version))
    registry.register_schema(made(NUMBER, event_type="agent.started"))

    assert registry.versions("task.created") == ["1.2", "1.9.0", "1.10.0"]
    assert registry.get_schema("task.created").version == "1.10.0"
    assert registry.get_schema("task.created", "1.2.0").version == "1.2"
    assert [each.key for each in registry.schemas()][:2] == ["agent.started@1.0.0", "task.created@1.2.0"]
    assert len(registry.schemas("task.created")) == 3
    assert registry.schemas("nix") == registry.versions("nix") == []


def test_the_same_schema_twice_is_once() -> None:
    registry, seen = SchemaRegistry("backward"), Seen()
    registry.watch(seen)
    for version in ("1", "1.0.0", "1.0"):
        registry.register_schema(made(NUMBER, version))

    assert registry.versions("task.created") == ["1"]
    assert seen == [("task.created@1.0.0", True)]


def test_another_schema_of_a_version_is_a_conflict() -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER))
    with pytest.raises(SchemaConflict, match=r"task.created 1 is registered with another schema"):
        registry.register_schema(made(INTEGER, "1"))

    assert registry.get_schema("task.created").json_schema == NUMBER


@pytest.mark.parametrize(("event_type", "version"), [("nix", None), ("nix", "1"), ("task.created", "2")])
def test_what_is_not_there(event_type: str, version: str | None) -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER))
    with pytest.raises(SchemaNotFound):
        registry.get_schema(event_type, version)
    with pytest.raises(SchemaNotFound):
        registry.remove_schema(event_type, version or "1")


def test_one_is_removed() -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER))
    registry.register_schema(made(INTEGER, "2"))
    registry.remove_schema("task.created", "2.0.0")
    assert registry.versions("task.created") == ["1.0.0"]
    registry.remove_schema("task.created", "1")
    assert registry.schemas() == []


# ------------------------------------------------------------------------------------------ compatibility


def test_backward_refuses_what_the_version_before_accepts_and_names_every_break() -> None:
    registry = SchemaRegistry(compatibility="backward")
    registry.register_schema(made(NUMBER))
    with pytest.raises(SchemaConflict, match=r"task\.created 2\.0 is not backward compatible: ") as refused:
        registry.register_schema(made({**INTEGER, "required": ["b"]}, "2.0"))

    assert sorted(refused.value.errors) == [
        "payload.a: type was number, is integer",
        "payload.b: required was no, is yes",
    ]
    assert all(line in str(refused.value) for line in refused.value.errors)
    assert registry.versions("task.created") == ["1.0.0"]


def test_none_lets_it_in() -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER))
    registry.register_schema(made(INTEGER, "2"))
    assert registry.check(made(INTEGER, "3")) == []
    assert registry.check(made(NUMBER, "1.5")) == [SchemaBreak("payload.a", "type", "number", "integer")]


def test_a_version_between_two_must_fit_both() -> None:
    registry = SchemaRegistry("backward")
    registry.register_schema(made(INTEGER, "1"))
    registry.register_schema(made(NUMBER, "3"))
    registry.register_schema(made(NUMBER, "2"))
    with pytest.raises(SchemaConflict):
        registry.register_schema(made({"type": "object"}, "2.5"))
    with pytest.raises(SchemaConflict):
        registry.register_schema(made(NUMBER, "0.5"))


def test_what_cannot_be_decided_is_refused() -> None:
    registry = SchemaRegistry("backward")
    registry.register_schema(made({"properties": {"a": {"type": "string", "pattern": "^[b-d]+x$"}}}))
    with pytest.raises(SchemaConflict, match="cannot be decided"):
        registry.register_schema(made({"properties": {"a": {"type": "string", "pattern": "^[b-d]*x$"}}}, "2"))


def test_checking_changes_nothing_and_knows_what_stands_in_its_place() -> None:
    registry = SchemaRegistry("backward")
    registry.register_schema(made(NUMBER))

    assert registry.check(made(NUMBER)) == registry.check(made(NUMBER, "2")) == []
    assert registry.check(made(INTEGER)) == [SchemaBreak("payload.a", "type", "number", "integer")]
    assert registry.versions("task.created") == ["1.0.0"]


@pytest.mark.parametrize("word", ["forward", "", None, 1])
def test_another_compatibility_is_refused(word: Any) -> None:
    with pytest.raises(InvalidEvent, match="neither none nor backward"):
        SchemaRegistry(word)


def test_what_is_no_schema_is_refused() -> None:
    with pytest.raises(InvalidEvent, match="an EventSchema is needed, not dict"):
        SchemaRegistry().register_schema({"event_type": "a"})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------ watched


def test_a_watcher_is_told_of_what_happens_here_and_of_nothing_else() -> None:
    registry, seen = SchemaRegistry(), Seen()
    registry.register_schema(made(NUMBER))
    end = registry.watch(seen)
    registry.register_schema(made(INTEGER, "2"))
    registry.take(made(NUMBER, "3"))
    registry.forget("task.created", "3")
    registry.remove_schema("task.created", "1")
    end()
    end()
    registry.register_schema(made(NUMBER, "4"))

    assert seen == [("task.created@2.0.0", True), ("task.created@1.0.0", False)]


def test_what_was_registered_elsewhere_wins_unchecked() -> None:
    registry = SchemaRegistry("backward")
    registry.register_schema(made(NUMBER))
    registry.take(made(INTEGER))
    registry.take(made({"required": ["z"]}, "2"))

    assert registry.get_schema("task.created", "1").json_schema == INTEGER
    assert registry.versions("task.created") == ["1.0.0", "2"]
    registry.forget("task.created", "7")
    registry.forget("nix", "1")
    assert registry.versions("task.created") == ["1.0.0", "2"]


# ------------------------------------------------------------------------------------------ which version


def event(version: str | None = None, event_type: str = "task.created") -> Event:
    return Event(event_type=event_type, headers=None if version is None else {"schema_version": version})


def test_an_event_is_held_against_the_version_that_it_names_else_the_newest() -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER, "2"))
    registry.register_schema(made(INTEGER, "1.0.0"))

    assert registry.schema_for(event()) == made(NUMBER, "2")
    assert registry.schema_for(event("2.0.0")) == registry.schema_for(event("2")) == made(NUMBER, "2")
    assert registry.schema_for(event("1")) == made(INTEGER)
    assert registry.schema_for(event(event_type="task.started")) is None
    assert registry.schema_for(event("9", "task.started")) is None
    assert registry.schema_for(Event(topic="task.created", event_type="other")) is None, "by type, not by topic"


@pytest.mark.parametrize("version", ["3", "1.0.1", "newest", "", "v1"])
def test_a_version_that_is_not_there_is_refused(version: str) -> None:
    registry = SchemaRegistry()
    registry.register_schema(made(NUMBER))
    registry.register_schema(made(NUMBER, "2"))
    with pytest.raises(ValidationError, match=r"validation: task.created: .*registered are 1\.0\.0, 2") as refused:
        registry.schema_for(event(version))
    assert refused.value.errors[0].startswith("header schema_version: ")


# ------------------------------------------------------------------------------------------ files


def write(folder: Path, name: str, content: Any) -> Path:
    file = folder / name
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_files_of_every_kind(tmp_path: Path) -> None:
    write(tmp_path, "task.created@1.0.0.json", NUMBER)
    write(tmp_path, "one.json", {"event_type": "a", "version": "1", "json_schema": {}, "description": "an a"})
    write(tmp_path, "two.json", [{"event_type": "b", "version": str(n), "json_schema": {}} for n in (2, 1)])
    write(tmp_path, "bom@1.json", "\ufeff{}")
    write(tmp_path, "readme.txt", "no schema")
    write(tmp_path, ".hidden.json", "{")
    registry, seen = SchemaRegistry("backward"), Seen()
    registry.watch(seen)

    assert {each.key for each in registry.load(tmp_path)} == {each.key for each in registry.schemas()}
    assert {each.key for each in registry.schemas()} == {
        "task.created@1.0.0", "a@1.0.0", "b@1.0.0", "b@2.0.0", "bom@1.0.0",
    }  # fmt: skip
    assert len(seen) == 5
    assert registry.get_schema("a").description == "an a"
    assert registry.load(str(tmp_path / "one.json")) == [registry.get_schema("a")]


FILES: dict[str, tuple[str, Any, str]] = {
    "no JSON": ("a.json", "{", "not JSON"),
    "a key twice": ("a.json", '{"event_type": "a", "event_type": "b"}', "stands twice"),
    "a bare schema by another name": ("a.json", NUMBER, "json_schema is missing"),
    "a field too many": ("a.json", {"event_type": "a", "version": "1", "json_schema": {}, "more": 1}, "more"),
    "a field too few": ("a.json", {"event_type": "a", "json_schema": {}}, "version"),
    "a number": ("a.json", 5, "Expected"),
    "a version that is a number": ("a.json", {"event_type": "a", "version": 1, "json_schema": {}}, "version"),
    "a wrong schema": ("a@1.json", {"type": "strin"}, "json_schema.type"),
    "a wrong version": ("a@1..json", {}, "version: '1.' is not"),
    "the second of a list": ("a.json", [{"event_type": "a", "version": "1", "json_schema": {}}, {}], "schema 1: "),
}


@pytest.mark.parametrize(("name", "content", "message"), FILES.values(), ids=FILES.keys())
def test_an_error_names_the_file(tmp_path: Path, name: str, content: Any, message: str) -> None:
    file = write(tmp_path, name, content)
    with pytest.raises(InvalidEvent, match=message) as refused:
        SchemaRegistry().load(file)
    assert str(refused.value).startswith(f"{file}: ")


def test_a_folder_is_loaded_whole_or_not_at_all(tmp_path: Path) -> None:
    write(tmp_path, "a@1.json", NUMBER)
    write(tmp_path, "a@2.json", INTEGER)
    registry, seen = SchemaRegistry("backward"), Seen()
    registry.watch(seen)
    with pytest.raises(SchemaConflict, match="a 2 is not backward compatible"):
        registry.load(tmp_path)

    assert (registry.schemas(), seen) == ([], [])


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nix\.json"):
        SchemaRegistry().load(tmp_path / "nix.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidEvent, match=r"there is no \.json file"):
        SchemaRegistry().load(tmp_path / "empty")


def test_one_schema_of_a_file_to_compare(tmp_path: Path) -> None:
    assert read_schema(write(tmp_path, "any.json", NUMBER)).json_schema == NUMBER
    with pytest.raises(InvalidEvent, match="one schema is needed here, not 0"):
        read_schema(write(tmp_path, "none.json", []))
