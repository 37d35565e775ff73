"""Iceberg schemas, partitions and sort orders of the tables, derived from `schemas.records` with its field ids."""

from __future__ import annotations

from typing import Final

from pyiceberg.partitioning import PARTITION_FIELD_ID_START, UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER, NullOrder, SortDirection, SortField, SortOrder
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    BinaryType,
    DateType,
    DecimalType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from k2.schemas.records import (
    ORDER,
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    Field,
    FieldType,
    RecordType,
)

PARTITION_EXCHANGE: Final = "exchange"
PARTITION_DAY: Final = "ts_event_day"
SORT_COLUMNS: Final = ("symbol", *ORDER)
"""Order of the rows in a data file: one symbol's rows lie together, in the order of every answer."""

_TYPES: Final[dict[FieldType, IcebergType]] = {
    FieldType.STRING: StringType(),
    FieldType.INT: IntegerType(),
    FieldType.LONG: LongType(),
    FieldType.DATE: DateType(),
    FieldType.TIMESTAMP: TimestamptzType(),
    FieldType.PRICE: DecimalType(PRICE_PRECISION, PRICE_SCALE),
    FieldType.QUANTITY: DecimalType(QUANTITY_PRECISION, QUANTITY_SCALE),
    FieldType.BINARY: BinaryType(),
}


def iceberg_schema(record_type: RecordType) -> Schema:
    """Return the table's schema; field ids are those of records.py."""
    return Schema(*(iceberg_field(field) for field in record_type.fields))


def iceberg_field(field: Field) -> NestedField:
    """Return one column of the table's schema."""
    return NestedField(
        field_id=field.field_id, name=field.name, field_type=_type(field), required=not field.nullable, doc=field.doc
    )


def is_market_table(record_type: RecordType) -> bool:
    """Say whether rows are market data, partitioned and sorted; side tables are neither."""
    return any(field.name == "ts_event" for field in record_type.fields)


def partition_spec(record_type: RecordType) -> PartitionSpec:
    """Return exchange and UTC day of `ts_event` for market data, no partitions for side tables."""
    if not is_market_table(record_type):
        return UNPARTITIONED_PARTITION_SPEC
    return PartitionSpec(
        PartitionField(
            record_type.field("exchange").field_id, PARTITION_FIELD_ID_START, IdentityTransform(), PARTITION_EXCHANGE
        ),
        PartitionField(
            record_type.field("ts_event").field_id, PARTITION_FIELD_ID_START + 1, DayTransform(), PARTITION_DAY
        ),
        spec_id=0,
    )


def sort_order(record_type: RecordType) -> SortOrder:
    """Return the declared order of rows in a file."""
    if not is_market_table(record_type):
        return UNSORTED_SORT_ORDER
    fields = (
        SortField(
            source_id=record_type.field(name).field_id,
            transform=IdentityTransform(),
            direction=SortDirection.ASC,
            null_order=NullOrder.NULLS_FIRST,
        )
        for name in SORT_COLUMNS
    )
    return SortOrder(*fields, order_id=1)


def _type(field: Field) -> IcebergType:
    if field.type is not FieldType.STRINGS:
        return _TYPES[field.type]
    if field.element_id is None:
        raise ValueError(f"expected an element_id for the list column {field.name!r} in records.py, found none")
    return ListType(element_id=field.element_id, element_type=StringType(), element_required=True)
