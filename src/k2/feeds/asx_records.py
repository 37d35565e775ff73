"""Turns the lines of ASX trades and quotes files into records, in columns; prices and sizes stay exact.

What the venue's columns become:

- Date and Time are Sydney's wall time; `trading_date` is the Date column, whatever the UTC date is.
- `source` is the file's SHA-256; `source_sequence` and `sequence` are the line number; `channel` is the start of the
  SHA-256, since line numbers begin again in each file. Equal lines are different records.
- `ts_recv_ns` equals `ts_event_ns`: nobody knows when these historic records were received.
- Qualifiers become `conditions`; Venue and BuyerID, where not empty, go into `extra` as they came.
- A bid or ask of 0 is an empty side: null price and null size. A size that stands beside it is kept in `extra`.
- Crossed quotes are kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.feeds.decimals import decimal_from_text, is_decimal_text
from k2.feeds.zone_times import utc_ns
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    RECORD_TYPES,
    Action,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.feeds.asx_lines import Block

CHANNEL_DIGITS: Final = 16
COLUMNS: Final = {
    "trades": ("date", "time", "price", "volume", "qualifiers", "venue", "buyer_id"),
    "quotes": ("date", "time", "bid", "ask", "bid_volume", "ask_volume"),
}
EARLIEST_NS: Final = 631_152_000_000_000_000
_DAY_NS: Final = 86_400_000_000_000
_PRICES: Final = {"trades": ("price",), "quotes": ("bid", "ask")}
_QUANTITIES: Final = {"trades": ("volume",), "quotes": ("bid_volume", "ask_volume")}


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What every record of one file shares. `now_ns` is the time of the import: nothing may lie a day beyond it."""

    data_type: str
    exchange: str
    timezone: str
    symbol: str
    source: str
    now_ns: int


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no record; `reason` says what was expected and what was found."""

    number: int
    raw: bytes
    reason: str


@dataclass(frozen=True)
class ParsedBlock:
    """What became of a block: every line is a row of `rows` (the message's columns, in line order) or a bad line."""

    rows: pl.DataFrame
    bad: tuple[BadLine, ...]


def parse_block(block: Block, file: FileIdentity) -> ParsedBlock:
    """Return the records of a block and the lines that are none."""
    frame = _split(block.frame(), COLUMNS[file.data_type])
    frame = frame.with_columns(_event_ns(file.timezone).alias("ts_event_ns"), _date().alias("trading_date"))
    frame = frame.with_columns(_reason(file).alias("reason"))
    good = frame.filter(pl.col("reason").is_null())
    return ParsedBlock(_rows(good, file), _bad_lines(block, frame.filter(pl.col("reason").is_not_null())))


def _split(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    fields = pl.col("text").str.split(",")
    frame = frame.with_columns(fields.alias("fields"), fields.list.len().alias("columns"))
    return frame.with_columns(
        pl.col("fields").list.get(index, null_on_oob=True).alias(name) for index, name in enumerate(names)
    )


def _date() -> pl.Expr:
    text = pl.col("date")
    return (
        pl.when(text.str.contains(r"^[0-9]{2}/[0-9]{2}/[0-9]{4}$"))
        .then(text)
        .str.to_date("%m/%d/%Y", strict=False, exact=True)
    )


def _event_ns(timezone: str) -> pl.Expr:
    date = _date()
    in_range = date.dt.year().is_between(1900, 2200)  # beyond these, nanoseconds overflow
    plausible = pl.col("time").str.contains(r"^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}$")
    time = pl.when(plausible).then(pl.col("time")).str.to_time("%H:%M:%S%.f", strict=False)
    return utc_ns(pl.when(in_range).then(date).dt.combine(time, time_unit="ns"), timezone)


def _reason(file: FileIdentity) -> pl.Expr:
    """Return why a line is no record, null where it is one; the first defect from the left is named."""
    names = COLUMNS[file.data_type]
    checks: list[tuple[pl.Expr, pl.Expr]] = [
        (
            pl.col("columns") != len(names),
            pl.format(f"expected {len(names)} columns ({', '.join(names)}), found {{}}", pl.col("columns")),
        ),
        (pl.col("text").str.contains("\ufffd", literal=True), pl.lit("expected UTF-8 text, found other bytes")),
        (pl.col("trading_date").is_null(), _found("a Date MM/DD/YYYY", "date")),
        (
            pl.col("ts_event_ns").is_null(),
            pl.format(
                f"expected a Time HH:MM:SS.mmm that exists in {file.timezone}, found {{}} {{}}",
                pl.col("date"),
                pl.col("time"),
            ),
        ),
        (
            ~pl.col("ts_event_ns").is_between(EARLIEST_NS, file.now_ns + _DAY_NS),
            _found("a time from 1990 to a day from now", "date"),
        ),
        *(_number(name, PRICE_PRECISION, PRICE_SCALE) for name in _PRICES[file.data_type]),
        *(_number(name, QUANTITY_PRECISION, QUANTITY_SCALE) for name in _QUANTITIES[file.data_type]),
    ]
    if file.data_type == "trades":
        codes = pl.col("qualifiers").str.contains(r"^[0-9]{0,9}$")
        checks.append((~codes, _found("a whole number as Qualifiers", "qualifiers")))
    return pl.coalesce(pl.when(is_bad).then(text) for is_bad, text in checks)


def _number(name: str, precision: int, scale: int) -> tuple[pl.Expr, pl.Expr]:
    is_exact = is_decimal_text(pl.col(name), precision=precision, scale=scale)
    whole = precision - scale
    return ~is_exact, _found(f"a decimal {name} of at most {whole} digits before and {scale} after the point", name)


def _found(expected: str, column: str) -> pl.Expr:
    return pl.format(f"expected {expected}, found '{{}}'", pl.col(column).fill_null("").str.slice(0, 60))


def _rows(good: pl.DataFrame, file: FileIdentity) -> pl.DataFrame:
    """Return the message's columns; those that the venue does not have are null."""
    own = _trade_columns() if file.data_type == "trades" else _quote_columns()
    shared = {
        "exchange": pl.lit(file.exchange),
        "symbol": pl.lit(file.symbol),
        "ts_event_ns": pl.col("ts_event_ns"),
        "ts_recv_ns": pl.col("ts_event_ns"),
        "trading_date": pl.col("trading_date"),
        "action": pl.lit(Action.NEW),
        "source": pl.lit(file.source),
        "source_sequence": pl.col("line"),
        "channel": pl.lit(file.source[:CHANNEL_DIGITS]),
        "sequence": pl.col("line"),
    }
    given = shared | own
    schema = message_polars_schema(RECORD_TYPES[file.data_type])
    columns = [given.get(name, pl.lit(None)).cast(dtype).alias(name) for name, dtype in schema.items()]
    return _with_extra(good, file.data_type).select(columns)


def _trade_columns() -> dict[str, pl.Expr]:
    code = pl.col("qualifiers")
    return {
        "price": decimal_from_text(pl.col("price"), precision=PRICE_PRECISION, scale=PRICE_SCALE),
        "quantity": decimal_from_text(pl.col("volume"), precision=QUANTITY_PRECISION, scale=QUANTITY_SCALE),
        "conditions": pl.when(code != "").then(pl.concat_list(code)).otherwise(pl.lit([], dtype=pl.List(pl.String))),
        "extra": pl.col("extra"),
    }


def _quote_columns() -> dict[str, pl.Expr]:
    columns = {
        "conditions": pl.lit([], dtype=pl.List(pl.String)),
        "extra": pl.col("extra"),
    }
    for side in ("bid", "ask"):
        price = decimal_from_text(pl.col(side), precision=PRICE_PRECISION, scale=PRICE_SCALE)
        size = decimal_from_text(pl.col(f"{side}_volume"), precision=QUANTITY_PRECISION, scale=QUANTITY_SCALE)
        columns[f"{side}_price"] = pl.when(~_is_zero(side)).then(price)
        columns[f"{side}_size"] = pl.when(~_is_zero(side)).then(size)
    return columns


def _is_zero(column: str) -> pl.Expr:
    return pl.col(column).str.contains(r"^-?0+(\.0+)?$")


def _with_extra(good: pl.DataFrame, data_type: str) -> pl.DataFrame:
    """Add `extra`: one JSON object of what no column holds; made once per distinct value, since few are."""
    if data_type == "trades":
        kept = {name: pl.when(pl.col(name) != "").then(pl.col(name)) for name in ("venue", "buyer_id")}
    else:
        kept = {
            name: pl.when(_is_zero(side) & ~_is_zero(f"{side}_volume")).then(pl.col(name))
            for side in ("bid", "ask")
            for name in (side, f"{side}_volume")
        }
    names = list(kept)
    good = good.with_columns(**{f"extra_{name}": expression for name, expression in kept.items()})
    columns = [f"extra_{name}" for name in names]
    distinct = good.select(columns).unique()
    texts = [_json(dict(zip(names, row, strict=True))) for row in distinct.iter_rows()]
    distinct = distinct.with_columns(pl.Series("extra", texts, dtype=pl.String))
    return good.join(distinct, on=columns, how="left", nulls_equal=True, maintain_order="left")


def _json(values: dict[str, str | None]) -> str | None:
    present = {name: value for name, value in values.items() if value is not None}
    return json.dumps(present, ensure_ascii=False) if present else None


def _bad_lines(block: Block, bad: pl.DataFrame) -> tuple[BadLine, ...]:
    if bad.is_empty():
        return ()
    raw = block.raw_lines()
    found = bad.select("line", "reason").iter_rows()
    return tuple(BadLine(number, raw[number - block.first_line], reason) for number, reason in found)
