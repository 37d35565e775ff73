"""Makes records of a file's cells as its mapping says, exactly; each line that is none is named with what is wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.asx_lines import BadLine, ReadLines
from k2.feeds.mapped.columns import (
    DEFAULT_ACTION,
    DateColumn,
    ExtraColumns,
    IntegerColumn,
    ListColumn,
    NumberColumn,
    TextColumn,
    TimeColumn,
)
from k2.feeds.mapped.texts import Value, integer, json_of, lists, number, text_of, words
from k2.feeds.mapped.times import date, day_of, expected_of, time
from k2.kafka.record_rules import ACTIONS, EARLIEST_NS, SIDES, TRADING_DATE_DAYS_MAX
from k2.schemas.arrow import message_rows
from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    RECORD_TYPES,
    FieldType,
)
from k2.schemas.symbols import CONTROL_CHARACTERS, SYMBOL_BYTES_MAX, SYMBOL_RULE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.feeds.mapped.columns import Column
    from k2.feeds.mapped.mapping import FileMapping
    from k2.schemas.records import Field

LINE: Final = "k2.line"
CONTENT: Final = "k2.content"
"""The line's bytes; where cells have no such column, a bad row is shown by its cells."""
BROKEN: Final = "k2.broken"
"""Which of DEFECTS a line has that has no cells, else null."""
DEFECTS: Final = (
    ("NotText", "text in UTF-8"),
    ("InvalidQuoting", "fields in quotes that end where the field does, on the same line"),
    ("WrongColumns", "as many columns as the file has names"),
)
_VALUE: Final = "k2.value."
_DIGITS: Final = {
    FieldType.PRICE: (PRICE_PRECISION, PRICE_SCALE),
    FieldType.QUANTITY: (QUANTITY_PRECISION, QUANTITY_SCALE),
}
_NUMBER_WORDS: Final = {FieldType.PRICE: ("InvalidPrice", "a price"), FieldType.QUANTITY: ("InvalidSize", "a quantity")}


@dataclass(frozen=True, slots=True)
class _Rule:
    error_class: str
    expected: str
    holds: pl.Expr


class RecordMaker:
    """Makes the records of one file. `latest_ns` bounds its events: what is later, the log's reader would refuse."""

    def __init__(self, mapping: FileMapping, *, zone: str, source: str, latest_ns: int) -> None:
        self._mapping = mapping
        self._record_type = RECORD_TYPES[mapping.data_type]
        self._zone = zone
        self._source = source
        self._latest_ns = latest_ns

    def make(self, cells: pl.DataFrame) -> ReadLines:
        """Return the records of some lines, in their order, and the bad lines.

        `cells` have LINE, BROKEN, perhaps CONTENT, and the mapping's columns.

        Raises:
            ConfigurationError: the mapping does not go with the types of the columns.
        """
        kinds = dict(cells.schema)
        values: dict[str, pl.Expr] = {}
        rules = [_Rule(*defect, holds=pl.lit(value=True)) for defect in DEFECTS]
        for field in self._record_type.message_fields:
            column = self._mapping.columns.get(field.name)
            if column is None and field.name == "action":
                column = DEFAULT_ACTION
            if column is not None:
                value = self._value_of(column, field, kinds)
                values[field.name] = value.value
                rules += self._rules(column, field, value)
        try:
            made = cells.with_columns(value.alias(_VALUE + name) for name, value in values.items())
            made = self._with_defaults(made, values)
            made = made.with_columns(
                pl.coalesce(
                    pl.col(BROKEN),
                    *(pl.when(~rule.holds.fill_null(value=False)).then(at) for at, rule in enumerate(rules)),
                ).alias(BROKEN)
            )
        except pl.exceptions.PolarsError as error:
            raise ConfigurationError(
                f"expected formats in {self._mapping.path} that texts can be read by, found one that none can: {error}"
            ) from error
        bad = made.filter(pl.col(BROKEN).is_not_null())
        good = made.filter(pl.col(BROKEN).is_null())
        return ReadLines(self._rows(good, values), _bad_lines(bad, cells.columns, rules))

    def _value_of(self, column: Column, field: Field, kinds: dict[str, pl.DataType]) -> Value:
        try:
            return _value_of(column, field, kinds)
        except ConfigurationError as error:
            raise ConfigurationError(f"{self._mapping.path}: {error}") from None

    def _with_defaults(self, made: pl.DataFrame, values: dict[str, pl.Expr]) -> pl.DataFrame:
        event = _VALUE + "ts_event_ns"
        if "ts_recv_ns" not in values:
            made = made.with_columns(pl.col(event).alias(_VALUE + "ts_recv_ns"))
        if "trading_date" not in values:
            made = made.with_columns(day_of(event, self._zone).alias(_VALUE + "trading_date"))
        if "conditions" not in values:
            made = made.with_columns(pl.lit([], dtype=pl.List(pl.String)).alias(_VALUE + "conditions"))
        return made

    def _rows(self, good: pl.DataFrame, values: dict[str, pl.Expr]) -> pl.DataFrame:
        names = {*values, "ts_recv_ns", "trading_date", "conditions"}
        rows = good.select(
            *(pl.col(_VALUE + name).alias(name) for name in names),
            pl.lit(self._mapping.exchange).alias("exchange"),
            pl.lit(self._source).alias("source"),
            pl.col(LINE).alias("source_sequence"),
        )
        return message_rows(rows, self._record_type)

    def _rules(self, column: Column, field: Field, value: Value) -> list[_Rule]:
        """Return the rules of one field; those beyond its text are said of the value that was made."""
        where = "" if not column.names else f" in column {' and '.join(column.names)}"
        found = pl.col(_VALUE + field.name)
        if isinstance(column, TimeColumn):
            rules = [_Rule("InvalidTime", f"{expected_of(column)}{where} ({field.name})", value.holds)]
            if field.name == "ts_event_ns":
                rules.append(_in_time(found, self._latest_ns))
            return rules
        if isinstance(column, DateColumn):
            day = pl.col(_VALUE + "ts_event_ns").cast(pl.Datetime("ns")).dt.date()
            near = (found - day).dt.total_days().abs() <= TRADING_DATE_DAYS_MAX
            return [
                _Rule("InvalidDate", f"a date {column.format or ''}{where} ({field.name})", value.holds),
                _Rule(
                    "TradingDateOutOfBounds", f"a date within {TRADING_DATE_DAYS_MAX} days of the event{where}", near
                ),
            ]
        if isinstance(column, NumberColumn):
            error_class, what = _NUMBER_WORDS[field.type]
            precision, scale = _DIGITS[field.type]
            what = f"{what} of at most {precision - scale} digits and {scale} decimals"
            if column.scale:
                what = f"{what}, written as a whole number with {column.scale} of its digits as decimals,"
            return [_Rule(error_class, f"{what}{where} ({field.name})", value.holds)]
        if isinstance(column, TextColumn):
            return _text_rules(column, field, value, found, where)
        error_class, what = _OTHER_WORDS[type(column)]
        return [_Rule(error_class, f"{what}{where} ({field.name})", value.holds)]


