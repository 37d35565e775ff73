"""Turns lines of ASX ticks into rows, exactly; each line that is none is named with its number and what is wrong.

A file has no header. Trades: Date, Time, Price, Volume, Qualifiers, Venue, BuyerID. Quotes: Date, Time, Bid, Ask,
BidVolume, AskVolume. Dates are MM/DD/YYYY, times HH:MM:SS.mmm in Sydney. There is no trade id, and equal lines are
genuine prints: a record's identity is (file, line). A local time that the clocks pass twice is taken as the first; one
that they skip is a bad line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.schemas.arrow import message_rows
from k2.schemas.records import (
    PRICE_PRECISION,
    PRICE_SCALE,
    QUANTITY_PRECISION,
    QUANTITY_SCALE,
    RECORD_TYPES,
    Action,
)

if TYPE_CHECKING:
    from k2.feeds.line_blocks import LineBlock

EXCHANGE: Final = "asx"
CHANNEL_DIGITS: Final = 16
"""Digits of the source that are the channel: line numbers begin again in each file, and need a scope."""
YEARS: Final = (1990, 2100)
TIME_ZONE: Final = "Australia/Sydney"
COLUMNS: Final = {
    "trades": ("date", "time", "price", "volume", "qualifiers", "venue", "buyer_id"),
    "quotes": ("date", "time", "bid", "ask", "bid_volume", "ask_volume"),
}
_PRICE: Final = pl.Decimal(PRICE_PRECISION, PRICE_SCALE)
_QUANTITY: Final = pl.Decimal(QUANTITY_PRECISION, QUANTITY_SCALE)
# [0-9] and not \d, which takes the digits of every script.
_PRICE_PATTERN: Final = r"^-?[0-9]{1,16}(\.[0-9]{1,12})?$"
_QUANTITY_PATTERN: Final = r"^-?[0-9]{1,18}(\.[0-9]{1,10})?$"
_QUALIFIERS_PATTERN: Final = r"^[0-9]*$"
_SHOWN_BYTES: Final = 120


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no tick: its bytes without the line's end, the kind of the defect, and what was expected."""

    line: int
    content: bytes
    error_class: str
    expected: str

    @property
    def shown(self) -> str:
        """Return the beginning of the line for a person: as text where it is text."""
        beginning = self.content[:_SHOWN_BYTES]
        try:
            return repr(beginning.decode())
        except UnicodeDecodeError:
            return repr(beginning)

    @property
    def reason(self) -> str:
        """Return what was expected and what was found."""
        return f"expected {self.expected}, found {self.shown}"


