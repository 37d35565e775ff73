"""Guesses how a column of times is written: by its type, by the size of its numbers, or by the formats that fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Sequence

_NUMBER: Final = r"^[0-9]+(\.[0-9]+)?$"
_FIRST, _END = 631_152_000, 4_102_444_800
"""Seconds of 1990 and 2100: a number in another unit lies far outside."""
_UNITS: Final = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_DATES: Final = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%Y.%m.%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y")
_TIMES: Final = ("%H:%M:%S%.f", "%H:%M")
_BETWEEN: Final = (" ", "T", "D")
NO_ZONE: Final = "the file says no zone: UTC, or the venue's?"


@dataclass(frozen=True, slots=True)
class Guessed:
    """What a mapping may say of a field, and what of it is not sure."""

    said: dict[str, Any]
    unsure: tuple[str, ...] = ()


def guess_time(columns: Sequence[pl.Series]) -> Guessed | None:
    """Guess a time from one column, or from a date's and a time's; None where nothing fits all values."""
    name: dict[str, Any] = (
        {"column": columns[0].name} if len(columns) == 1 else {"columns": [each.name for each in columns]}
    )
    kind = columns[0].dtype
    if len(columns) == 1 and isinstance(kind, pl.Datetime):
        return Guessed(name) if kind.time_zone else Guessed({**name, "zone": "UTC"}, (NO_ZONE,))
    if any(not (each.dtype.is_numeric() or isinstance(each.dtype, pl.String)) for each in columns):
        return None
    texts = _texts(columns)
    if texts.is_empty():
        return None
    if len(columns) == 1 and texts.str.contains(_NUMBER).all():
        unit = _unit_of(texts)
        return None if unit is None else Guessed({**name, "unit": unit})
    return _formatted(name, texts)


def guess_date(column: pl.Series) -> Guessed | None:
    """Guess a date; None where nothing fits all values."""
    if isinstance(column.dtype, pl.Date):
        return Guessed({"column": column.name})
    if not (column.dtype.is_integer() or isinstance(column.dtype, pl.String)):
        return None
    texts = _texts([column])
    fitting = [form for form in _DATES if _fits(texts, pl.Date(), form)]
    return _chosen({"column": column.name}, fitting, ()) if fitting else None


def is_time_of_day(column: pl.Series) -> bool:
    """Say whether a column has times without a date."""
    if not isinstance(column.dtype, pl.String):
        return False
    texts = _texts([column])
    return not texts.is_empty() and texts.str.contains(r"^[0-9]{1,2}:[0-9]{2}").all()


def _formatted(name: dict[str, Any], texts: pl.Series) -> Guessed | None:
    forms = [f"{date}{mark}{time}" for date in _DATES for mark in _BETWEEN for time in _TIMES]
    local = [form for form in forms if _fits(texts, pl.Datetime("us"), form)]
    if local:
        return _chosen({**name, "zone": "UTC"}, local, (NO_ZONE,))
    offset = [form for form in (f"{form}%#z" for form in forms) if _fits(texts, pl.Datetime("us", "UTC"), form)]
    return _chosen(name, offset, ()) if offset else None


def _chosen(said: dict[str, Any], fitting: Sequence[str], unsure: tuple[str, ...]) -> Guessed:
    others = f"{' or '.join(fitting[1:])} would fit as well" if fitting[1:] else None
    return Guessed({**said, "format": fitting[0]}, unsure if others is None else (others, *unsure))


def _fits(texts: pl.Series, kind: pl.Date | pl.Datetime, form: str) -> bool:
    try:
        return not texts.is_empty() and texts.str.strptime(kind, form, strict=False).null_count() == 0
    except pl.exceptions.PolarsError:
        return False


def _unit_of(texts: pl.Series) -> str | None:
    """Return the unit in which all numbers lie between 1990 and 2100."""
    whole = texts.str.extract(r"^([0-9]{1,19})", 1).cast(pl.Int128, strict=False)
    for unit, scale in _UNITS.items():
        if whole.is_between(_FIRST * scale, _END * scale).fill_null(value=False).all():
            return unit
    return None


def _texts(columns: Sequence[pl.Series]) -> pl.Series:
    frame = pl.DataFrame(columns).select(pl.concat_str(pl.all().cast(pl.String), separator=" ").alias("text"))
    texts = frame["text"].drop_nulls()
    return texts.filter(texts.str.strip_chars() != "")
