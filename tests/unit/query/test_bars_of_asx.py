"""Bars of the real ASX ticks, out of real tables, equal those computed straight from the CSV files."""

from __future__ import annotations

import csv
import datetime as dt
import os
from collections.abc import Iterator
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from k2 import bootstrap
from k2.feeds.asx import read_ticks, tick_files
from k2.feeds.settings import FeedSettings
from k2.query.bars.request import BarsRequest
from k2.query.gap_aware import GapAwareEngine
from k2.query.request import Answer, QueryRequest
from k2.schemas.arrow import polars_schema
from k2.schemas.records import TRADES
from k2.settings import Settings
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake

SAMPLE = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[4] / "shared" / "data" / "asx")
pytestmark = pytest.mark.skipif(
    not SAMPLE.is_dir(), reason=f"the ASX tick sample is absent ({SAMPLE}); name it in K2_SAMPLE_DATA"
)
SYDNEY = ZoneInfo("Australia/Sydney")
NUMBERS = {"BHP": 7078, "DVN": 7181, "MWR": 3153}
MINUTE = dt.timedelta(minutes=1)
EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
Bar = tuple[Any, ...]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GapAwareEngine]:
    """Tables with all trades of the sample, in commits of some ten thousand."""
    directory = tmp_path_factory.mktemp("asx")
    lake = LocalLake(directory)
    lake.tables.ensure()
    lake.tables.register_log("trades", cluster_id="c", topic_id="t", topic="market.equities.trades.asx", starts={0: 0})
    trades = [file for file in tick_files(SAMPLE) if file.data_type == "trades"]
    rows = stored(pl.concat(read_ticks(file, FeedSettings()) for file in trades))
    writer = lake.writer()
    for number, part in enumerate(rows.iter_slices(30_000)):
        start, end = part["log_offset"][0], part["log_offset"][-1] + 1
        delta = PartitionDelta(start, end, Counts(consumed=end - start, rows=end - start))
        writer.commit(Batch(f"b{number}", {LogPartition(0, 0): delta}, writer.write_files(part)))
    lake.close()
    with bootstrap.lake_engine(Settings(data_dir=directory, catalog=lake.settings)) as made:
        yield made


def stored(rows: pl.DataFrame) -> pl.DataFrame:
    """Return the rows of messages as the log and a commit complete them."""
    types = polars_schema(TRADES)
    rows = rows.with_row_index("log_offset").with_columns(
        ts_event=pl.from_epoch(pl.col("ts_event_ns") // 1_000, time_unit="us").dt.replace_time_zone("UTC"),
        log_id=0,
        log_partition=0,
        ts_log=pl.lit(dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        commit_sequence=1,
        written_by=pl.lit("ingest"),
    )
    return rows.select(pl.col(name).cast(kind) for name, kind in types.items())


def bars(engine: GapAwareEngine, symbol: str = "BHP", **fields: Any) -> Answer:
    own = {name: fields.pop(name) for name in ("interval", "align", "prints") if name in fields}
    trades = QueryRequest(data_type="trades", symbol=symbol, lake_only=True, **fields)
    return engine.bars(BarsRequest(trades=trades, **own))


def from_engine(answer: Answer) -> dict[int, Bar]:
    names = ("open", "high", "low", "close", "volume", "vwap", "trade_count", "first_log_offset", "last_log_offset")
    rows = answer.table.select(["bar_start_ns", *names]).to_pylist()
    return {row["bar_start_ns"]: tuple(row[name] for name in names) for row in rows}


def from_csv(symbol: str, length: dt.timedelta, *, session: bool, regular: bool) -> dict[int, Bar]:
    """Compute bars with nothing but the standard library: no code of K2's has a part in it."""
    found: dict[int, list[tuple[int, Decimal, Decimal]]] = {}
    for at, offset, price, volume, qualifier in trades_of(symbol):
        in_hours = dt.time(9, 59) <= at.time() < dt.time(16, 13)
        if regular and not (in_hours and qualifier in {"0", "2"}):
            continue
        if session:
            edges = [0] if length == dt.timedelta(days=1) else [0, 10, 16]
            begun = max(hour for hour in edges if hour <= at.hour)
            origin = at.replace(hour=begun, minute=0, second=0, microsecond=0)
        else:
            origin = at.astimezone(dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        start = origin + (at - origin) // length * length
        found.setdefault((start - EPOCH) // dt.timedelta(microseconds=1) * 1_000, []).append((offset, price, volume))
    return {start: bar_of(rows) for start, rows in sorted(found.items())}


@cache
def trades_of(symbol: str) -> list[tuple[dt.datetime, int, Decimal, Decimal, str]]:
    """Return time, offset, price, volume and qualifier of a symbol's lines, in order; files come by their numbers."""
    before = sum(len(lines_of(other)) for other, number in NUMBERS.items() if number < NUMBERS[symbol])
    trades = [
        (_time(day, time), before + number, Decimal(price), Decimal(volume), qualifier)
        for number, (day, time, price, volume, qualifier, *_) in enumerate(lines_of(symbol))
    ]
    return sorted(trades, key=lambda trade: trade[:2])


def _time(day: str, time: str) -> dt.datetime:
    month, date, year = map(int, day.split("/"))
    return dt.datetime.combine(dt.date(year, month, date), dt.time.fromisoformat(time), SYDNEY)


def bar_of(rows: list[tuple[int, Decimal, Decimal]]) -> Bar:
    offsets, prices, volumes = zip(*rows, strict=True)
    volume = sum(volumes)
    value = Decimal(0)
    for price, each in zip(prices, volumes, strict=True):
        value = EXACT.add(value, EXACT.multiply(price, each))
    vwap = EXACT.divide(value, volume).quantize(Decimal("1e-12"), context=EXACT)
    return prices[0], max(prices), min(prices), prices[-1], volume, vwap, len(rows), offsets[0], offsets[-1]


def lines_of(symbol: str) -> list[list[str]]:
    with (SAMPLE / "trades" / f"{NUMBERS[symbol]}.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_the_high_of_a_day_leaves_special_and_off_session_prints_out(engine: GapAwareEngine) -> None:
    regular, everything = (bars(engine, interval="1d", align="session", prints=prints) for prints in ("regular", "all"))

    highs = [
        dict(zip(map(str, each.table["trading_date"].to_pylist()), each.table["high"].to_pylist(), strict=True))
        for each in (regular, everything)
    ]
    assert highs[0]["2014-03-11"] == Decimal("36.45")
    assert highs[1]["2014-03-11"] == Decimal("42.00")
    assert regular.certificate.complete


@pytest.mark.parametrize(
    ("symbol", "interval", "length", "session", "regular"),
    [
        ("BHP", "1m", MINUTE, False, True),
        ("DVN", "1s", MINUTE / 60, False, True),
        ("DVN", "7m", 7 * MINUTE, True, False),
        ("MWR", "1h", 60 * MINUTE, True, True),
        ("MWR", "1d", 1_440 * MINUTE, True, True),
        ("MWR", "1d", 1_440 * MINUTE, False, False),
    ],
)
def test_bars_equal_those_computed_from_the_csv(
    engine: GapAwareEngine, symbol: str, interval: str, length: dt.timedelta, session: bool, regular: bool
) -> None:
    answer = bars(
        engine,
        symbol,
        interval=interval,
        align="session" if session else "utc",
        prints="regular" if regular else "all",
    )

    assert from_engine(answer) == from_csv(symbol, length, session=session, regular=regular)