@dataclass(frozen=True, slots=True)
class ReadLines:
    """What became of a block: rows in file order, columns of `message_rows`, and the bad lines."""

    rows: pl.DataFrame
    bad: tuple[BadLine, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    error_class: str
    expected: str
    holds: pl.Expr


def read_lines(block: LineBlock, *, data_type: str, symbol: str, source: str) -> ReadLines:
    """Return a block's rows and bad lines; nothing passes through a float."""
    names = COLUMNS[data_type]
    contents = pl.Series("content", block.lines, dtype=pl.Binary)
    cells = pl.DataFrame([contents, _texts(contents, block)]).with_columns(
        pl.int_range(block.first, block.first + pl.len(), dtype=pl.Int64).alias("line")
    )
    cells = cells.with_columns(pl.col("text").str.split(",").alias("cells"))
    columns = cells.with_columns(
        pl.col("cells").list.get(at, null_on_oob=True).alias(name) for at, name in enumerate(names)
    )
    local = pl.concat_str("date", "time", separator=" ").str.strptime(
        pl.Datetime("ms"), "%m/%d/%Y %H:%M:%S%.3f", strict=False
    )
    columns = columns.with_columns(
        event=local.dt.replace_time_zone(TIME_ZONE, ambiguous="earliest", non_existent="null"),
        trading_date=pl.col("date").str.strptime(pl.Date, "%m/%d/%Y", strict=False),
    )
    rules = _rules(data_type)
    columns = columns.with_columns(
        broken=pl.coalesce(pl.when(~rule.holds.fill_null(value=False)).then(at) for at, rule in enumerate(rules))
    )
    bad = columns.filter(pl.col("broken").is_not_null()).select("line", "content", "broken")
    good = columns.filter(pl.col("broken").is_null())
    return ReadLines(
        _rows(good, data_type, symbol, source),
        tuple(
            BadLine(line, content, rules[at].error_class, rules[at].expected) for line, content, at in bad.iter_rows()
        ),
    )


def _texts(contents: pl.Series, block: LineBlock) -> pl.Series:
    """Return the lines as text, null where one is none."""
    try:
        block.content.decode()
    except UnicodeDecodeError:
        return pl.Series("text", [_text_or_none(line) for line in block.lines], dtype=pl.String)
    return contents.cast(pl.String).alias("text")


def _text_or_none(line: bytes) -> str | None:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return None


def _rules(data_type: str) -> tuple[_Rule, ...]:
    names = COLUMNS[data_type]
    prices, volumes = (("price",), ("volume",)) if data_type == "trades" else (("bid", "ask"), names[4:])
    return (
        _Rule("NotText", "text in UTF-8", pl.col("text").is_not_null()),
        _Rule("WrongColumns", f"{len(names)} columns ({', '.join(names)})", pl.col("cells").list.len() == len(names)),
        _Rule(
            "InvalidTime",
            "a date MM/DD/YYYY and a time HH:MM:SS.mmm that Sydney's clocks show",
            pl.col("event").is_not_null() & pl.col("trading_date").is_not_null(),
        ),
        _Rule(
            "EventTimeOutOfBounds",
            f"a year from {YEARS[0]} to {YEARS[1]}",
            pl.col("event").dt.year().is_between(*YEARS),
        ),
        *(_matches("InvalidPrice", name, _PRICE_PATTERN, "a price with at most 12 decimals") for name in prices),
        *(_matches("InvalidSize", name, _QUANTITY_PATTERN, "a volume with at most 10 decimals") for name in volumes),
        *(
            _matches("InvalidQualifier", name, _QUALIFIERS_PATTERN, "a number as qualifier, or nothing")
            for name in names
            if name == "qualifiers"
        ),
    )


def _matches(error_class: str, name: str, pattern: str, expected: str) -> _Rule:
    return _Rule(error_class, f"{expected} in column {name}", pl.col(name).str.contains(pattern))


def _rows(columns: pl.DataFrame, data_type: str, symbol: str, source: str) -> pl.DataFrame:
    rows = _trades(columns) if data_type == "trades" else _quotes(columns)
    common = rows.with_columns(
        exchange=pl.lit(EXCHANGE),
        symbol=pl.lit(symbol),
        ts_event_ns=pl.col("event").dt.epoch("ms") * 1_000_000,
        action=pl.lit(Action.NEW),
        source=pl.lit(source),
        source_sequence="line",
        channel=pl.lit(source[:CHANNEL_DIGITS]),
        sequence="line",
    ).with_columns(ts_recv_ns="ts_event_ns")
    return message_rows(common, RECORD_TYPES[data_type])


def _trades(columns: pl.DataFrame) -> pl.DataFrame:
    return columns.with_columns(
        price=pl.col("price").cast(_PRICE),
        quantity=pl.col("volume").cast(_QUANTITY),
        conditions=pl.when(pl.col("qualifiers") == "")
        .then(pl.lit([], dtype=pl.List(pl.String)))
        .otherwise(pl.concat_list("qualifiers")),
        extra=_extra("venue", "buyer_id"),
    )


def _quotes(columns: pl.DataFrame) -> pl.DataFrame:
    empty_bid, empty_ask = (pl.col(name).cast(_PRICE) == 0 for name in ("bid", "ask"))
    odd = (empty_bid & (pl.col("bid_volume") != "0")) | (empty_ask & (pl.col("ask_volume") != "0"))
    return columns.with_columns(
        bid_price=pl.when(~empty_bid).then(pl.col("bid").cast(_PRICE)),
        bid_size=pl.when(~empty_bid).then(pl.col("bid_volume").cast(_QUANTITY)),
        ask_price=pl.when(~empty_ask).then(pl.col("ask").cast(_PRICE)),
        ask_size=pl.when(~empty_ask).then(pl.col("ask_volume").cast(_QUANTITY)),
        conditions=pl.lit([], dtype=pl.List(pl.String)),
        extra=pl.when(odd).then(_extra("bid_volume", "ask_volume")),
    )


def _extra(*names: str) -> pl.Expr:
    """Return the columns that hold something as one JSON object, or null where none does."""
    present = pl.any_horizontal(pl.col(name) != "" for name in names)
    return pl.when(present).then(pl.struct(names).struct.json_encode())
