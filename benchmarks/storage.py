"""Bytes a row on disk of the real ASX trades, written as the ingest worker writes them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.report import Figure
from k2.common.clock import SystemClock
from k2.feeds.asx import read_ticks, tick_files
from k2.feeds.settings import FeedSettings
from k2.schemas.arrow import polars_schema
from k2.schemas.records import TRADES
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MarketTables
from k2.storage.writer import TableWriter

SAMPLE = Path(os.environ.get("K2_SAMPLE_DATA") or Path(__file__).parents[2] / "shared" / "data" / "asx")


def measure(*, quick: bool) -> list[Figure]:
    """Write all sample trades; without the sample there is nothing to measure."""
    del quick
    if not SAMPLE.is_dir():
        print(f"the ASX tick sample is absent ({SAMPLE}); name it in K2_SAMPLE_DATA")
        return []
    frames = [read_ticks(file, FeedSettings()) for file in tick_files(SAMPLE) if file.data_type == "trades"]
    rows = pl.concat(frames).with_row_index("log_offset")
    stamp = pl.from_epoch(pl.col("ts_event_ns") // 1000, time_unit="us").dt.replace_time_zone("UTC")
    rows = rows.with_columns(
        ts_event=stamp, ts_log=stamp, log_id=pl.lit(0), log_partition=pl.lit(0), commit_sequence=pl.lit(1),
        written_by=pl.lit("ingest"),
    ).select(pl.col(name).cast(kind) for name, kind in polars_schema(TRADES).items())  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        settings = CatalogSettings(uri=f"sqlite:///{directory}/catalog.db", warehouse=Path(directory, "lake").as_uri())
        tables = MarketTables(settings, SystemClock())
        tables.ensure()
        TableWriter(tables, "trades", settings, SystemClock()).write_files(rows)
        size = sum(path.stat().st_size for path in Path(directory, "lake").rglob("*.parquet"))
        tables.close()
    return [
        Figure("real ASX trades", len(rows), "rows"),
        Figure("real ASX trades on disk", size / len(rows), "bytes/row"),
    ]
