"""The columns of an answer in bars, each with its meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from k2.schemas.records import PRICE_PRECISION, PRICE_SCALE, QUANTITY_SCALE

PRICE: Final = pa.decimal128(PRICE_PRECISION, PRICE_SCALE)
_VOLUME: Final = pa.decimal128(38, QUANTITY_SCALE)
_DATE: Final = pa.date32()
_LONG: Final = pa.int64()
_INT: Final = pa.int32()
_TEXT: Final = pa.string()


@dataclass(frozen=True, slots=True)
class BarColumn:
    """One column."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False


BAR_COLUMNS: Final = (
    BarColumn("exchange", _TEXT, "Exchange; each has bars of its own"),
    BarColumn("symbol", _TEXT, "The venue's symbol, verbatim"),
    BarColumn("bar_start", pa.timestamp("us", "UTC"), "Start of the bar"),
    BarColumn("bar_start_ns", _LONG, "Start of the bar, UTC nanoseconds"),
    BarColumn("bar_end_ns", _LONG, "End of the bar, not included; that of its day or session, where it is cut by it"),
    BarColumn("trading_date", _DATE, "Session date of its first trade"),
    BarColumn("trading_date_to", _DATE, "Session date of its last trade"),
    BarColumn("open", PRICE, "Price of its first trade, in the order of answers"),
    BarColumn("high", PRICE, "Highest price"),
    BarColumn("low", PRICE, "Lowest price"),
    BarColumn("close", PRICE, "Price of its last trade"),
    BarColumn("volume", _VOLUME, "Sum of the quantities, exact"),
    BarColumn(
        "vwap",
        PRICE,
        "Sum of price times quantity through volume: exact, then rounded once to 12 decimals, half to even; null where "
        "the volume is 0 or the quotient is more than a price can be",
        nullable=True,
    ),
    BarColumn("trade_count", _LONG, "Trades that count"),
    BarColumn("excluded_count", _LONG, "Trades of its time that do not: special or off-session prints"),
    BarColumn("first_ts_event_ns", _LONG, "Event time of its first trade"),
    BarColumn("first_log_id", _INT, "Coordinate of its first trade: the log"),
    BarColumn("first_log_partition", _INT, "Coordinate of its first trade: the partition"),
    BarColumn("first_log_offset", _LONG, "Coordinate of its first trade: the offset"),
    BarColumn("last_ts_event_ns", _LONG, "Event time of its last trade"),
    BarColumn("last_log_id", _INT, "Coordinate of its last trade: the log"),
    BarColumn("last_log_partition", _INT, "Coordinate of its last trade: the partition"),
    BarColumn("last_log_offset", _LONG, "Coordinate of its last trade: the offset"),
    BarColumn(
        "sequence_missing",
        _LONG,
        "The venue's numbers that have not come, of all gaps that overlap the bar; null where nobody watches numbers",
        nullable=True,
    ),
    BarColumn(
        "complete",
        pa.bool_(),
        "Whether the answer is complete, the end asked for does not cut the bar, and no number is missing in it",
    ),
    BarColumn(
        "state",
        _TEXT,
        "final: over for K2_QUERY__BAR_SETTLE_SECONDS when first answered, not cut by the end asked for, and every "
        "record of it stored; else provisional. A late trade or an amendment changes a final bar, too: see revision",
    ),
    BarColumn(
        "revision", _LONG, "Records of the log that the bar is made of, amendments included: it grows with each change"
    ),
    BarColumn("amended", pa.bool_(), "Whether a cancelled or corrected trade has a part in it"),
)
BARS_SCHEMA: Final = pa.schema([pa.field(each.name, each.type, nullable=each.nullable) for each in BAR_COLUMNS])
