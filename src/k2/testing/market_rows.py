"""Rows of the main tables for tests and benchmarks, complete in every column, the same for the same arguments."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.schemas.arrow import polars_schema
from k2.schemas.records import TRADES, FieldType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.schemas.records import Field, RecordType

START_NS: Final = 1_767_225_600_000_000_000
"""2026-01-01, UTC."""


def market_rows(
    offsets: Sequence[int],
    *,
    record_type: RecordType = TRADES,
    exchange: str = "sim",
    symbols: Sequence[str] = ("AAA", "BBB", "CCC"),
    log_id: int = 0,
    partition: int = 0,
    start_ns: int = START_NS,
    step_ns: int = 1_000_000,
    commit_sequence: int = 1,
) -> pl.DataFrame:
    """Return one row an offset: its event is `offset * step_ns` after `start_ns`, symbols take turns.

    Each symbol has numbers of its own, without a gap where the offsets have none; the source counts across all.
    """
    offset = pl.Series("log_offset", list(offsets), dtype=pl.Int64)
    frame = pl.DataFrame({"log_offset": offset}).with_columns(ts_event_ns=start_ns + pl.col("log_offset") * step_ns)
    known: dict[str, pl.Expr | pl.Series] = {
        "exchange": pl.lit(exchange),
        "symbol": pl.Series(values=[symbols[number % len(symbols)] for number in offsets], dtype=pl.String),
        "ts_recv_ns": pl.col("ts_event_ns") + 1_000,
        "trading_date": pl.from_epoch("ts_event_ns", time_unit="ns").dt.date(),
        "action": pl.lit("NEW"),
        "source": pl.lit("test"),
        "source_sequence": pl.col("log_offset"),
        "sequence": pl.col("log_offset") // len(symbols),
        "ts_event": pl.from_epoch(pl.col("ts_event_ns") // 1_000, time_unit="us").dt.replace_time_zone("UTC"),
        "ts_log": pl.lit(dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        "log_id": pl.lit(log_id),
        "log_partition": pl.lit(partition),
        "commit_sequence": pl.lit(commit_sequence),
        "written_by": pl.lit("ingest"),
    }
    frame = frame.with_columns(**known)
    types = polars_schema(record_type)
    return frame.select(
        (pl.col(field.name) if field.name in frame.columns else _filler(field))
        .cast(types[field.name])
        .alias(field.name)
        for field in record_type.fields
    )


def _filler(field: Field) -> pl.Expr:
    if field.nullable:
        return pl.lit(None)
    if field.type is FieldType.STRINGS:
        return pl.lit([], dtype=pl.List(pl.String))
    return pl.col("log_offset") % 100 + 1
