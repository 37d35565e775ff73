"""One symbol's 15 minutes out of 10 M rows in the table and a tail in the log, asked while trades arrive."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, trades
from benchmarks.services import CHUNK, fill, services
from k2 import bootstrap
from k2.query.request import QueryRequest
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch, TableWriter

if TYPE_CHECKING:
    from k2.settings import Settings

GOAL_MS = 50
FILES = 12


def measure(*, quick: bool) -> list[Figure]:
    """Build the table directly, put a tail into the log, then ask for one symbol after the other."""
    rows, questions = (1_000_000, 50) if quick else (10_000_000, 300)
    with services() as settings:
        tables, clock = bootstrap.market_tables(settings), bootstrap.system_clock()
        tables.register_log(
            "trades", cluster_id="bench", topic_id="bench", topic="market.bench.trades.sim", starts={0: 0}
        )
        writer, key, each = TableWriter(tables, "trades", settings.catalog, clock), LogPartition(0, 0), rows // FILES
        for number in range(FILES):
            frame = trades(each, first_offset=number * each, span_ns=4 * 3600 * SECOND_NS)
            delta = PartitionDelta(number * each, (number + 1) * each, Counts(consumed=each, rows=each))
            writer.commit(
                Batch(f"bench-{number}", {key: delta}, writer.write_files(frame), created_at_ns=clock.time_ns())
            )
        fill(settings, 4 * CHUNK)
        side = bootstrap.query_side(settings)
        side.start()
        stop = threading.Event()
        arriving = threading.Thread(target=_arrive, args=(settings, stop))
        arriving.start()
        start_ns = trades(1, span_ns=SECOND_NS)["ts_event_ns"][0] // SECOND_NS * SECOND_NS + 3600 * SECOND_NS
        _wait_for_tail(side)
        seconds = []
        for number in range(questions):
            request = QueryRequest(
                data_type="trades", symbol=f"SIM{number % 100:03d}", exchange="sim",
                start_ns=start_ns, end_ns=start_ns + 900 * SECOND_NS,
            )  # fmt: skip
            began = time.perf_counter()
            answer = side.engine.query(request)
            seconds.append(time.perf_counter() - began)
            assert answer.table.num_rows > 0, "each symbol has trades in the window"
        stop.set()
        arriving.join()
        side.stop()
        tables.close()
    p99 = percentile(seconds, 0.99) * 1e3
    return [
        Figure(
            f"15 minutes of one symbol, {rows:,} rows in {FILES} files, p50", statistics.median(seconds) * 1e3, "ms"
        ),
        Figure("the same, p99", p99, "ms", f"{GOAL_MS} or less", p99 <= GOAL_MS),
    ]


def _arrive(settings: Settings, stop: threading.Event) -> None:
    """Keep a market of 2,000 messages a second and an ingest worker running, each a process of its own."""
    base = [sys.executable, "-m", "k2.cli.main"]
    place = ["--data-dir", str(settings.data_dir)]
    with (
        subprocess.Popen([*base, "ingest", *place], stderr=subprocess.DEVNULL) as worker,
        subprocess.Popen([*base, "simulate", "--rate", "2000", *place], stderr=subprocess.DEVNULL) as market,
    ):
        stop.wait()
        market.terminate()
        worker.terminate()


def _wait_for_tail(side: bootstrap.QuerySide) -> None:
    """Return once the tail has caught up with what is in the log."""
    deadline = time.monotonic() + 30
    while side.tail.trouble is not None and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(2.0)
