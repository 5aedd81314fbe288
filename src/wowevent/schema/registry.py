"""SchemaRegistry: which schemas there are, which of them an event is held against, and what may join them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from typing import Final, Literal, cast

from msgspec import Struct

from wowevent.errors import InvalidEvent, SchemaConflict, SchemaNotFound, ValidationError, shown
from wowevent.event import Event
from wowevent.schema.compatibility import SchemaBreak, breaks
from wowevent.schema.definition import EventSchema, Numbers, version_numbers
from wowevent.schema.files import read_schemas

Compatibility = Literal["none", "backward"]
Watcher = Callable[[EventSchema, bool], None]
"""Is told of a schema, and whether it is there now."""

VERSION_HEADER: Final = "schema_version"
"""The header by which an event says which version it is written in."""


class _Versions(Struct, frozen=True):
    """The schemas of one type, oldest version first."""

    by_numbers: dict[Numbers, EventSchema]
    by_text: dict[str, EventSchema]
    newest: EventSchema


class SchemaRegistry:
    """Schemas by event type and version.

    Of one version there is one schema. With `compatibility="backward"` a schema is refused that would not accept all
    that the version before it accepts; whatever cannot be decided counts as a break.
    """

    def __init__(self, compatibility: Compatibility = "none") -> None:
        """InvalidEvent for another word."""
        if compatibility not in {"none", "backward"}:
            raise InvalidEvent(f"compatibility: {shown(compatibility)} is neither none nor backward")
        self.compatibility: Compatibility = compatibility
        self._types: dict[str, _Versions] = {}  # a type's entry is replaced, never changed: threads read it
        self._watchers: list[Watcher] = []

    def register_schema(self, schema: EventSchema) -> None:
        """Add a schema; the same one twice is once.

        Raises SchemaConflict, whose `errors` names every break, for another schema of a version that is there, and for
        one that is not compatible.
        """
        self.register_all([schema])

    def register_all(self, schemas: Iterable[EventSchema]) -> None:
        """Add several, older versions first, or none of them; raises as `register_schema` does."""
        given = list(schemas)
        for each in given:
            if not isinstance(cast("object", each), EventSchema):
                raise InvalidEvent(f"an EventSchema is needed, not {type(each).__name__}")
        before, added = self._types, []
        try:
            for schema in sorted(given, key=lambda each: each.numbers):
                if self._admit(schema):
                    self.take(schema)
                    added.append(schema)
        except BaseException:
            self._types = before
            raise
        for schema in added:
            self._tell(schema, there=True)

    def remove_schema(self, event_type: str, version: str) -> None:
        """Remove one version; SchemaNotFound if it is not there."""
        schema = self.get_schema(event_type, version)
        self.forget(event_type, version)
        self._tell(schema, there=False)

    def get_schema(self, event_type: str, version: str | None = None) -> EventSchema:
        """The schema of that version, or of the newest; SchemaNotFound if there is none."""
        versions = self._types.get(event_type)
        if versions is None:
            raise SchemaNotFound(f"no schema of {shown(event_type)} is registered")
        if version is None:
            return versions.newest
        found = versions.by_numbers.get(version_numbers(version))
        if found is None:
            raise SchemaNotFound(f"{event_type} has no version {version}; it has {_named(versions)}")
        return found

    def schemas(self, event_type: str | None = None) -> list[EventSchema]:
        """All schemas, or those of one type: by type, and by version from the oldest."""
        types = sorted(self._types) if event_type is None else [event_type]
        return [schema for each in types if each in self._types for schema in self._types[each].by_numbers.values()]

    def versions(self, event_type: str) -> list[str]:
        """The versions of a type, oldest first; empty if there is none."""
        return [schema.version for schema in self.schemas(event_type)]

    def check(self, schema: EventSchema) -> list[SchemaBreak]:
        """Every way in which it is not compatible with the versions before and after it, whatever this registry wants.

        What the version before accepts it must accept, and what it accepts the version after it. A version that is
        there is compared with what stands in its place, too.
        """
        found = []
        if (same := self._same(schema)) is not None and same != schema:
            found += breaks(same, schema)
        before, after = self._neighbours(schema)
        if before is not None:
            found += breaks(before, schema)
        if after is not None:
            found += breaks(schema, after)
        return list(dict.fromkeys(found))

    def load(self, path: str | PathLike[str]) -> list[EventSchema]:
        """Register what a file, or each `.json` file of a folder, holds: all or nothing. Returns the schemas.

        A file holds `{"event_type", "version", "json_schema"}`, or a list of these, or a bare JSON Schema if it is
        named as `task.created@1.0.0.json`. Raises InvalidEvent that names the file, SchemaConflict, OSError.
        """
        found = read_schemas(path)
        self.register_all(found)
        return found

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Tell `callback` of each registration and removal from now on; returns what ends that.

        It is not told of `take` and `forget`: who shares schemas folds in what others registered by these, and must
        not be told of it again.
        """
        self._watchers.append(callback)

        def end() -> None:
            if callback in self._watchers:
                self._watchers.remove(callback)

        return end

    def take(self, schema: EventSchema) -> None:
        """Put in what was registered elsewhere: unchecked, in the place of another of that version, and told nobody."""
        versions = self._types.get(schema.event_type)
        known = {} if versions is None else versions.by_numbers
        self._put(schema.event_type, {**known, schema.numbers: schema})

    def forget(self, event_type: str, version: str) -> None:
        """Take out what was removed elsewhere, and tell nobody; what is not there is ignored."""
        versions, numbers = self._types.get(event_type), version_numbers(version)
        if versions is not None:
            self._put(event_type, {each: schema for each, schema in versions.by_numbers.items() if each != numbers})

    def schema_for(self, event: Event) -> EventSchema | None:
        """What an event is held against: the version that its header `schema_version` names, else the newest.

        None if its type has no schema; ValidationError if it names a version that is not there.
        """
        versions = self._types.get(event.kind)
        if versions is None:
            return None
        if not event.head or (version := event.head.get(VERSION_HEADER)) is None:
            return versions.newest
        if (found := versions.by_text.get(version)) is not None:
            return found
        try:
            return versions.by_numbers[version_numbers(version)]
        except (InvalidEvent, KeyError):
            wrong = f"header {VERSION_HEADER}: {shown(version)} is not registered; registered are {_named(versions)}"
            raise ValidationError(f"validation: {event.kind}: {wrong}", (wrong,)) from None

    def _put(self, event_type: str, by_numbers: Mapping[Numbers, EventSchema]) -> None:
        types = dict(self._types)
        types.pop(event_type, None)
        if by_numbers:
            ordered = dict(sorted(by_numbers.items()))
            types[event_type] = _Versions(
                ordered, {schema.version: schema for schema in ordered.values()}, ordered[max(ordered)]
            )
        self._types = types

    def _admit(self, schema: EventSchema) -> bool:
        """Whether it is new; SchemaConflict if it must stay out."""
        named = f"{schema.event_type} {schema.version}"
        if (same := self._same(schema)) is not None:
            if same == schema:
                return False
            raise SchemaConflict(f"{named} is registered with another schema; give a changed one another version")
        if self.compatibility == "backward" and (found := self.check(schema)):
            lines = tuple(map(str, found))
            raise SchemaConflict(f"{named} is not backward compatible: {'; '.join(lines)}", lines)
        return True

    def _same(self, schema: EventSchema) -> EventSchema | None:
        versions = self._types.get(schema.event_type)
        return None if versions is None else versions.by_numbers.get(schema.numbers)

    def _neighbours(self, schema: EventSchema) -> tuple[EventSchema | None, EventSchema | None]:
        """The versions next to it, below and above."""
        there = self.schemas(schema.event_type)
        below = [each for each in there if each.numbers < schema.numbers]
        above = [each for each in there if each.numbers > schema.numbers]
        return (below[-1] if below else None), (above[0] if above else None)

    def _tell(self, schema: EventSchema, *, there: bool) -> None:
        for callback in list(self._watchers):
            callback(schema, there)


def _named(versions: _Versions) -> str:
    return ", ".join(schema.version for schema in versions.by_numbers.values())
