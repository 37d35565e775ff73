"""The rules that a decoded record must keep, checked for all rows at once; each broken one has a reason in words."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from k2.common.units import NS_PER_DAY
from k2.schemas.records import PRICE_PRECISION, PRICE_SCALE, QUANTITY_PRECISION, QUANTITY_SCALE, Action, FieldType
from k2.schemas.symbols import CONTROL_CHARACTERS, SYMBOL_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k2.schemas.records import Field, RecordType

EARLIEST_NS: Final = 631_152_000_000_000_000
"""1990-01-01."""

ACTIONS: Final = (Action.NEW, Action.CANCEL, Action.CORRECT)
SIDES: Final = ("BUY", "SELL")
TRADING_DATE_DAYS_MAX: Final = 31
"""A session's date lies near its events; night sessions before long holidays belong to a date weeks ahead."""

KEY: Final = "k2.key"
TS_LOG_MS: Final = "k2.ts_log_ms"
"""Columns that the rules see beside the record's own; with a dot, so that no field can have the name."""

_INT32_MAX: Final = 2**31 - 1
_LARGEST: Final = {
    FieldType.PRICE: Decimal(10**PRICE_PRECISION - 1).scaleb(-PRICE_SCALE),
    FieldType.QUANTITY: Decimal(10**QUANTITY_PRECISION - 1).scaleb(-QUANTITY_SCALE),
}


@dataclass(frozen=True, slots=True)
class EventBounds:
    """Events lie in [earliest_ns, the broker's append time + ahead_ns]: a function of the log, so replays agree."""

    earliest_ns: int = EARLIEST_NS
    ahead_ns: int = NS_PER_DAY


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: `broken` is true for rows that break it, and `explain` says what was expected and found."""

    error_class: str
    broken: pl.Expr
    explain: Callable[[Mapping[str, Any]], str]


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of one kind of record, in the order in which they are reported."""

    rules: tuple[Rule, ...]
    any_broken: pl.Expr
    first_broken: pl.Expr


def rules_for(record_type: RecordType, exchange: str, bounds: EventBounds) -> Rules:
    """Return the rules of a record type's messages in a topic of `exchange`."""
    fields = record_type.message_fields
    rules = (
        *(_not_null(field) for field in fields if not field.nullable),
        *_key_and_symbol(),
        _one_of("InvalidExchange", "exchange", (exchange,)),
        _one_of("InvalidAction", "action", ACTIONS),
        *(_one_of("InvalidSide", field.name, SIDES) for field in fields if field.name == "side"),
        _event_time(bounds),
        _trading_date(),
        *(_fits_int32(field) for field in fields if field.type is FieldType.INT),
        *(_fits_decimal(field) for field in fields if field.type in _LARGEST),
    )
    return Rules(
        rules,
        any_broken=pl.any_horizontal(rule.broken for rule in rules).any(),
        first_broken=pl.coalesce(pl.when(rule.broken).then(at) for at, rule in enumerate(rules)),
    )


def find_broken(rows: pl.DataFrame, rules: Rules) -> list[tuple[int, Rule]]:
    """Return the rows that break a rule, and the first rule that each of them breaks."""
    if not rows.select(rules.any_broken).item():
        return []
    first = rows.select(rules.first_broken.alias("rule")).to_series()
    return [(index, rules.rules[first[index]]) for index in first.is_not_null().arg_true().to_list()]


def _not_null(field: Field) -> Rule:
    return Rule("NullValue", pl.col(field.name).is_null(), lambda _: f"expected a value in {field.name}, found null")


def _key_and_symbol() -> tuple[Rule, ...]:
    symbol, key = pl.col("symbol"), pl.col(KEY)
    size = symbol.str.len_bytes()
    return (
        Rule(
            "InvalidSymbol",
            (size < 1) | (size > SYMBOL_BYTES_MAX),
            lambda row: f"expected a symbol of 1 to {SYMBOL_BYTES_MAX} bytes, found {len(row['symbol'].encode())}",
        ),
        Rule(
            "InvalidSymbol",
            symbol.str.contains(CONTROL_CHARACTERS),
            lambda row: f"expected a symbol without control characters, found {row['symbol']!r}",
        ),
        Rule("NullKey", key.is_null(), lambda row: f"expected the symbol {row['symbol']!r} as key, found no key"),
        Rule(
            "KeyMismatch",
            key != symbol.cast(pl.Binary),
            lambda row: f"expected the symbol {row['symbol']!r} as key, found {row[KEY][:80]!r}",
        ),
    )


def _one_of(error_class: str, name: str, allowed: tuple[str, ...]) -> Rule:
    column = pl.col(name)
    broken = column != allowed[0] if len(allowed) == 1 else ~column.is_in(allowed)
    text = " or ".join(allowed)
    return Rule(error_class, broken, lambda row: f"expected {name} {text}, found {row[name][:80]!r}")


def _event_time(bounds: EventBounds) -> Rule:
    latest = pl.col(TS_LOG_MS) * 1_000_000 + bounds.ahead_ns
    event = pl.col("ts_event_ns")

    def explain(row: Mapping[str, Any]) -> str:
        end = row[TS_LOG_MS] * 1_000_000 + bounds.ahead_ns
        return (
            f"expected ts_event_ns from {bounds.earliest_ns} to {end} (append time + 1 day), found {row['ts_event_ns']}"
        )

    return Rule("EventTimeOutOfBounds", (event < bounds.earliest_ns) | (event > latest), explain)


def _trading_date() -> Rule:
    day = pl.col("ts_event_ns") // NS_PER_DAY

    def explain(row: Mapping[str, Any]) -> str:
        found = row["ts_event_ns"] // NS_PER_DAY
        return (
            f"expected a trading_date within {TRADING_DATE_DAYS_MAX} days of the event (day {found} since 1970), "
            f"found day {row['trading_date']}"
        )

    date = pl.col("trading_date")
    broken = (date < day - TRADING_DATE_DAYS_MAX) | (date > day + TRADING_DATE_DAYS_MAX)
    return Rule("TradingDateOutOfBounds", broken, explain)


def _fits_int32(field: Field) -> Rule:
    column = pl.col(field.name)
    return Rule(
        "ValueOutOfRange",
        (column > _INT32_MAX) | (column < -_INT32_MAX - 1),
        lambda row: f"expected {field.name} of 32 bits, found {row[field.name]}",
    )


def _fits_decimal(field: Field) -> Rule:
    largest = _LARGEST[field.type]
    column = pl.col(field.name)
    limit = pl.lit(largest, dtype=pl.Decimal(38, _SCALE[field.type]))
    return Rule(
        "DecimalOverflow",
        (column > limit) | (column < -limit),
        lambda row: f"expected {field.name} within +-{largest}, found one of more digits ({row[field.name]})",
    )


_SCALE: Final = {FieldType.PRICE: PRICE_SCALE, FieldType.QUANTITY: QUANTITY_SCALE}
