"""Avro schemas of the messages, derived from `records`, and the copy that the block reader uses."""

from __future__ import annotations

import json
from typing import Any, Final

from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    Field,
    FieldType,
    RecordType,
)

NAMESPACE: Final = "k2.market"

AvroSchema = dict[str, Any]
"""An Avro schema as parsed JSON; its shape is Avro's, which no Python type states."""

_PRICE: Final = {"type": "bytes", "logicalType": "decimal", "precision": PRICE_PRECISION, "scale": PRICE_SCALE}
_QUANTITY: Final = {"type": "bytes", "logicalType": "decimal", "precision": QUANTITY_PRECISION, "scale": QUANTITY_SCALE}
_TYPES: Final[dict[FieldType, Any]] = {
    FieldType.STRING: "string",
    FieldType.STRINGS: {"type": "array", "items": "string"},
    FieldType.INT: "int",
    FieldType.LONG: "long",
    FieldType.DATE: {"type": "int", "logicalType": "date"},
    FieldType.PRICE: _PRICE,
    FieldType.QUANTITY: _QUANTITY,
}


def avro_schema(record_type: RecordType) -> AvroSchema:
    """Return the Avro record schema of a message, fields in the order of the wire."""
    return {
        "type": "record",
        "name": record_type.avro_name,
        "namespace": NAMESPACE,
        "fields": [_avro_field(field) for field in record_type.message_fields],
    }


def avro_text(record_type: RecordType) -> str:
    """Return the schema as JSON text, the form in which it is registered."""
    return json.dumps(avro_schema(record_type))


def _avro_field(field: Field) -> AvroSchema:
    kind = _TYPES[field.type]
    if field.nullable:
        return {"name": field.name, "type": ["null", kind], "default": None, "doc": field.doc}
    if field.type is FieldType.STRINGS:
        return {"name": field.name, "type": kind, "default": [], "doc": field.doc}
    return {"name": field.name, "type": kind, "doc": field.doc}
