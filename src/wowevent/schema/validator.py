"""EventValidator: holds events against the schemas of a registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal

from msgspec import Struct

from wowevent.errors import ValidationError
from wowevent.event import Event
from wowevent.schema.registry import SchemaRegistry
from wowevent.topic import is_reserved

_TOLD: Final = 5  # wrong fields that a message names; all of them are in `errors`


class Validated(Struct, frozen=True):
    """One event of a batch, and what is wrong with it; None if nothing is."""

    event: Event
    error: ValidationError | None


class EventValidator:
    """Holds the payload of an event, as it is sent, against the schema of its type and version."""

    def __init__(self, registry: SchemaRegistry, *, strict: bool = False) -> None:
        """`strict` refuses types without a schema; those of the bus itself, which begin with `_`, need none."""
        self.registry: SchemaRegistry = registry
        self.strict: bool = strict

    def validate_event(self, event: Event) -> Literal[True]:
        """True if it fits; ValidationError, whose `errors` names every wrong field, if not.

        The version is the one that the event's header `schema_version` names, else the newest.
        """
        schema = self.registry.schema_for(event)
        if schema is None:
            if self.strict and not is_reserved(event.kind):
                raise _refusal(event, "", ("no schema of this type is registered",))
        elif not schema.fits(event.body):
            raise _refusal(event, f" {schema.version}", schema.wrong(event.body))
        return True

    def is_valid(self, event: Event) -> bool:
        """Whether it fits; quicker than an error where it does not."""
        try:
            schema = self.registry.schema_for(event)
        except ValidationError:
            return False
        if schema is None:
            return not self.strict or is_reserved(event.kind)
        return schema.fits(event.body)

    def validate_batch(self, events: Iterable[Event]) -> list[Validated]:
        """Each event with its error, in their order; nothing is raised for one that does not fit."""
        return [Validated(event, self._error(event)) for event in events]

    def _error(self, event: Event) -> ValidationError | None:
        try:
            self.validate_event(event)
        except ValidationError as error:
            return error
        return None


def _refusal(event: Event, version: str, wrong: tuple[str, ...]) -> ValidationError:
    more = "" if len(wrong) <= _TOLD else f"; and {len(wrong) - _TOLD} more"
    return ValidationError(f"validation: {event.kind}{version}: {'; '.join(wrong[:_TOLD])}{more}", wrong)
