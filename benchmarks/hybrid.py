"""One symbol's 15 minutes out of 10 M rows in the table and a tail in the log, asked while trades arrive."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, START_NS, trades
from benchmarks.services import CHUNK, command, fill, services, worker
from k2 import bootstrap
from k2.cli.serve import SWITCH_SECONDS
from k2.query.request import QueryRequest
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch, TableWriter

if TYPE_CHECKING:
    from k2.settings import Settings

GOAL_MS = 50
FILES = 12
SPAN_NS = 4 * 3600 * SECOND_NS
WINDOW_NS = 900 * SECOND_NS
WARM_SECONDS = 5.0
RATE = "2000"


def measure(*, quick: bool) -> list[Figure]:
    """Build the table directly, put a tail into the log, then ask for one symbol after the other.

    Files follow one another in time, as ingestion writes them; and, as the hardest case, each spans all four hours.
    """
    rows, questions = (1_000_000, 50) if quick else (10_000_000, 1_000)
    figures: list[Figure] = []
    for layout, ordered in (("files in order of time", True), ("each file spans 4 hours", False)):
        with services() as settings:
            _build(settings, rows, ordered=ordered)
            fill(settings, 4 * CHUNK, begin=rows)
            with worker(settings), command(settings, "simulate", "--rate", RATE):
                seconds = _ask(settings, questions)
        p50, p99 = statistics.median(seconds) * 1e3, percentile(seconds, 0.99) * 1e3
        name = f"15 minutes of one symbol, {rows:,} rows in {FILES} files, {layout}"
        figures.append(Figure(f"{name}, p50", p50, "ms"))
        figures.append(Figure(f"{name}, p99", p99, "ms", *((f"{GOAL_MS} or less", p99 <= GOAL_MS) if ordered else ())))
    return figures


def _build(settings: Settings, rows: int, *, ordered: bool) -> None:
    """Commit the rows of four hours in `FILES` files, below a log of their own."""
    tables, clock = bootstrap.market_tables(settings), bootstrap.system_clock()
    tables.register_log("trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0})
    writer, key, each = TableWriter(tables, "trades", settings.catalog, clock), LogPartition(0, 0), rows // FILES
    for number in range(FILES):
        span = SPAN_NS // FILES if ordered else SPAN_NS
        start = START_NS + number * span if ordered else START_NS
        frame = trades(each, first_offset=number * each, start_ns=start, span_ns=span)
        delta = PartitionDelta(number * each, (number + 1) * each, Counts(consumed=each, rows=each))
        writer.commit(Batch(f"bench-{number}", {key: delta}, writer.write_files(frame), created_at_ns=clock.time_ns()))
    tables.close()


def _ask(settings: Settings, questions: int) -> list[float]:
    """Return the seconds of each question, once the tail follows the log; in a process like that of `k2 serve`."""
    sys.setswitchinterval(SWITCH_SECONDS)
    side = bootstrap.query_side(settings)
    side.start()
    side.warm_start.start()
    while not side.warm_start.is_over:
        time.sleep(0.1)
    time.sleep(WARM_SECONDS)
    seconds = []
    start_ns = START_NS + 3600 * SECOND_NS
    for number in range(questions):
        request = QueryRequest(
            data_type="trades", symbol=f"SIM{number % 100:03d}", exchange="sim",
            start_ns=start_ns, end_ns=start_ns + WINDOW_NS,
        )  # fmt: skip
        began = time.perf_counter()
        answer = side.engine.query(request)
        seconds.append(time.perf_counter() - began)
        assert answer.table.num_rows > 0, "each symbol has trades in the window"
    side.stop()
    return seconds
