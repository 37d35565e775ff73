"""Commits and planning over a table of many small commits: what the five hundredth costs against the first."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, START_NS, trades
from k2.common.clock import SystemClock
from k2.storage.expiry import SnapshotExpiry
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MarketTables
from k2.storage.writer import Batch, TableWriter

ROWS = 500
SPAN_NS = 5 * SECOND_NS
KEY = LogPartition(0, 0)


def measure(*, quick: bool) -> list[Figure]:
    """Commit small batches one after the other, then plan one symbol's 15 minutes, cold and warm."""
    commits = 50 if quick else 500
    with tempfile.TemporaryDirectory() as directory:
        settings = CatalogSettings(uri=f"sqlite:///{directory}/catalog.db", warehouse=Path(directory, "lake").as_uri())
        clock = SystemClock()
        tables = MarketTables(settings, clock)
        tables.ensure()
        tables.register_log(
            "trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0}
        )
        writer, expiry = TableWriter(tables, "trades", settings, clock), SnapshotExpiry(tables, settings, clock)
        expiry.start()
        seconds = []
        for number in range(commits):
            rows = trades(ROWS, first_offset=number * ROWS, start_ns=START_NS + number * SPAN_NS, span_ns=SPAN_NS)
            files = writer.write_files(rows)
            delta = PartitionDelta(number * ROWS, (number + 1) * ROWS, Counts(consumed=ROWS, rows=ROWS))
            started = time.perf_counter()
            writer.commit(Batch(f"bench-{number}", {KEY: delta}, files, created_at_ns=clock.time_ns()))
            seconds.append(time.perf_counter() - started)
            expiry.after_commit("trades")
        expiry.stop()
        planner = Planner(tables, settings)
        cold = _plan_seconds(planner, commits)
        warm = [_plan_seconds(planner, commits) for _ in range(200)]
        tenth = max(10, commits // 10)
        return [
            Figure(f"commit, median of the first {tenth}", statistics.median(seconds[:tenth]) * 1e3, "ms"),
            Figure(f"commit, median of the last {tenth} of {commits}", statistics.median(seconds[-tenth:]) * 1e3, "ms"),
            Figure(f"planning after {commits} commits, cold", cold * 1e3, "ms"),
            Figure(f"planning after {commits} commits, warm, p50", statistics.median(warm) * 1e3, "ms"),
            Figure(f"planning after {commits} commits, warm, p99", percentile(warm, 0.99) * 1e3, "ms"),
        ]


def _plan_seconds(planner: Planner, commits: int) -> float:
    end_ns = START_NS + commits * SPAN_NS
    started = time.perf_counter()
    pinned = planner.pin("trades")
    files = planner.plan(pinned, exchange="sim", symbol="SIM001", start_ns=end_ns - 900 * SECOND_NS, end_ns=end_ns)
    elapsed = time.perf_counter() - started
    assert files, "the last 15 minutes have files"
    return elapsed
