"""10,000 commits with expiry and upkeep beside them: commit, planning, memory and metadata, first against last."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, START_NS, trades
from k2 import bootstrap
from k2.ingestion.memory import prepare_process
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
PLANNINGS = 10
"""Plannings in a row, one after each commit, whose median is one sample."""
WEEK_COMMITS = 120_960
"""One commit every 5 s for seven days."""
UPKEEP = {
    "K2_LOG_LEVEL": "WARNING",
    "K2_UPKEEP__SWEEP_INTERVAL_HOURS": "0.005",
    "K2_UPKEEP__ORPHAN_HOURS": "0.05",
    "K2_CATALOG__FILE_AGE_MAX_HOURS": "0.03",
}
"""Orphans wait three minutes instead of a day, so that the sweep takes part in a run that lasts minutes."""


@dataclass
class Measured:
    """What the commits took, and what was looked at between them."""

    commit_seconds: list[float] = field(default_factory=list)
    commit_cpu_seconds: list[float] = field(default_factory=list)
    write_seconds: list[float] = field(default_factory=list)
    samples: list[dict[str, float]] = field(default_factory=list)
    conflicts: int = 0
    seconds: float = 0.0


def measure(*, quick: bool) -> list[Figure]:
    """Commit small batches one after the other, as fast as they go, with `k2 maintain --every` beside."""
    commits = 500 if quick else 10_000
    with tempfile.TemporaryDirectory() as directory:
        tables = bootstrap.market_tables(load_settings(Path(directory), environ={}))
        upkeep = _start_upkeep(directory, "2s" if quick else "10s")
        try:
            found = _measured(directory, tables, commits)
        finally:
            upkeep.terminate()
            upkeep.wait(timeout=60)
            tables.close()
    return _figures(found, resource.getrusage(resource.RUSAGE_CHILDREN), commits)


def _start_upkeep(directory: str, every: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "k2.cli.main", "maintain", "--every", every, "--metrics-port", "0"]
    return subprocess.Popen([*command, "--data-dir", directory], env={**os.environ, **UPKEEP})


def _measured(directory: str, tables: MarketTables, commits: int) -> Measured:
    settings, clock = load_settings(Path(directory), environ={}), bootstrap.system_clock()
    tables.register_log("trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0})
    writer, expiry = (
        TableWriter(tables, "trades", settings.catalog, clock),
        SnapshotExpiry(tables, settings.catalog, clock),
    )
    prepare_process()
    planner, found, plannings = bootstrap.planner(settings, tables), Measured(), []
    expiry.start()
    began = time.perf_counter()
    for number in range(commits):
        rows = trades(ROWS, first_offset=number * ROWS, start_ns=START_NS + number * SPAN_NS, span_ns=SPAN_NS)
        started = time.perf_counter()
        files = writer.write_files(rows)
        found.write_seconds.append(time.perf_counter() - started)
        delta = PartitionDelta(number * ROWS, (number + 1) * ROWS, Counts(consumed=ROWS, rows=ROWS))
        started, cpu = time.perf_counter(), time.thread_time()
        done = writer.commit(Batch(f"bench-{number}", {KEY: delta}, files, created_at_ns=clock.time_ns()))
        found.commit_cpu_seconds.append(time.thread_time() - cpu)
        found.commit_seconds.append(time.perf_counter() - started)
        found.conflicts += done.attempts - 1
        expiry.after_commit("trades")
        left = -(number + 1) % (commits // SAMPLES)
        if left < PLANNINGS:
            plannings.append(_planning_seconds(planner, number + 1))
        if left == 0:
            found.samples.append(_sample(tables, planner, plannings))
            plannings.clear()
    expiry.stop()
    found.seconds = time.perf_counter() - began
    assert planner.pin("trades").rows == commits * ROWS, "every row is there"
    return found


def _planning_seconds(planner: Planner, commits: int) -> float:
    """Plan one symbol's last 15 minutes, as a question does after each commit."""
    end_ns = START_NS + commits * SPAN_NS
    started = time.perf_counter()
    planned = planner.plan(
        planner.pin("trades"), exchange="sim", symbol="SIM001", start_ns=end_ns - 900 * SECOND_NS, end_ns=end_ns
    )
    seconds = time.perf_counter() - started
    assert planned, "the last 15 minutes have files"
    return seconds


