"""Sequence trackers: batches and single checks on a real Valkey, a million rows in memory."""

from __future__ import annotations

import tempfile
from contextlib import closing
from pathlib import Path
from time import perf_counter

import polars as pl
import valkey

from benchmarks.report import Figure, percentile
from k2.common.clock import SystemClock
from k2.ingestion.redis_sequence_tracker import RedisSequenceTracker
from k2.ingestion.sequences.batches import Memory, observe
from k2.ingestion.sequences.rules import SequenceRules
from k2.ingestion.sequences.tracker import MemorySequenceTracker
from k2.local.platform import LocalPlatform
from k2.testing.market_rows import START_NS, market_rows

EVENTS = 1_000
SYMBOLS = tuple(f"S{number:03}" for number in range(500))
MILLION = 1_000_000


def measure(*, quick: bool) -> list[Figure]:
    """Measure all."""
    return [*_on_valkey(rounds=20 if quick else 200), *_in_memory(rows=MILLION // 10 if quick else MILLION)]


def _on_valkey(rounds: int) -> list[Figure]:
    with (
        tempfile.TemporaryDirectory() as directory,
        LocalPlatform(Path(directory, "data"), components=("valkey",)) as platform,
        closing(valkey.Valkey.from_url(platform.settings().valkey.url.get_secret_value())) as client,
    ):
        tracker = RedisSequenceTracker(client, clock=SystemClock())
        batches, singles = [], []
        for turn in range(rounds):
            checks = [
                ("asx", SYMBOLS[number % 50], turn * EVENTS // 50 + number // 50, START_NS) for number in range(EVENTS)
            ]
            started = perf_counter()
            tracker.check_sequence_batch(checks)
            batches.append(1_000 * (perf_counter() - started))
            started = perf_counter()
            tracker.check_sequence("asx", "one", turn, START_NS)
            singles.append(1_000 * (perf_counter() - started))
    batch, single = percentile(batches, 0.5), percentile(singles, 0.5)
    return [
        Figure("1,000 events, one Valkey batch, p50", batch, "ms", "< 50 (aim 5)", met=batch < 50),
        Figure("1,000 events, one Valkey batch, p99", percentile(batches, 0.99), "ms"),
        Figure("one check on Valkey, p50", single, "ms", "< 1", met=single < 1),
    ]


def _in_memory(rows: int) -> list[Figure]:
    frame = market_rows(range(rows), symbols=SYMBOLS).with_columns(
        sequence=pl.int_range(pl.len()).over("symbol"), trading_date=pl.lit(START_NS).cast(pl.Datetime("ns")).dt.date()
    )
    disorder = frame.filter(pl.col("log_offset") % 997 > 0)
    figures = []
    for name, case in (("in order", frame), ("1 in 1,000 missing", disorder)):
        started = perf_counter()
        seen = observe(Memory(), case, SequenceRules(), scope="symbol", partition=0, end_offset=rows)
        seconds = perf_counter() - started
        figures.append(Figure(f"memory, by columns, {name}", seconds * MILLION / rows, "s per million rows"))
        figures.append(Figure(f"memory, events found, {name}", len(seen.events), "events"))
    tracker, some = MemorySequenceTracker(), rows // 10
    checks = list(zip(frame["exchange"][:some], frame["symbol"][:some], frame["sequence"][:some], strict=True))
    started = perf_counter()
    for exchange, symbol, sequence in checks:
        tracker.check_sequence(exchange, symbol, sequence, START_NS)
    figures.append(Figure("memory, one by one", (perf_counter() - started) * MILLION / some, "s per million rows"))
    return figures
