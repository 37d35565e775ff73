"""Encodes rows as Avro in the Confluent wire format, column by column."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any, Final

import fastavro
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from fastavro.read import SchemaResolutionError

from k2.common.errors import ConfigurationError, RecordError
from k2.kafka.avro_blocks import FRAME_BYTES
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import FieldType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from k2.schemas.avro import AvroSchema
    from k2.schemas.records import Field, RecordType

    Int64s = NDArray[np.int64]
    UInt64s = NDArray[np.uint64]
    Bytes = NDArray[np.uint8]

_VARINT_BYTES_MAX: Final = 10
_DECIMAL_BYTES: Final = 16
_NULL: Final = b"\x00"
_PRESENT: Final = b"\x02"
"""Branch 0 and branch 1 of K2's unions, which begin with null."""

_BINARY: Final = pa.large_binary()
_EMPTY: Final = pa.scalar(b"", _BINARY)
_DIGITS: Final = {FieldType.PRICE: 28, FieldType.QUANTITY: 28}


def frame_bytes(schema_id: int) -> bytes:
    """Return the five bytes that begin a message: a zero and the schema's id."""
    return b"\0" + schema_id.to_bytes(4, "big")


def encode_frame(record_type: RecordType, frame: pl.DataFrame, schema_id: int) -> list[bytes]:
    """Return one message a row; `frame` has the columns and dtypes of `message_polars_schema(record_type)`.

    Raises:
        ConfigurationError: a column is missing, unknown or of another dtype.
        RecordError: a value that must be there is null, or a decimal has more digits than the schema allows.
    """
    _check_columns(record_type, frame)
    if not frame.height:
        return []
    pieces: list[Any] = [pa.scalar(frame_bytes(schema_id), _BINARY)]
    for field in record_type.message_fields:
        pieces += _pieces(field, frame[field.name])
    messages: list[bytes] = pc.binary_join_element_wise(*pieces, _EMPTY).to_pylist()
    return messages


def encode_record(schema: AvroSchema, record: Mapping[str, Any], schema_id: int) -> bytes:
    """Return one message of any schema, for the topics that carry few of them."""
    target = io.BytesIO()
    target.write(frame_bytes(schema_id))
    try:
        fastavro.schemaless_writer(target, fastavro.parse_schema(dict(schema)), dict(record))
    except (ValueError, TypeError, KeyError) as error:
        raise RecordError(f"expected a record of {schema.get('name')}, found {dict(record)!r:.200}: {error}") from error
    return target.getvalue()


def decode_record(value: bytes, schema_text: Callable[[int], str], schema: AvroSchema) -> dict[str, Any]:
    """Return the record of a message, read as `schema`; the inverse of `encode_record`.

    Raises:
        RecordError: the bytes are no such record.
    """
    if len(value) <= FRAME_BYTES or value[0]:
        raise RecordError(f"expected a message in the Confluent wire format, found {value[:16]!r}")
    written = json.loads(schema_text(int.from_bytes(value[1:FRAME_BYTES], "big")))
    try:
        record = fastavro.schemaless_reader(io.BytesIO(value[FRAME_BYTES:]), written, dict(schema))
    except (ValueError, TypeError, EOFError, IndexError, SchemaResolutionError) as error:
        raise RecordError(f"expected a record of {schema.get('name')}, found {value[:40]!r}: {error}") from error
    assert isinstance(record, dict)
    return record


def _check_columns(record_type: RecordType, frame: pl.DataFrame) -> None:
    expected = message_polars_schema(record_type)
    wrong = [f"{name} is {frame.schema.get(name)}, not {dtype}" for name, dtype in expected.items()
             if frame.schema.get(name) != dtype]  # fmt: skip
    wrong += [f"{name} is unknown" for name in frame.columns if name not in expected]
    if wrong:
        raise ConfigurationError(f"expected the columns of a {record_type.avro_name} message: {'; '.join(wrong)}")
    for field in record_type.message_fields:
        if not field.nullable and frame[field.name].null_count():
            raise RecordError(f"expected a value in {field.name} of every {record_type.avro_name}, found null")


def _pieces(field: Field, column: pl.Series) -> list[Any]:
    """Return what a field adds to each message: arrays of bytes, to be joined row by row."""
    if not field.nullable:
        return _value_pieces(field, column)
    if column.null_count() == len(column):
        return [pa.scalar(_NULL, _BINARY)]
    if not column.null_count():
        return [pa.scalar(_PRESENT, _BINARY), *_value_pieces(field, column)]
    present = column.is_not_null()
    mask = present.to_arrow()
    branch = pc.if_else(mask, pa.scalar(_PRESENT, _BINARY), pa.scalar(_NULL, _BINARY))
    return [branch, *(_spread(piece, mask) for piece in _value_pieces(field, column.drop_nulls()))]


