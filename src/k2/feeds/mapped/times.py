"""Turns columns into times and dates: nanoseconds since 1970 in UTC, exact to the last digit that the file has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.mapped.texts import Value, is_empty, plain_number, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.feeds.mapped.columns import DateColumn, TimeColumn

YEARS: Final = (1970, 2200)
"""Years whose times are read; a nanosecond count of 64 bits ends in 2262."""
_DECIMALS: Final = {"s": 9, "ms": 6, "us": 3, "ns": 0}
_TOO_FINE: Final = r"\.[0-9]{10,}"
_WHOLE_DIGITS: Final = 20


def time(said: TimeColumn, kinds: Mapping[str, pl.DataType], field: str) -> Value:
    """Return UTC nanoseconds; null is not right.

    Raises:
        ConfigurationError: the mapping's unit, format or zone does not go with the column.
    """
    if said.column is not None and isinstance(kinds[said.column], pl.Datetime):
        return _typed(said, said.column, kinds[said.column], field)
    texts = [text_of(name, kinds[name], field) for name in said.names]
    text = texts[0] if len(texts) == 1 else pl.concat_str(texts, separator=" ")
    if said.unit is not None:
        return _number(text, said, said.unit)
    if said.format is None:
        raise ConfigurationError(
            f"expected a unit (s, ms, us, ns) or a format for {field}, found neither: column {said.names[0]!r} holds "
            "numbers or texts; say in the mapping how they are to be read"
        )
    return _text(text, said, said.format)


def expected_of(said: TimeColumn) -> str:
    """Return in words what a time has to be."""
    if said.unit is not None:
        return f"a number of {said.unit} since 1970, exact to the nanosecond,"
    zone = f" that the clocks of {said.zone} show (once, unless `ambiguous` says which)" if said.zone else ""
    return f"a time {said.format}{zone}" if said.format else f"a time{zone}"


def date(said: DateColumn, kinds: Mapping[str, pl.DataType], field: str) -> Value:
    """Return dates; null is not right."""
    if isinstance(kinds[said.column], pl.Date):
        found = pl.col(said.column)
    elif said.format is None:
        raise ConfigurationError(
            f"expected a format for {field}, such as '%Y-%m-%d', found none: column {said.column!r} holds no dates; "
            "say in the mapping how its texts are to be read"
        )
    else:
        text = text_of(said.column, kinds[said.column], field)
        found = pl.when(~is_empty(text, said.empty)).then(text).str.strptime(pl.Date, said.format, strict=False)
    return Value(found, found.is_not_null())


def day_of(time_ns: str, zone: str) -> pl.Expr:
    """Return the day that a column of UTC nanoseconds falls on, by the clocks of a zone."""
    return pl.col(time_ns).cast(pl.Datetime("ns", "UTC")).dt.convert_time_zone(zone).dt.date()


def _number(text: pl.Expr, said: TimeColumn, unit: str) -> Value:
    decimals = _DECIMALS[unit]
    whole = rf"^-?0*[0-9]{{1,{_WHOLE_DIGITS}}}"
    fraction = rf"(\.[0-9]{{1,{decimals}}}0*)?$" if decimals else r"(\.0*)?$"
    plain = plain_number(text)
    exact = pl.when(plain.str.contains(whole + fraction) & ~is_empty(text, said.empty)).then(plain)
    found = (exact.cast(pl.Decimal(38, decimals)) * 10**decimals).cast(pl.Int64, strict=False)
    return Value(found, found.is_not_null())


def _text(text: pl.Expr, said: TimeColumn, written: str) -> Value:
    """Parse twice: in nanoseconds, years that 64 bits do not hold would come out as other years."""
    zone = "UTC" if said.zone is None else None
    exact = pl.when(~text.str.contains(_TOO_FINE) & ~is_empty(text, said.empty)).then(text)
    coarse, fine = (exact.str.strptime(pl.Datetime(unit, zone), written, strict=False) for unit in ("us", "ns"))
    return _bounded(said, coarse, fine)


def _typed(said: TimeColumn, name: str, kind: pl.DataType, field: str) -> Value:
    assert isinstance(kind, pl.Datetime)
    if said.unit is not None or said.format is not None:
        raise ConfigurationError(
            f"expected neither unit nor format for {field}, found one: column {name!r} holds times ({kind}) already; "
            "remove it from the mapping"
        )
    if (kind.time_zone is None) == (said.zone is None):
        raise ConfigurationError(
            f"expected a zone for {field}, found none: column {name!r} holds times without one; add `zone: UTC`, or "
            "the zone whose clocks they were read from"
            if said.zone is None
            else f"expected no zone for {field}, found {said.zone}: the times of column {name!r} have one already "
            f"({kind.time_zone}); remove it from the mapping"
        )
    return _bounded(said, pl.col(name), pl.col(name))


def _bounded(said: TimeColumn, coarse: pl.Expr, fine: pl.Expr) -> Value:
    if said.zone is not None:
        ambiguous = {"refuse": "null", "earliest": "earliest", "latest": "latest"}[said.ambiguous]
        coarse, fine = (
            each.dt.replace_time_zone(said.zone, ambiguous=pl.lit(ambiguous), non_existent="null")
            for each in (coarse, fine)
        )
    found = pl.when(coarse.dt.year().is_between(*YEARS)).then(fine.dt.timestamp("ns"))
    return Value(found, found.is_not_null())
