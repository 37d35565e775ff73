"""Reads ASX tick files (trades, quotes, companies) into rows, exactly and with every line accounted for.

A file has no header. Trades: Date, Time, Price, Volume, Qualifiers, Venue, BuyerID. Quotes: Date, Time, Bid, Ask,
BidVolume, AskVolume. Dates are MM/DD/YYYY, times HH:MM:SS.mmm in Sydney. There is no trade id, and equal lines are
genuine prints: a record's identity is (file, line). A local time that the clocks pass twice is taken as the first; one
that they skip is a bad line.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import PRICE_PRECISION, PRICE_SCALE, QUANTITY_PRECISION, QUANTITY_SCALE, QUOTES, TRADES, Action

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXCHANGE: Final = "asx"
CHANNEL_DIGITS: Final = 16
"""Digits of the source that are the channel: line numbers begin again in each file, and need a scope."""
YEARS: Final = (1990, 2100)
TIME_ZONE: Final = "Australia/Sydney"
COMPANIES_FILE: Final = "reference/company_info.csv"
COLUMNS: Final = {
    "trades": ("date", "time", "price", "volume", "qualifiers", "venue", "buyer_id"),
    "quotes": ("date", "time", "bid", "ask", "bid_volume", "ask_volume"),
}
_RECORD_TYPES: Final = {"trades": TRADES, "quotes": QUOTES}
_PRICE: Final = pl.Decimal(PRICE_PRECISION, PRICE_SCALE)
_QUANTITY: Final = pl.Decimal(QUANTITY_PRECISION, QUANTITY_SCALE)
_PRICE_PATTERN: Final = r"^-?\d{1,16}(\.\d{1,12})?$"
_QUANTITY_PATTERN: Final = r"^-?\d{1,18}(\.\d{1,10})?$"
_QUALIFIERS_PATTERN: Final = r"^\d*$"
_BAD_LINES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class TickFile:
    """One file of ticks: its kind, its symbol, and the source that its rows name (the SHA-256 of its bytes)."""

    path: Path
    data_type: str
    symbol: str


def tick_files(directory: Path) -> list[TickFile]:
    """Find the tick files of a directory, trades before quotes.

    Raises:
        ConfigurationError: this is no directory of ASX ticks, or a file's company is unknown.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"expected a directory with trades/, quotes/ and {COMPANIES_FILE}, found none at {directory}"
        )
    paths = [(kind, path) for kind in COLUMNS for path in sorted((directory / kind).glob("*.csv"))]
    if not paths:
        raise ConfigurationError(
            f"expected CSV files in {directory}/trades or {directory}/quotes, found none: name the directory above them"
        )
    symbols = companies(directory / COMPANIES_FILE)
    unknown = [str(path.relative_to(directory)) for _, path in paths if path.stem not in symbols]
    if unknown:
        raise ConfigurationError(
            f"expected the companies of all files in {COMPANIES_FILE}, found none for {', '.join(unknown)}: "
            "add them there, or move the files away"
        )
    return [TickFile(path, kind, symbols[path.stem]) for kind, path in paths]


def companies(path: Path) -> dict[str, str]:
    """Return symbol by company id; ConfigurationError where the file is absent or something else."""
    lines = _lines(path)
    header = lines[0].split(",") if lines else []
    if header[:2] != ["company_id", "symbol"]:
        raise ConfigurationError(f"expected a header company_id,symbol,... in {path}, found {','.join(header)[:60]!r}")
    cells = (line.split(",") for line in lines[1:])
    return {row[0]: row[1] for row in cells if len(row) == len(header) and row[0] and row[1]}


