"""Decides, once per writer schema, how its messages are read: as a block, one by one, or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from k2.schemas.avro import avro_schema
from k2.schemas.records import FieldType, RecordType

if TYPE_CHECKING:
    from k2.schemas.records import Field

Json = Any
"""Parsed JSON of an Avro schema, whose shape is Avro's."""

Wire = Literal["boolean", "long", "float", "double", "bytes", "string", "fixed", "strings", "longs", "decimal", "date"]

_PLAIN: Final[dict[str, Wire]] = {
    "boolean": "boolean",
    "int": "long",
    "long": "long",
    "float": "float",
    "double": "double",
    "bytes": "bytes",
    "string": "string",
}
_ITEMS: Final[dict[str, Wire]] = {"string": "strings", "long": "longs", "int": "longs"}
_EXPECTED: Final[dict[FieldType, Wire]] = {
    FieldType.STRING: "string",
    FieldType.STRINGS: "strings",
    FieldType.INT: "long",
    FieldType.LONG: "long",
    FieldType.DATE: "date",
    FieldType.PRICE: "decimal",
    FieldType.QUANTITY: "decimal",
}


@dataclass(frozen=True, slots=True)
class WireField:
    """How one field of the writer lies on the wire; `null_branch` is the index of null in its union, if it is one."""

    name: str
    wire: Wire
    null_branch: int | None = None
    size: int = 0
    """Bytes of a `fixed`."""
    scale: int = 0
    """Scale of a `decimal`."""


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """The messages can be read as one block: these are their fields, in the order of the wire."""

    fields: tuple[WireField, ...]


@dataclass(frozen=True, slots=True)
class TranscodePlan:
    """The messages are translated one by one first: the writer uses types that the block reader does not know."""

    writer_schema: Json
    reader_schema: Json


@dataclass(frozen=True, slots=True)
class NoPlan:
    """The messages can never become rows of this record type."""

    reason: str


Plan = BlockPlan | TranscodePlan | NoPlan


def plan_for(schema_text: str, record_type: RecordType) -> Plan:
    """Return how to read the messages of the writer schema `schema_text` as records of `record_type`."""
    schema = _parse(schema_text)
    problem = _first_problem(schema, record_type)
    if problem is not None:
        return NoPlan(f"expected an Avro schema that {record_type.avro_name} can be read from, found {problem}")
    fields = [_wire_field(field["name"], field["type"]) for field in schema["fields"]]
    known = [field for field in fields if field is not None]
    if len(known) == len(fields) and _kinds_fit(known, record_type):
        return BlockPlan(tuple(known))
    reader = _without_logical_types(avro_schema(record_type)) | {"name": schema["name"]}
    reader["namespace"] = schema.get("namespace", "")
    return TranscodePlan(_without_logical_types(schema), reader)


def block_plan(record_type: RecordType) -> BlockPlan:
    """Return the plan of the record type's own schema."""
    plan = plan_for(json.dumps(avro_schema(record_type)), record_type)
    assert isinstance(plan, BlockPlan)
    return plan


def _parse(schema_text: str) -> Json:
    try:
        return json.loads(schema_text)
    except ValueError:
        return schema_text


def _first_problem(schema: Json, record_type: RecordType) -> str | None:
    """Say what makes the schema unfit, or None."""
    if not _is_record(schema):
        return f"no record: {str(schema)[:80]!r}"
    if _refers_to_itself(schema, ()):
        return "one that contains itself"
    if _has_empty_items(schema):
        return "an array whose items take no bytes, of which a message can claim any number"
    mismatch = _first_mismatch({field["name"]: field["type"] for field in schema["fields"]}, record_type)
    return None if mismatch is None else f"one whose {mismatch}"


def _is_record(schema: Json) -> bool:
    return (
        isinstance(schema, dict)
        and schema.get("type") == "record"
        and isinstance(schema.get("name"), str)
        and isinstance(schema.get("fields"), list)
        and bool(schema["fields"])
        and all(isinstance(f, dict) and isinstance(f.get("name"), str) and "type" in f for f in schema["fields"])
    )


def _first_mismatch(types: dict[str, Json], record_type: RecordType) -> str | None:
    """Name the first field that no reader could take for the one of the same name."""
    for field in record_type.message_fields:
        found = types.get(field.name)
        if found is None:
            if field.nullable or field.type is FieldType.STRINGS:
                continue
            return f"field {field.name} is missing"
        expected, present = _meaning_of_field(field), _meaning(found)
        if expected != present:
            return f"field {field.name} is {_describe(present)}, not {_describe(expected)}"
    return None


