"""Columns as JSON and CSV write them: decimals with every digit, times in ISO 8601, bytes in base 64."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from decimal import Decimal

_ESCAPED: Final = r"[\x00-\x1f\x22\x5c\x7f]"
"""Characters that JSON texts escape."""
_FRACTION: Final = {"s": "", "ms": "%.3f", "us": "%.6f", "ns": "%.9f"}


def plain(value: Decimal) -> str:
    """Return a decimal with every digit, no exponent, and no zeros at the end: 36.6670 is 36.667, 100.0 is 100."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def as_text(table: pa.Table, *, lists_as_text: bool) -> pl.DataFrame:
    """Return the table with each column in the form in which a text format holds it.

    Lists become JSON texts where `lists_as_text`; a type that neither format knows becomes Python's text of it.
    """
    names = distinct_names(table.column_names)
    columns = [_column(table.column(number), lists_as_text=lists_as_text) for number in range(table.num_columns)]
    return pl.DataFrame([column.alias(name) for name, column in zip(names, columns, strict=True)])


def _column(column: pa.ChunkedArray, *, lists_as_text: bool) -> pl.Series:
    kind = column.type
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        return _lists(column) if lists_as_text else _series(column)
    written: Callable[[pa.ChunkedArray], pl.Series] = next(
        (write for test, write in _WRITTEN if test(kind)), lambda column: _texts(column, str)
    )
    return written(column)


def _series(column: pa.ChunkedArray) -> pl.Series:
    return pl.Series(pl.from_arrow(column))


def _decimals(column: pa.ChunkedArray) -> pl.Series:
    if column.type.scale <= 0:
        return _texts(column, plain)
    text = _series(column).cast(pl.String)
    return text.str.strip_chars_end("0").str.strip_chars_end(".")


def _times(column: pa.ChunkedArray) -> pl.Series:
    times = _series(column)
    zone = "" if column.type.tz is None else "Z"
    if zone:
        times = times.dt.convert_time_zone("UTC")
    return times.dt.to_string(f"%Y-%m-%dT%H:%M:%S{_FRACTION[column.type.unit]}{zone}")


def _texts(column: pa.ChunkedArray, text_of: Callable[..., str]) -> pl.Series:
    return pl.Series([None if value is None else text_of(value) for value in column.to_pylist()], dtype=pl.String)


def _lists(column: pa.ChunkedArray) -> pl.Series:
    lists = _series(column)
    elements = lists.explode()
    if elements.str.contains(_ESCAPED).any() or lists.list.eval(pl.element().is_null()).list.any().any():
        return _texts(column, lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    name = lists.name
    joined = pl.format('["{}"]', pl.col(name).list.join('","'))
    empty = pl.col(name).list.len() == 0
    return lists.to_frame().select(pl.when(empty).then(pl.lit("[]")).otherwise(joined).alias(name)).to_series()


def _days(column: pa.ChunkedArray) -> pl.Series:
    return _series(column).dt.to_string("%Y-%m-%d")


def _bytes(column: pa.ChunkedArray) -> pl.Series:
    return _texts(column, lambda value: base64.b64encode(value).decode())


def distinct_names(names: Sequence[str]) -> list[str]:
    """Return the names with a number added to those that came before."""
    found: list[str] = []
    for name in names:
        number, free = 1, name
        while free in found:
            free, number = f"{name}_{number}", number + 1
        found.append(free)
    return found


_WRITTEN: Final[Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.ChunkedArray], pl.Series]]]] = (
    (pa.types.is_decimal, _decimals),
    (pa.types.is_timestamp, _times),
    (pa.types.is_date, _days),
    (pa.types.is_binary, _bytes),
    (pa.types.is_large_binary, _bytes),
    (pa.types.is_string, _series),
    (pa.types.is_large_string, _series),
    (pa.types.is_integer, _series),
    (pa.types.is_floating, _series),
    (pa.types.is_boolean, _series),
    (pa.types.is_null, _series),
)
"""How a column of each type is written."""