def read_ticks(file: TickFile) -> pl.DataFrame:
    """Return a file's rows in file order, columns of `message_polars_schema`; nothing passes through a float.

    Raises:
        ConfigurationError: the file is not of its kind; names the first bad lines, what was expected and found.
    """
    names = COLUMNS[file.data_type]
    lines = _lines(file.path)
    if not lines:
        raise ConfigurationError(f"expected ticks in {file.path}, found an empty file: remove it, or fetch it again")
    cells = (
        pl.DataFrame({"text": lines})
        .with_row_index("line", 1)
        .with_columns(pl.col("text").str.split(",").alias("cells"))
    )
    _refuse(file, cells.filter(pl.col("cells").list.len() != len(names)), f"{len(names)} columns ({', '.join(names)})")
    columns = cells.select(
        pl.col("line").cast(pl.Int64),
        "text",
        *(pl.col("cells").list.get(at).alias(name) for at, name in enumerate(names)),
    )
    local = pl.concat_str("date", "time", separator=" ").str.strptime(
        pl.Datetime("ms"), "%m/%d/%Y %H:%M:%S%.3f", strict=False
    )
    columns = columns.with_columns(
        event=local.dt.replace_time_zone(TIME_ZONE, ambiguous="earliest", non_existent="null"),
        trading_date=pl.col("date").str.strptime(pl.Date, "%m/%d/%Y", strict=False),
    )
    _refuse(
        file,
        columns.filter(pl.col("event").is_null()),
        "a date MM/DD/YYYY and a time HH:MM:SS.mmm that Sydney's clocks show",
    )
    _refuse(
        file, columns.filter(~pl.col("event").dt.year().is_between(*YEARS)), f"a year from {YEARS[0]} to {YEARS[1]}"
    )
    rows = _trades(file, columns) if file.data_type == "trades" else _quotes(file, columns)
    source = hashlib.sha256(file.path.read_bytes()).hexdigest()
    common = rows.with_columns(
        exchange=pl.lit(EXCHANGE),
        symbol=pl.lit(file.symbol),
        ts_event_ns=pl.col("event").dt.epoch("ms") * 1_000_000,
        action=pl.lit(Action.NEW),
        source=pl.lit(source),
        source_sequence="line",
        channel=pl.lit(source[:CHANNEL_DIGITS]),
        sequence="line",
        sub_index=pl.lit(None),
    ).with_columns(ts_recv_ns="ts_event_ns")
    schema = message_polars_schema(_RECORD_TYPES[file.data_type])
    return common.select(pl.col(name).cast(kind) for name, kind in schema.items())


def _trades(file: TickFile, columns: pl.DataFrame) -> pl.DataFrame:
    _require(file, columns, "price", _PRICE_PATTERN, "a price with at most 12 decimals")
    _require(file, columns, "volume", _QUANTITY_PATTERN, "a volume with at most 10 decimals")
    _require(file, columns, "qualifiers", _QUALIFIERS_PATTERN, "a number as qualifier, or nothing")
    return columns.with_columns(
        price=pl.col("price").cast(_PRICE),
        quantity=pl.col("volume").cast(_QUANTITY),
        side=pl.lit(None),
        trade_id=pl.lit(None),
        ref_trade_id=pl.lit(None),
        conditions=pl.when(pl.col("qualifiers") == "")
        .then(pl.lit([], dtype=pl.List(pl.String)))
        .otherwise(pl.concat_list("qualifiers")),
        extra=_extra("venue", "buyer_id"),
    )


def _quotes(file: TickFile, columns: pl.DataFrame) -> pl.DataFrame:
    for name in ("bid", "ask"):
        _require(file, columns, name, _PRICE_PATTERN, "a price with at most 12 decimals")
        _require(file, columns, f"{name}_volume", _QUANTITY_PATTERN, "a volume with at most 10 decimals")
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


def _require(file: TickFile, columns: pl.DataFrame, name: str, pattern: str, expected: str) -> None:
    _refuse(file, columns.filter(~pl.col(name).str.contains(pattern)), f"{expected} in column {name}")


def _refuse(file: TickFile, bad: pl.DataFrame, expected: str) -> None:
    if bad.is_empty():
        return
    shown = "\n".join(f"  {file.path}:{line}: {text[:120]!r}" for line, text in _first(bad))
    raise ConfigurationError(
        f"expected {expected}, found {len(bad)} lines that have not, of {file.data_type} of {file.symbol}; "
        f"nothing of the file was sent. Mend or remove the lines:\n{shown}"
    )


def _first(bad: pl.DataFrame) -> Iterator[tuple[int, str]]:
    yield from bad.select("line", "text").head(_BAD_LINES_SHOWN).iter_rows()


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"expected a CSV file at {path}, found bytes that are no text (at {error.start})"
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    return lines[:-1] if lines[-1] == "" else lines