_OTHER_WORDS: Final[dict[type, tuple[str, str]]] = {
    IntegerColumn: ("InvalidNumber", "a whole number"),
    ListColumn: ("InvalidList", "texts without nulls"),
    ExtraColumns: ("InvalidExtra", "a JSON object"),
}


def _value_of(column: Column, field: Field, kinds: dict[str, pl.DataType]) -> Value:
    match column:
        case TimeColumn():
            value = time(column, kinds, field.name)
        case DateColumn():
            value = date(column, kinds, field.name)
        case ExtraColumns():
            value = json_of(column, kinds, field.name)
        case ListColumn():
            value = lists(column.column, kinds[column.column], column, field.name)
        case TextColumn():
            text = None if column.column is None else text_of(column.column, kinds[column.column], field.name)
            value = words(text, column, nullable=field.nullable)
        case NumberColumn():
            text = text_of(column.column, kinds[column.column], field.name)
            precision, scale = _DIGITS[field.type]
            value = number(text, column, precision=precision, scale=scale, nullable=field.nullable)
        case IntegerColumn():
            text = text_of(column.column, kinds[column.column], field.name)
            whole = pl.Int32() if field.type is FieldType.INT else pl.Int64()
            value = integer(text, column, whole, nullable=field.nullable)
    return value


def _text_rules(column: TextColumn, field: Field, value: Value, found: pl.Expr, where: str) -> list[_Rule]:
    if field.name == "symbol":
        size = found.str.len_bytes()
        holds = value.holds & (size >= 1) & (size <= SYMBOL_BYTES_MAX) & ~found.str.contains(CONTROL_CHARACTERS)
        return [_Rule("InvalidSymbol", f"{SYMBOL_RULE}{where}", holds)]
    allowed = {"side": SIDES, "action": ACTIONS}.get(field.name)
    known = "" if column.values is None else f" (written as {', '.join(map(repr, column.values))})"
    if allowed is None:
        return [_Rule("InvalidText", f"a known text{known}{where} ({field.name})", value.holds)]
    holds = value.holds & (found.is_in(allowed) | (found.is_null() if field.nullable else pl.lit(value=False)))
    error_class = "InvalidSide" if field.name == "side" else "InvalidAction"
    return [_Rule(error_class, f"{' or '.join(allowed)}{known}{where} ({field.name})", holds)]


def _in_time(found: pl.Expr, latest_ns: int) -> _Rule:
    return _Rule(
        "EventTimeOutOfBounds",
        "an event from 1990 to a day from now (is the unit, format or zone of ts_event_ns right?)",
        (found >= EARLIEST_NS) & (found <= latest_ns),
    )


def _bad_lines(bad: pl.DataFrame, names: Sequence[str], rules: Sequence[_Rule]) -> tuple[BadLine, ...]:
    if bad.is_empty():
        return ()
    if CONTENT in bad.columns:
        content = bad[CONTENT]
    else:
        cells = [name for name in names if name not in (LINE, BROKEN)]
        content = bad.select(pl.struct(cells).struct.json_encode().cast(pl.Binary)).to_series()
    return tuple(
        BadLine(line, shown, rules[at].error_class, rules[at].expected)
        for line, shown, at in zip(bad[LINE].to_list(), content.to_list(), bad[BROKEN].to_list(), strict=True)
    )
