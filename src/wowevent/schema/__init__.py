"""What payloads must look like: schemas by event type and version, and what may follow what."""

from wowevent.schema.compatibility import SchemaBreak, SchemaDiff, diff
from wowevent.schema.definition import EventSchema
from wowevent.schema.files import SchemaFields, fields_of, read_schema, read_schemas
from wowevent.schema.registry import VERSION_HEADER, SchemaRegistry
from wowevent.schema.validator import EventValidator, Validated

__all__ = [
    "VERSION_HEADER",
    "EventSchema",
    "EventValidator",
    "SchemaBreak",
    "SchemaDiff",
    "SchemaFields",
    "SchemaRegistry",
    "Validated",
    "diff",
    "fields_of",
    "read_schema",
    "read_schemas",
]
