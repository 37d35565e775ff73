"""Turns columns of texts, numbers and lists into values of a field, exactly, and says where they are right."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.decimals import decimal_from_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.feeds.mapped.columns import ExtraColumns, IntegerColumn, ListColumn, NumberColumn, TextColumn

_EXPONENT: Final = r"^-?[0-9]{1,20}(\.[0-9]{0,40})?[eE][+-]?[0-9]{1,2}$"
_JSON_OBJECT: Final = r"(?s)^\s*\{.*\}\s*$"


@dataclass(frozen=True, slots=True)
class Value:
    """An expression of a field's value, and one that is true where a record may have it."""

    value: pl.Expr
    holds: pl.Expr


def text_of(name: str, kind: pl.DataType, field: str) -> pl.Expr:
    """Return a column as text: numbers exactly, floats as the shortest text that means the same float.

    Raises:
        ConfigurationError: the column's values are none that have one text.
    """
    if isinstance(kind, pl.String):
        return pl.col(name)
    if kind.is_numeric() or isinstance(kind, pl.Boolean | pl.Categorical | pl.Enum | pl.Null):
        return pl.col(name).cast(pl.String)
    raise ConfigurationError(
        f"expected texts or numbers in column {name!r}, from which {field} comes, found {kind}: map another column"
    )


def is_empty(text: pl.Expr, empty: Sequence[str]) -> pl.Expr:
    """Say where there is no value."""
    return text.is_null() | text.is_in(_texts(empty))


def plain_number(text: pl.Expr) -> pl.Expr:
    """Return numbers written with an exponent as they are without one."""
    return text.map_batches(_without_exponents, return_dtype=pl.String, is_elementwise=True)


def number(text: pl.Expr, said: NumberColumn, *, precision: int, scale: int, nullable: bool) -> Value:
    """Return decimal numbers; what (precision, scale) does not hold without rounding is not right."""
    plain = plain_number(text)
    if said.scale:
        plain = _shifted(plain, said.scale)
    return _or_empty(decimal_from_text(plain, precision=precision, scale=scale), text, said.empty, nullable=nullable)


def integer(text: pl.Expr, said: IntegerColumn, kind: pl.DataType, *, nullable: bool) -> Value:
    """Return whole numbers of the field's size."""
    whole = pl.when(text.str.contains(r"^-?[0-9]{1,19}$")).then(text).cast(kind, strict=False)
    return _or_empty(whole, text, said.empty, nullable=nullable)


def words(text: pl.Expr | None, said: TextColumn, *, nullable: bool) -> Value:
    """Return texts, or what the mapping says that each of them means."""
    if text is None:
        return Value(pl.lit(said.constant, pl.String), pl.lit(value=True))
    if said.values is None:
        return _or_empty(text, text, said.empty, nullable=nullable)
    known = text.is_in(_texts(list(said.values)))
    meant = text.replace_strict(list(said.values), list(said.values.values()), default=None, return_dtype=pl.String)
    absent = ~known & is_empty(text, said.empty)
    right = pl.when(nullable).then(known | absent).otherwise(known & meant.is_not_null())
    return Value(pl.when(known).then(meant), right)


def lists(name: str, kind: pl.DataType, said: ListColumn, field: str) -> Value:
    """Return lists of texts; no value is an empty list."""
    nothing = pl.lit([], dtype=pl.List(pl.String))
    if isinstance(kind, pl.List) and isinstance(kind.inner, pl.String):
        found = pl.col(name)
        return Value(
            found.fill_null(nothing), ~found.list.eval(pl.element().is_null()).list.any().fill_null(value=False)
        )
    text = text_of(name, kind, field)
    several = pl.concat_list(text) if said.separator is None else text.str.split(said.separator)
    several = several.list.eval(pl.element().filter(pl.element() != ""))
    return Value(pl.when(is_empty(text, said.empty)).then(nothing).otherwise(several), pl.lit(value=True))


def json_of(said: ExtraColumns, kinds: dict[str, pl.DataType], field: str) -> Value:
    """Return one JSON object a record, or null where no column has anything."""
    if said.column is not None:
        text = text_of(said.column, kinds[said.column], field)
        return _or_empty(pl.when(text.str.contains(_JSON_OBJECT)).then(text), text, said.empty, nullable=True)
    cells = {name: _shown(name, kinds[name]) for name in said.columns}
    some = pl.any_horizontal(~is_empty(cell, said.empty) for cell in cells.values())
    encoded = pl.struct(cell.alias(name) for name, cell in cells.items()).struct.json_encode()
    return Value(pl.when(some).then(encoded), pl.lit(value=True))


def _shown(name: str, kind: pl.DataType) -> pl.Expr:
    """Return a column as a text in any case: in `extra`, times and lists say what they are as well."""
    if kind.is_nested():
        return pl.struct(pl.col(name)).struct.json_encode()
    return pl.col(name) if isinstance(kind, pl.String) else pl.col(name).cast(pl.String)


def _or_empty(value: pl.Expr, text: pl.Expr, empty: Sequence[str], *, nullable: bool) -> Value:
    absent = is_empty(text, empty)
    found = pl.when(~absent).then(value)
    return Value(found, (absent | value.is_not_null()) if nullable else found.is_not_null())


def _without_exponents(texts: pl.Series) -> pl.Series:
    """Return 1.5e-7 as 0.00000015: each distinct text once, since few numbers are written so."""
    written = texts.filter(texts.str.contains(_EXPONENT).fill_null(value=False)).unique().to_list()
    if not written:
        return texts
    return texts.replace({text: format(Decimal(text), "f") for text in written})


def _shifted(text: pl.Expr, scale: int) -> pl.Expr:
    """Return whole numbers with their last digits as decimals; null where a text is none."""
    digits = text.str.strip_prefix("-").str.zfill(scale + 1)
    sign = pl.when(text.str.starts_with("-")).then(pl.lit("-")).otherwise(pl.lit(""))
    point = pl.concat_str(sign, digits.str.head(-scale), pl.lit("."), digits.str.tail(scale))
    return pl.when(text.str.contains(r"^-?[0-9]{1,38}$")).then(point)


def _texts(texts: Sequence[str]) -> pl.Series:
    return pl.Series(list(texts), dtype=pl.String).implode()
