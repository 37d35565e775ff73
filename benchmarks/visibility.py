"""From produced to visible: how long until an acknowledged trade is in a hybrid answer, under a steady load."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

from benchmarks.report import Figure, percentile
from benchmarks.rows import SECOND_NS, trades
from benchmarks.services import services, worker
from k2 import bootstrap
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.query.request import QueryRequest
from k2.schemas.arrow import message_polars_schema
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES

if TYPE_CHECKING:
    from k2.settings import Settings

RATE = 20_000
TICK_SECONDS = 0.1
GOAL_MS = 250
WARM_SECONDS = 3.0


def measure(*, quick: bool) -> list[Figure]:
    """Send 20,000 trades a second; ten times a second ask for a probe symbol until its newest trade is there.

    An ingest worker writes them into the table meanwhile, as on a running platform.
    """
    ticks = 50 if quick else 300
    with services() as settings:
        topics = bootstrap.topic_catalog(settings)
        topic = topics.topic("sim", "trades")
        admin, registry = bootstrap.log_admin(settings), bootstrap.schema_registry(settings)
        admin.create_topics(topics.all_topics)
        schema_id = registry.register(topic.subject, avro_text(TRADES))
        producer = LogProducer(settings.kafka)
        with worker(settings):
            seconds, load = _visible(settings, topic.name, schema_id, producer, ticks=ticks)
        producer.close()
        registry.close()
        admin.close()
    p99 = percentile(seconds, 0.99) * 1e3
    return [
        Figure("produce to visible, p50", statistics.median(seconds) * 1e3, "ms"),
        Figure("produce to visible, p99", p99, "ms", f"{GOAL_MS} or less", p99 <= GOAL_MS),
        Figure("load reached", load, "messages/s"),
    ]


def _visible(
    settings: Settings, topic: str, schema_id: int, producer: LogProducer, *, ticks: int
) -> tuple[list[float], float]:
    """Return the seconds of each probe, and the messages a second that were sent meanwhile."""
    columns = list(message_polars_schema(TRADES))
    side = bootstrap.query_side(settings)
    side.start()
    time.sleep(WARM_SECONDS)
    seconds, size, begin = [], int(RATE * TICK_SECONDS), time.perf_counter()
    for tick in range(ticks):
        now = time.time_ns()
        rows = trades(size, first_offset=tick * size, start_ns=now, span_ns=SECOND_NS // 10).select(columns)
        encoded = encode_frame(TRADES, rows, schema_id)
        keys = [symbol.encode() for symbol in rows["symbol"].to_list()]
        time.sleep(max(0.0, begin + tick * TICK_SECONDS - time.perf_counter()))
        last = rows.filter(rows["symbol"] == "SIM001")["source_sequence"].max()
        sent = time.perf_counter()
        producer.send(topic, keys, encoded)
        producer.flush(10)
        request = QueryRequest(data_type="trades", symbol="SIM001", exchange="sim", start_ns=now, limit=None)
        while last not in side.engine.query(request).table["source_sequence"].to_pylist():
            pass
        seconds.append(time.perf_counter() - sent)
    load = ticks * size / (time.perf_counter() - begin)
    side.stop()
    return seconds, load
