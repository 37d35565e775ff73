"""Live streams under load: how late rows are at many subscribers, and whether forced reconnects lose or double any."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import polars as pl

from benchmarks.api_overload import KEY, running_api
from benchmarks.report import Figure, percentile
from benchmarks.rows import trades
from benchmarks.services import services, worker
from benchmarks.stream_load import Plan
from k2 import bootstrap
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES

if TYPE_CHECKING:
    from k2.settings import Settings

SYMBOLS = 100
TICK_SECONDS = 0.1
GOAL_MS = 1_000
END_SECONDS = 120.0


def measure(*, quick: bool) -> list[Figure]:
    """Send trades at a steady rate to a platform with a worker and an API; each subscriber follows a symbol."""
    subscribers, rate, ticks, reconnects = (10, 2_000, 100, 4) if quick else (50, 10_000, 600, 20)
    with services() as settings:
        topics = bootstrap.topic_catalog(settings)
        topic = topics.topic("sim", "trades")
        admin, registry = bootstrap.log_admin(settings), bootstrap.schema_registry(settings)
        admin.create_topics(topics.all_topics)
        schema_id = registry.register(topic.subject, avro_text(TRADES))
        with worker(settings), running_api(settings) as (port, _):
            begin_ns = time.time_ns()
            records = ticks * int(rate * TICK_SECONDS) // SYMBOLS
            symbols = [f"SIM{number:03d}" for number in range(subscribers)]
            plan = Plan(port, KEY, symbols, begin_ns, records, reconnects, ticks * TICK_SECONDS + END_SECONDS)
            words = [sys.executable, "-m", "benchmarks.stream_load", json.dumps(asdict(plan))]
            with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
                load = _send(settings, topic.name, schema_id, rate=rate, ticks=ticks)
                output, _ = process.communicate(timeout=END_SECONDS + 30)
        registry.close()
        admin.close()
    return _figures(json.loads(output), records, reconnects, load)


def _send(settings: Settings, topic: str, schema_id: int, *, rate: int, ticks: int) -> float:
    """Send; return the messages a second that were sent."""
    producer, size = LogProducer(settings.kafka), int(rate * TICK_SECONDS)
    columns, begin = list(message_polars_schema(TRADES)), time.perf_counter()
    for tick in range(ticks):
        time.sleep(max(0.0, begin + tick * TICK_SECONDS - time.perf_counter()))
        now = time.time_ns()
        rows = trades(size, symbols=SYMBOLS, first_offset=tick * size, start_ns=now, span_ns=size)
        rows = rows.with_columns(ts_recv_ns=pl.lit(now, pl.Int64)).select(columns)
        producer.send(topic, [symbol.encode() for symbol in rows["symbol"]], encode_frame(TRADES, rows, schema_id))
        producer.flush(10)
    seconds = time.perf_counter() - begin
    producer.close()
    return ticks * size / seconds


def _figures(got: list[dict[str, Any]], records: int, reconnects: int, load: float) -> list[Figure]:
    expected = set(range(1, records + 1))
    lost = sum(len(expected - set(each["numbers"])) for each in got)
    doubled = sum(len(each["numbers"]) - len(set(each["numbers"])) for each in got)
    forced = min(each["reconnects"] for each in got)
    settled = [late for each in got for late in each["late_ms"][records // 5 :]]
    p99 = percentile(settled, 0.99)
    return [
        Figure("subscribers", len(got), "streams"),
        Figure("load reached", load, "messages/s"),
        Figure("rows sent to subscribers", sum(len(each["numbers"]) for each in got), "rows"),
        Figure("forced reconnects of each, at least", forced, "times", f"{reconnects}", forced == reconnects),
        Figure("rows lost", lost, "rows", "0", lost == 0),
        Figure("rows doubled", doubled, "rows", "0", doubled == 0),
        Figure("made to received, reconnects included, p50", percentile(settled, 0.5), "ms"),
        Figure("made to received, reconnects included, p99", p99, "ms", f"{GOAL_MS:,} or less", p99 <= GOAL_MS),
    ]
