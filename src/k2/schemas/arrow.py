"""Arrow and Polars schemas of the tables, derived from `records`; Arrow fields carry Iceberg's field ids."""

from __future__ import annotations

from typing import Final

import polars as pl
import pyarrow as pa

from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    Field,
    FieldType,
    RecordType,
)

_FIELD_ID: Final = b"PARQUET:field_id"

_ARROW: Final[dict[FieldType, pa.DataType]] = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int32(),
    FieldType.LONG: pa.int64(),
    FieldType.DATE: pa.date32(),
    FieldType.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    FieldType.PRICE: pa.decimal128(PRICE_PRECISION, PRICE_SCALE),
    FieldType.QUANTITY: pa.decimal128(QUANTITY_PRECISION, QUANTITY_SCALE),
    FieldType.BINARY: pa.binary(),
}

_POLARS: Final[dict[FieldType, pl.DataType]] = {
    FieldType.STRING: pl.String(),
    FieldType.STRINGS: pl.List(pl.String()),
    FieldType.INT: pl.Int32(),
    FieldType.LONG: pl.Int64(),
    FieldType.DATE: pl.Date(),
    FieldType.TIMESTAMP: pl.Datetime("us", "UTC"),
    FieldType.PRICE: pl.Decimal(PRICE_PRECISION, PRICE_SCALE),
    FieldType.QUANTITY: pl.Decimal(QUANTITY_PRECISION, QUANTITY_SCALE),
    FieldType.BINARY: pl.Binary(),
}


def arrow_schema(record_type: RecordType) -> pa.Schema:
    """Return the Arrow schema of the table's columns, in table order, with field ids in the metadata."""
    return pa.schema([_arrow_field(field) for field in record_type.fields])


def polars_schema(record_type: RecordType) -> dict[str, pl.DataType]:
    """Return the Polars dtypes of all the table's columns, in table order."""
    return {field.name: _POLARS[field.type] for field in record_type.fields}


def message_polars_schema(record_type: RecordType) -> dict[str, pl.DataType]:
    """Return the Polars dtypes of the columns that travel in the message, in the order of the wire."""
    return {field.name: _POLARS[field.type] for field in record_type.message_fields}


def message_rows(rows: pl.DataFrame, record_type: RecordType) -> pl.DataFrame:
    """Return rows with the message's columns and types, in its order; optional columns that they lack are null.

    Raises:
        polars.exceptions.PolarsError: a column that is not optional is missing, or one has another type.
    """
    fields = zip(record_type.message_fields, message_polars_schema(record_type).values(), strict=True)
    return rows.select(
        (pl.lit(None) if field.nullable and field.name not in rows.columns else pl.col(field.name))
        .cast(kind)
        .alias(field.name)
        for field, kind in fields
    )


def _arrow_field(field: Field) -> pa.Field:
    metadata = {_FIELD_ID: str(field.field_id).encode()}
    if field.type is FieldType.STRINGS:
        element = pa.field("element", pa.string(), nullable=False, metadata={_FIELD_ID: str(field.element_id).encode()})
        return pa.field(field.name, pa.list_(element), nullable=field.nullable, metadata=metadata)
    return pa.field(field.name, _ARROW[field.type], nullable=field.nullable, metadata=metadata)
