"""Exact decimals, column by column: from a venue's text, and from integers in units of a scale. Never through float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

_WORD_BYTES: Final = 16


def is_decimal_text(column: pl.Expr, *, precision: int, scale: int) -> pl.Expr:
    """Say where a text is a plain decimal number that (precision, scale) holds without rounding; null stays null.

    Leading zeros of the whole part and trailing zeros of the fraction take no digit of the precision.
    """
    whole = precision - scale
    return column.str.contains(rf"^-?0*[0-9]{{1,{whole}}}(\.[0-9]{{1,{scale}}}0*)?$")


def decimal_from_text(column: pl.Expr, *, precision: int, scale: int) -> pl.Expr:
    """Return the numbers that the texts say, as Decimal(precision, scale); null where a text is not exactly one."""
    exact = pl.when(is_decimal_text(column, precision=precision, scale=scale)).then(column)
    return exact.cast(pl.Decimal(precision, scale))


def decimal_from_units(units: NDArray[np.int64], *, precision: int, scale: int) -> pl.Series:
    """Return `units` / 10^scale as Decimal(precision, scale), without nulls."""
    words = np.empty((len(units), 2), dtype="<i8")
    words[:, 0] = units
    words[:, 1] = units >> 63  # the sign fills the upper half of the 128 bits
    buffer = pa.py_buffer(words.tobytes())
    array = pa.Array.from_buffers(pa.decimal128(precision, scale), len(units), [None, buffer])
    return pl.Series(array, dtype=pl.Decimal(precision, scale))