def _meaning_of_field(field: Field) -> tuple[str, int] | None:
    return _meaning(avro_schema(RecordType("x", (field,)))["fields"][0]["type"])


def _meaning(kind: Json) -> tuple[str, int] | None:
    """Return a logical type and its scale: what the plain bytes mean, which promotion must not change."""
    inner = _non_null(kind)
    logical = inner.get("logicalType") if isinstance(inner, dict) else None
    return None if logical in {None, "uuid"} else (str(logical), int(inner.get("scale", 0)))


def _describe(meaning: tuple[str, int] | None) -> str:
    if meaning is None:
        return "plain"
    return f"a decimal of scale {meaning[1]}" if meaning[0] == "decimal" else f"of the logical type {meaning[0]}"


def _kinds_fit(fields: list[WireField], record_type: RecordType) -> bool:
    found = {field.name: field.wire for field in fields}
    return all(found.get(f.name, _EXPECTED[f.type]) == _EXPECTED[f.type] for f in record_type.message_fields)


def _non_null(kind: Json) -> Json:
    """Return X of a union of null and X; other types as they are."""
    if isinstance(kind, list) and len(kind) == 2 and "null" in kind:  # noqa: PLR2004 - null and one more
        return kind[1] if kind[0] == "null" else kind[0]
    return kind


def _wire_field(name: str, kind: Json) -> WireField | None:
    """Return how a field lies on the wire, or None for types that the block reader does not know."""
    null_branch = kind.index("null") if isinstance(kind, list) and "null" in kind else None
    inner = _non_null(kind)
    full = {"type": inner} if isinstance(inner, str) else inner
    if not isinstance(full, dict) or not isinstance(full.get("type"), str):
        return None
    if null_branch is None and full["type"] in {"array", "enum", "fixed"}:
        return _compound(name, full)
    match full["type"], full.get("logicalType"):
        case "bytes", "decimal":
            return WireField(name, "decimal", null_branch, scale=full.get("scale", 0))
        case "int", "date":
            return WireField(name, "date", null_branch)
        case base, _:
            return WireField(name, _PLAIN[base], null_branch) if base in _PLAIN else None


def _compound(name: str, kind: dict[str, Json]) -> WireField | None:
    if kind["type"] == "enum":  # its index
        return WireField(name, "long")
    if kind["type"] == "fixed":
        return WireField(name, "fixed", size=int(kind["size"]))
    items = kind.get("items")
    return WireField(name, _ITEMS[items]) if isinstance(items, str) and items in _ITEMS else None


def _without_logical_types(schema: Json) -> Json:
    if isinstance(schema, list):
        return [_without_logical_types(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    dropped = {"logicalType", "precision", "scale"} if isinstance(schema.get("type"), str) else set()
    return {
        name: value if name in {"default", "symbols"} else _without_logical_types(value)
        for name, value in schema.items()
        if name not in dropped
    }


def _has_empty_items(schema: Json) -> bool:
    if isinstance(schema, list):
        return any(_has_empty_items(part) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "array" and _may_be_empty(schema.get("items")):
        return True
    parts = [schema.get("type"), schema.get("items"), schema.get("values")]
    return any(_has_empty_items(part) for part in [*parts, *_field_types(schema)])


def _may_be_empty(kind: Json) -> bool:
    """Say whether a value may take no bytes; a name counts, since it may stand for such a type."""
    if isinstance(kind, str):
        return kind not in _PLAIN
    if not isinstance(kind, dict):
        return False
    if kind.get("type") == "record":
        return all(_may_be_empty(part) for part in _field_types(kind))
    return kind.get("type") == "null" or (kind.get("type") == "fixed" and kind.get("size") == 0)


def _field_types(schema: dict[str, Json]) -> list[Json]:
    fields = schema.get("fields")
    return [field.get("type") for field in fields if isinstance(field, dict)] if isinstance(fields, list) else []


def _refers_to_itself(schema: Json, inside: tuple[str, ...]) -> bool:
    """Say whether a record contains itself: readers recurse, and bytes could nest it without end."""
    if isinstance(schema, str):
        return schema.rpartition(".")[2] in inside
    if isinstance(schema, list):
        return any(_refers_to_itself(part, inside) for part in schema)
    if not isinstance(schema, dict):
        return False
    if schema.get("type") == "record":
        here = (*inside, str(schema.get("name")).rpartition(".")[2])
        return any(_refers_to_itself(kind, here) for kind in _field_types(schema))
    return any(_refers_to_itself(schema.get(part), inside) for part in ("type", "items", "values"))