def _sample(tables: MarketTables, planner: Planner, plannings: list[float]) -> dict[str, float]:
    table = tables.load("trades")
    head, directory = table.current_snapshot(), local_path(table.location())
    assert head is not None
    assert directory is not None
    live = [head.manifest_list, table.metadata_location, *(one.manifest_path for one in head.manifests(table.io))]
    on_disk = [_size_bytes(path) for path in (directory / "metadata").iterdir()]
    return {
        "planning, warm": statistics.median(plannings) * 1e3,
        "files of the head": len(planner.plan(planner.pin("trades"))),
        "resident memory of the committing process": psutil.Process().memory_info().rss / 2**20,
        "metadata of the head": sum(_size_bytes(local_path(path)) for path in live) / 1e6,
        "metadata on disk, with what waits for the sweep": sum(on_disk) / 1e6,
    }


def _size_bytes(path: Path | None) -> int:
    """Return the size of a file; 0 where the upkeep has deleted it meanwhile."""
    try:
        return 0 if path is None else path.stat().st_size
    except FileNotFoundError:
        return 0


_UNITS = ("ms", "files", "MiB", "MB", "MB")


def _line(seconds: list[float], tenth: int) -> tuple[list[float], float, float]:
    """Return the medians of tenths, their slope and where it begins: a few slow commits do not bend such a line."""
    medians = [statistics.median(seconds[first : first + tenth]) for first in range(0, len(seconds) - tenth + 1, tenth)]
    slope, start = np.polyfit(np.arange(len(medians)) * tenth, medians, 1)
    return medians, float(slope), float(start)


def _figures(found: Measured, upkeep: resource.struct_rusage, commits: int) -> list[Figure]:
    seconds, tenth = found.commit_seconds, max(10, commits // 10)
    medians, slope, start = _line(seconds, tenth)
    cpu_medians, cpu_slope, _ = _line(found.commit_cpu_seconds, tenth)
    p99 = percentile(seconds, 0.99) * 1e3
    figures = [
        Figure(f"commit, p50 of {commits}", statistics.median(seconds) * 1e3, "ms"),
        Figure(f"commit, p99 of {commits}", p99, "ms", "under 150 ms", p99 < 150),
        Figure("commit, longest", max(seconds) * 1e3, "ms"),
        Figure("commit, processor time of its thread, p50", statistics.median(found.commit_cpu_seconds) * 1e3, "ms"),
        Figure("commit, processor time of its thread, p99", percentile(found.commit_cpu_seconds, 0.99) * 1e3, "ms"),
        Figure(f"commit, p50 of the first {tenth:,}", medians[0] * 1e3, "ms"),
        Figure(f"commit, p50 of the last {tenth:,}", medians[-1] * 1e3, "ms"),
        Figure(f"commit, processor time, p50 of the first {tenth:,}", cpu_medians[0] * 1e3, "ms"),
        Figure(f"commit, processor time, p50 of the last {tenth:,}", cpu_medians[-1] * 1e3, "ms"),
        Figure("commit, processor time, slope of the medians of tenths", cpu_slope * 1e6, "ms/1,000 commits"),
        Figure("commit, slope of the medians of tenths", slope * 1e6, "ms/1,000 commits"),
        Figure(f"commit after {WEEK_COMMITS:,} commits, by that slope", (start + slope * WEEK_COMMITS) * 1e3, "ms"),
        Figure("writing the data file before the commit, p50", statistics.median(found.write_seconds) * 1e3, "ms"),
        Figure("writing the data file before the commit, p99", percentile(found.write_seconds, 0.99) * 1e3, "ms"),
        Figure("conflicts with upkeep and expiry", found.conflicts, "attempts"),
        Figure("upkeep, processor time a commit", (upkeep.ru_utime + upkeep.ru_stime) / commits * 1e3, "ms"),
        Figure("upkeep, peak resident memory of a process of it", upkeep.ru_maxrss / 2**10, "MiB"),
        Figure("all commits, one after the other", found.seconds, "s"),
    ]
    quarter = max(1, len(found.samples) // 4)
    for name, unit in zip(found.samples[0], _UNITS, strict=True):
        values = [one[name] for one in found.samples]
        figures += [
            Figure(f"{name}, median of the second quarter", statistics.median(values[quarter : 2 * quarter]), unit),
            Figure(f"{name}, median of the last quarter", statistics.median(values[-quarter:]), unit),
        ]
    return figures
