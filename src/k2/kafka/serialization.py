"""Encodes rows as Avro in the Confluent wire format, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

    from k2.schemas.records import RecordType


def encode_frame(record_type: RecordType, frame: pl.DataFrame, schema_id: int) -> list[bytes]:
    """Return one message a row; `frame` has the columns and dtypes of `message_polars_schema(record_type)`.

    Raises:
        ConfigurationError: a column is missing, unknown or of another dtype.
        RecordError: a value that must be there is null, or a decimal has more digits than the schema allows.
    """
    raise NotImplementedError
