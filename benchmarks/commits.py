"""10,000 commits with expiry and upkeep beside them: commit, planning, memory and metadata, first against last."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, START_NS, trades
from k2 import bootstrap
from k2.settings import load_settings
from k2.storage.expiry import SnapshotExpiry
from k2.storage.file_io import local_path
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch, TableWriter

if TYPE_CHECKING:
    from k2.storage.planning import Planner
    from k2.storage.tables import MarketTables

ROWS = 500
SPAN_NS = 5 * SECOND_NS
KEY = LogPartition(0, 0)
SAMPLES = 20
WEEK_COMMITS = 120_960
"""One commit every 5 s for seven days."""
UPKEEP = {
    "K2_LOG_LEVEL": "WARNING",
    "K2_UPKEEP__SWEEP_INTERVAL_HOURS": "0.005",
    "K2_UPKEEP__ORPHAN_HOURS": "0.02",
    "K2_CATALOG__FILE_AGE_MAX_HOURS": "0.01",
}
"""Orphans wait a minute instead of a day, so that the sweep takes part in a run that lasts minutes."""


def measure(*, quick: bool) -> list[Figure]:
    """Commit small batches one after the other, as fast as they go, with `k2 maintain --every` beside."""
    commits = 500 if quick else 10_000
    with tempfile.TemporaryDirectory() as directory:
        upkeep = None
        tables = bootstrap.market_tables(load_settings(Path(directory), environ={}))
        try:
            upkeep = _start_upkeep(directory, "2s" if quick else "10s")
            return _measured(directory, tables, commits)
        finally:
            if upkeep is not None:
                upkeep.terminate()
                upkeep.wait(timeout=30)
            tables.close()


def _start_upkeep(directory: str, every: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "k2.cli.main", "maintain", "--every", every, "--metrics-port", "0"]
    return subprocess.Popen([*command, "--data-dir", directory], env={**os.environ, **UPKEEP})


def _measured(directory: str, tables: MarketTables, commits: int) -> list[Figure]:
    settings, clock = load_settings(Path(directory), environ={}), bootstrap.system_clock()
    tables.register_log("trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0})
    writer, expiry = (
        TableWriter(tables, "trades", settings.catalog, clock),
        SnapshotExpiry(tables, settings.catalog, clock),
    )
    planner = bootstrap.planner(settings, tables)
    expiry.start()
    seconds, conflicts, samples = [], 0, []
    for number in range(commits):
        rows = trades(ROWS, first_offset=number * ROWS, start_ns=START_NS + number * SPAN_NS, span_ns=SPAN_NS)
        files = writer.write_files(rows)
        delta = PartitionDelta(number * ROWS, (number + 1) * ROWS, Counts(consumed=ROWS, rows=ROWS))
        started = time.perf_counter()
        done = writer.commit(Batch(f"bench-{number}", {KEY: delta}, files, created_at_ns=clock.time_ns()))
        seconds.append(time.perf_counter() - started)
        conflicts += done.attempts - 1
        expiry.after_commit("trades")
        if (number + 1) % (commits // SAMPLES) == 0:
            samples.append(_sample(tables, planner, number + 1))
    expiry.stop()
    assert planner.pin("trades").rows == commits * ROWS, "every row is there"
    return _figures(seconds, conflicts, samples, commits)


def _sample(tables: MarketTables, planner: Planner, commits: int) -> dict[str, float]:
    end_ns = START_NS + commits * SPAN_NS
    started = time.perf_counter()
    planned = planner.plan(
        planner.pin("trades"), exchange="sim", symbol="SIM001", start_ns=end_ns - 900 * SECOND_NS, end_ns=end_ns
    )
    planning = time.perf_counter() - started
    assert planned, "the last 15 minutes have files"
    table = tables.load("trades")
    head = table.current_snapshot()
    live = [head.manifest_list, table.metadata_location, *(one.manifest_path for one in head.manifests(table.io))]
    on_disk = [path.stat().st_size for path in (Path(local_path(table.location())) / "metadata").iterdir()]
    return {
        "planning, warm": planning * 1e3,
        "files of the head": len(planner.plan(planner.pin("trades"))),
        "resident memory of the committing process": psutil.Process().memory_info().rss / 2**20,
        "metadata of the head": sum(Path(local_path(path)).stat().st_size for path in live) / 1e6,
        "metadata on disk, with what waits for the sweep": sum(on_disk) / 1e6,
    }


_UNITS = ("ms", "files", "MiB", "MB", "MB")


def _figures(seconds: list[float], conflicts: int, samples: list[dict[str, float]], commits: int) -> list[Figure]:
    tenth = max(10, commits // 10)
    # By the medians of tenths, so that a few slow commits do not bend the line.
    medians = [statistics.median(seconds[first : first + tenth]) for first in range(0, commits - tenth + 1, tenth)]
    slope, start = np.polyfit(np.arange(len(medians)) * tenth, medians, 1)
    p99 = percentile(seconds, 0.99) * 1e3
    figures = [
        Figure(f"commit, p50 of {commits}", statistics.median(seconds) * 1e3, "ms"),
        Figure(f"commit, p99 of {commits}", p99, "ms", "under 150 ms", p99 < 150),
        Figure(f"commit, p50 of the first {tenth}", statistics.median(seconds[:tenth]) * 1e3, "ms"),
        Figure(f"commit, p50 of the last {tenth}", statistics.median(seconds[-tenth:]) * 1e3, "ms"),
        Figure("commit, slope of the medians", slope * 1e6, "ms/1,000 commits"),
        Figure(f"commit after {WEEK_COMMITS:,} commits, by that slope", (start + slope * WEEK_COMMITS) * 1e3, "ms"),
        Figure("conflicts with upkeep and expiry", conflicts, "attempts"),
    ]
    quarter = max(1, len(samples) // 4)
    for name, unit in zip(samples[0], _UNITS, strict=True):
        values = [one[name] for one in samples]
        figures += [
            Figure(f"{name}, median of the second quarter", statistics.median(values[quarter : 2 * quarter]), unit),
            Figure(f"{name}, median of the last quarter", statistics.median(values[-quarter:]), unit),
        ]
    return figures
