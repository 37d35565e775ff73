"""Made-up rows for benchmarks that need a table or a log of a stated size, in columns."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import numpy as np
import polars as pl

from k2.schemas.arrow import polars_schema
from k2.schemas.records import TRADES

SECOND_NS = 1_000_000_000
START_NS = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp()) * SECOND_NS


def trades(
    count: int, *, symbols: int = 100, first_offset: int = 0, start_ns: int = START_NS, span_ns: int
) -> pl.DataFrame:
    """Return `count` trades of exchange `sim`, event times rising over `span_ns`, all columns of the table.

    Symbols take turns, and each numbers its trades without a gap, also from one call to the next.
    """
    generator = np.random.Generator(np.random.PCG64(first_offset))
    times = start_ns + np.sort(generator.integers(0, span_ns, count))
    place = np.arange(first_offset, first_offset + count)
    frame = (
        pl.DataFrame({"number": place % symbols, "turn": place // symbols, "ts_event_ns": times})
        .with_row_index("row")
        .select(
            exchange=pl.lit("sim"),
            symbol=pl.format("SIM{}", pl.col("number").cast(pl.String).str.zfill(3)),
            ts_event_ns="ts_event_ns",
            ts_recv_ns=pl.col("ts_event_ns") + 50_000,
            trading_date=pl.from_epoch("ts_event_ns", time_unit="ns").dt.date(),
            action=pl.lit("NEW"),
            source=pl.lit("bench"),
            source_sequence=pl.col("row").cast(pl.Int64) + first_offset,
            channel=pl.lit(None),
            sequence=pl.col("turn").cast(pl.Int64) + 1,
            sub_index=pl.lit(None),
            trade_id=pl.format("T{}", pl.col("row") + first_offset),
            ref_trade_id=pl.lit(None),
            price=(pl.lit(10_000) + (pl.col("row") % 997).cast(pl.Int64)).cast(pl.Decimal(28, 12)) * Decimal("0.01"),
            quantity=(pl.col("row") % 500 + 1).cast(pl.Int64).cast(pl.Decimal(28, 10)),
            side=pl.lit("BUY"),
            conditions=pl.lit([], dtype=pl.List(pl.String)),
            extra=pl.lit(None),
            ts_event=pl.from_epoch(pl.col("ts_event_ns") // 1000, time_unit="us").dt.replace_time_zone("UTC"),
            log_id=pl.lit(0),
            log_partition=pl.lit(0),
            log_offset=pl.col("row").cast(pl.Int64) + first_offset,
            ts_log=pl.from_epoch(pl.col("ts_event_ns") // 1000, time_unit="us").dt.replace_time_zone("UTC"),
            commit_sequence=pl.lit(1),
            written_by=pl.lit("ingest"),
        )
    )
    schema = polars_schema(TRADES)
    return frame.select(pl.col(name).cast(dtype) for name, dtype in schema.items())