def _spread(piece: Any, mask: Any) -> Any:
    """Return the values at the places where `mask` is true, and nothing elsewhere."""
    if isinstance(piece, pa.Scalar):
        return pc.if_else(mask, piece, _EMPTY)
    places = pc.subtract(pc.cumulative_sum(mask.cast(pa.int64())), 1)
    return pc.fill_null(piece.take(pc.if_else(mask, places, None)), _EMPTY)


def _value_pieces(field: Field, column: pl.Series) -> list[Any]:
    if field.type is FieldType.STRING:
        return _strings(column)
    if field.type is FieldType.STRINGS:
        return _lists(column)
    if field.type in _DIGITS:
        return _decimals(field, column)
    return [_varints(column.to_physical().cast(pl.Int64).to_numpy())]


def _strings(column: pl.Series) -> list[Any]:
    lengths = _varints(column.str.len_bytes().cast(pl.Int64).to_numpy())
    return [lengths, column.cast(pl.Binary).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(_BINARY)]


def _lists(column: pl.Series) -> list[Any]:
    counts = column.list.len().cast(pl.Int64)
    if counts.max() == 0:
        return [pa.scalar(b"\0", _BINARY)]
    items = column.explode(empty_as_null=False, keep_nulls=False)
    if items.null_count():
        raise RecordError(f"expected a string in every item of {column.name}, found null")
    encoded = pc.binary_join_element_wise(*_strings(items), _EMPTY)
    ends = np.concatenate(([0], np.cumsum(counts.to_numpy())))
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), encoded)
    joined = pc.binary_join(lists, _EMPTY)
    end = pc.if_else((counts > 0).to_arrow(), pa.scalar(b"\0", _BINARY), _EMPTY)
    return [_varints(counts.to_numpy()), joined, end]


def _varints(values: Int64s) -> pa.Array:
    """Encode integers as Avro does: zigzag, then seven bits a byte, the lowest first."""
    folded: UInt64s = ((values << 1) ^ (values >> 63)).view(np.uint64)
    lengths = np.ones(len(folded), np.int64)
    for count in range(1, _VARINT_BYTES_MAX):
        longer = folded >= np.uint64(1 << (7 * count))
        if not longer.any():
            break
        lengths += longer
    columns = int(lengths.max())
    shifts = np.arange(columns, dtype=np.uint64) * np.uint64(7)
    groups = ((folded[:, None] >> shifts) & np.uint64(0x7F)).astype(np.uint8)
    at = np.arange(columns)
    groups |= np.where(at < lengths[:, None] - 1, 0x80, 0).astype(np.uint8)
    return _binary_array(groups[at < lengths[:, None]], lengths)


def _decimals(field: Field, column: pl.Series) -> list[Any]:
    """Encode decimals as Avro does: length, then the unscaled value in two's complement, highest byte first."""
    largest = 10 ** _DIGITS[field.type] - 1
    array = column.to_arrow(compat_level=pl.CompatLevel.oldest())
    raw = np.frombuffer(array.buffers()[1], np.uint8)[array.offset * _DECIMAL_BYTES :]
    little: Bytes = raw[: len(array) * _DECIMAL_BYTES].reshape(-1, _DECIMAL_BYTES)
    halves = little.view(np.int64)
    low, high = halves[:, 0].view(np.uint64), halves[:, 1]
    _check_digits(field, low, high, largest)
    lengths = _significant_bytes(low, high)
    columns = int(lengths.max())
    big = little[:, columns - 1 :: -1] if columns < _DECIMAL_BYTES else little[:, ::-1]
    keep = np.arange(columns) >= columns - lengths[:, None]
    return [_varints(lengths), _binary_array(big[keep], lengths)]


def _check_digits(field: Field, low: UInt64s, high: Int64s, largest: int) -> None:
    top, bottom = largest >> 64, np.uint64(largest & 0xFFFF_FFFF_FFFF_FFFF)
    above = (high > top) | ((high == top) & (low > bottom))
    least = -largest
    top, bottom = least >> 64, np.uint64(least & 0xFFFF_FFFF_FFFF_FFFF)
    below = (high < top) | ((high == top) & (low < bottom))
    if (above | below).any():
        raise RecordError(f"expected at most {_DIGITS[field.type]} digits in {field.name}, found more")


def _significant_bytes(low: UInt64s, high: Int64s) -> Int64s:
    """Return how many bytes hold each value of 128 bits in two's complement, at least 1."""
    negative = high < 0
    folded_low = np.where(negative, ~low, low)
    folded_high = np.where(negative, ~high, high).view(np.uint64)
    lengths = np.ones(len(low), np.int64)
    for count in range(1, _DECIMAL_BYTES):
        bits = 8 * count - 1
        if bits < 64:  # noqa: PLR2004 - the low half
            longer = (folded_low >= np.uint64(1 << bits)) | (folded_high > 0)
        else:
            longer = folded_high >= np.uint64(1 << (bits - 64))
        if not longer.any():
            break
        lengths += longer
    return lengths


def _binary_array(content: Bytes, lengths: Int64s) -> pa.Array:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return pa.Array.from_buffers(
        _BINARY, len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(content))]
    )
