"""Compaction of 5,000 small files: bytes, query time before and after, peak memory, and a reader that began before."""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.report import Figure
from benchmarks.rows import SECOND_NS, START_NS, trades
from k2 import bootstrap
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch, TableWriter

if TYPE_CHECKING:
    from k2.query.scan import Scanner
    from k2.settings import Settings
    from k2.storage.data_files import WrittenFile
    from k2.storage.planning import Planner
    from k2.storage.tables import MarketTables

ROWS = 500
FILES_A_COMMIT = 100
SPAN_NS = 5 * SECOND_NS
KEY = LogPartition(0, 0)
UPKEEP = {
    "K2_UPKEEP__QUIET_MINUTES": "0",
    "K2_LOG_LEVEL": "ERROR",
}


def measure(*, quick: bool) -> list[Figure]:
    """Write many small files of one day, ask, compact in a process of its own, ask again."""
    files = 500 if quick else 5_000
    with tempfile.TemporaryDirectory() as directory:
        settings = load_settings(Path(directory), environ={})
        tables = bootstrap.market_tables(settings)
        _fill(settings, tables, files)
        planner, scanner = bootstrap.planner(settings, tables), bootstrap.scanner(settings, tables)
        pinned = planner.pin("trades")
        old_paths = [file.path for file in planner.plan(pinned)]
        before_rows = _content(old_paths)
        before = _questions(planner, scanner, files)
        report, peak_bytes, seconds = _compact(Path(directory))
        after = _questions(planner, scanner, files)
        new_paths = [file.path for file in planner.plan(planner.pin("trades"))]
        assert _content(old_paths) == before_rows, "a reader that began before the compaction sees the same rows"
        assert _content(new_paths) == before_rows, "the rows are the same afterwards"
        scanner.close()
        tables.close()
    was, now = report["before"], report["after"]
    return [
        Figure("files before", was["files"], "files"),
        Figure("files after", now["files"], "files"),
        Figure("bytes before", was["bytes"] / 1e6, "MB"),
        Figure("bytes after", now["bytes"] / 1e6, "MB"),
        Figure("rows", now["rows"], "rows"),
        Figure("compaction, one round in all", seconds, "s"),
        Figure("compaction, peak resident memory of its process", peak_bytes / 2**20, "MiB"),
        *(
            Figure(f"{name}, {when}", value * 1e3, "ms")
            for name in before
            for when, value in (("before", before[name]), ("after", after[name]))
        ),
    ]


def _fill(settings: Settings, tables: MarketTables, files: int) -> None:
    clock = bootstrap.system_clock()
    tables.register_log("trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0})
    writer = TableWriter(tables, "trades", settings.catalog, clock)
    for first in range(0, files, FILES_A_COMMIT):
        written: list[WrittenFile] = []
        for number in range(first, min(files, first + FILES_A_COMMIT)):
            rows = trades(ROWS, first_offset=number * ROWS, start_ns=START_NS + number * SPAN_NS, span_ns=SPAN_NS)
            written += writer.write_files(rows)
        start, end = first * ROWS, (first + FILES_A_COMMIT) * ROWS
        delta = PartitionDelta(start, end, Counts(consumed=end - start, rows=end - start))
        writer.commit(Batch(f"bench-{first}", {KEY: delta}, tuple(written)))


def _questions(planner: Planner, scanner: Scanner, files: int) -> dict[str, float]:
    """Return the median seconds of each question, planning included."""
    middle = START_NS + files // 2 * SPAN_NS
    asked: dict[str, tuple[dict[str, Any], str]] = {
        "one symbol, 15 minutes": ({"symbol": "SIM001", "start_ns": middle, "end_ns": middle + 900 * SECOND_NS}, _ROWS),
        "one symbol, whole day": ({"symbol": "SIM001"}, _ROWS),
        "all symbols, volume by minute": ({}, _BARS),
    }
    found = {}
    for name, (bounds, sql) in asked.items():
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            paths = [file.path for file in planner.plan(planner.pin("trades"), exchange="sim", **bounds)]
            values = {
                "files": paths,
                "symbol": bounds.get("symbol", ""),
                "start": bounds.get("start_ns", 0),
                "end": bounds.get("end_ns", 2**62),
            }
            assert scanner.fetch(sql, values).num_rows
            seconds.append(time.perf_counter() - started)
        found[name] = statistics.median(seconds)
    return found


_WITHIN = "ts_event_ns >= $start AND ts_event_ns < $end"
_ROWS = f"SELECT * FROM read_parquet($files) WHERE symbol = $symbol AND {_WITHIN} ORDER BY ts_event_ns, log_offset"
_BARS = (
    "SELECT symbol, ts_event_ns // 60000000000 AS minute, sum(quantity) AS volume FROM read_parquet($files) "
    f"WHERE (symbol = $symbol OR $symbol = '') AND {_WITHIN} GROUP BY ALL"
)


def _compact(directory: Path) -> tuple[dict[str, Any], int, float]:
    """Run one round of `k2 maintain` and return the report of the table, its peak memory and its seconds."""
    command = [sys.executable, "-m", "k2.cli.main", "maintain", "--json", "--data-dir", str(directory)]
    started = time.perf_counter()
    done = subprocess.run(
        command, env={**os.environ, **UPKEEP}, stdout=subprocess.PIPE, text=True, check=True, timeout=3_600
    )
    seconds = time.perf_counter() - started
    peak_bytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    report = next(one for one in json.loads(done.stdout)["tables"] if one["table"] == TRADES.name)
    assert report["after"]["files"] < report["before"]["files"], report
    return report, peak_bytes, seconds


def _content(paths: list[str]) -> tuple[int, int]:
    """Return the number of rows and a sum of their hashes, in any order."""
    rows = total = 0
    for path in paths:
        for frame in pl.read_parquet(path).iter_slices(100_000):
            rows += frame.height
            total = (total + int(frame.hash_rows(seed=1).sum() or 0)) % 2**64
    return rows, total
