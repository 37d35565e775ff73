"""A real worker on a real broker with a throttled sink: levels are climbed and left, and all is written in the end."""

from __future__ import annotations

import datetime as dt
import io
import json
import threading
import time
from decimal import Decimal

import fastavro
import pytest

from k2 import bootstrap
from k2.common.degradation import DegradationLevel
from k2.ingestion import events
from k2.kafka.producer import LogProducer
from k2.local.platform import LocalPlatform
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import TRADES
from k2.schemas.tier_maps import TierMap
from k2.settings import load_settings
from k2.storage.deferral import check_lists
from k2.storage.writer import TableWriter

pytestmark = pytest.mark.platform

TOPIC = "market.equities.trades.asx"
SYMBOLS = [f"S{number}" for number in range(20)]
TIERS = TierMap.of(SYMBOLS[:2], SYMBOLS[2:6])
SLOW_ROWS_PER_SECOND = 1_000
BURST_RECORDS = 40_000
FAST = {
    "K2_DEGRADATION__CALM_SECONDS": "1",
    "K2_DEGRADATION__STEP_SECONDS": "0.2",
    "K2_DEGRADATION__FLAP_SECONDS": "0",
    "K2_DEGRADATION__HOLD_SECONDS_MAX": "1",
    "K2_DEGRADATION__CONFIRM_SECONDS": "0.3",
    "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.3",
    "K2_INGESTION__LAG_INTERVAL_SECONDS": "0.2",
    "K2_INGESTION__COMMIT_ROWS_MAX": "2000",
    "K2_INGESTION__POLL_MESSAGES_MAX": "500",
    "K2_INGESTION__DECODE_MESSAGES_MAX": "500",
}


@pytest.fixture
def settings(tmp_path, monkeypatch):
    (tmp_path / "tiers.json").write_text(TIERS.to_json())
    for name, value in FAST.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("K2_DEGRADATION__TIERS_FILE", str(tmp_path / "tiers.json"))
    with LocalPlatform(tmp_path / "services", components=("kafka", "registry")) as platform:
        kafka = platform.settings().kafka
        monkeypatch.setenv("K2_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
        monkeypatch.setenv("K2_KAFKA__REGISTRY_URL", kafka.registry_url)
        yield load_settings(tmp_path)


class Throttle:
    """Writes files as a slow store would, while it is on."""

    def __init__(self, monkeypatch) -> None:
        self.is_on = threading.Event()
        written = TableWriter.write_files

        def write_files(writer, rows):
            if self.is_on.is_set():
                time.sleep(len(rows) / SLOW_ROWS_PER_SECOND)  # the store of this test is slow
            return written(writer, rows)

        monkeypatch.setattr(TableWriter, "write_files", write_files)


def messages(settings, numbers: range) -> tuple[list[bytes], list[bytes]]:
    registry = bootstrap.schema_registry(settings)
    schema_id = registry.register(f"{TOPIC}-value", avro_text(TRADES))
    registry.close()
    schema, prefix = fastavro.parse_schema(avro_schema(TRADES)), b"\0" + schema_id.to_bytes(4, "big")
    keys, values = [], []
    for number in numbers:
        ts = 1_700_000_000_000_000_000 + number * 1_000_000
        symbol = SYMBOLS[number % len(SYMBOLS)]
        body = io.BytesIO(prefix)
        body.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(body, schema, {
            "exchange": "asx", "symbol": symbol, "ts_event_ns": ts, "ts_recv_ns": ts,
            "trading_date": dt.date(2023, 11, 14), "action": "NEW", "source": "test", "source_sequence": number,
            "channel": None, "sequence": number // len(SYMBOLS), "sub_index": None, "trade_id": None,
            "ref_trade_id": None, "price": Decimal("1.25"), "quantity": Decimal(1), "side": "BUY", "conditions": [],
            "extra": None,
        })  # fmt: skip
        keys.append(symbol.encode())
        values.append(body.getvalue())
    return keys, values


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        threading.Event().wait(0.1)


def test_a_slow_store_defers_what_matters_least_and_all_is_written_in_the_end(settings, monkeypatch):
    throttle, told = Throttle(monkeypatch), []
    bootstrap.log_admin(settings).create_topics(bootstrap.topic_catalog(settings).all_topics)
    keys, values = messages(settings, range(BURST_RECORDS + 500))
    worker = bootstrap.ingest_worker(settings, observer=told.append)
    stop = threading.Event()
    running = threading.Thread(target=worker.run, args=(stop,))
    running.start()
    producer = LogProducer(settings.kafka)
    tables = bootstrap.market_tables(settings)
    level = DegradationLevel.NORMAL

    def changes() -> list[events.LevelChanged]:
        return [event for event in list(told) if isinstance(event, events.LevelChanged)]

    def consumed() -> int:
        return tables.head("trades").seam.totals().consumed

    try:
        producer.send(TOPIC, keys[:500], values[:500])
        producer.flush(30)
        wait_for(lambda: consumed() >= 500, 60)
        assert changes() == [], "nothing was overloaded yet"
        throttle.is_on.set()
        producer.send(TOPIC, keys[500:], values[500:])
        producer.flush(30)
        wait_for(lambda: max([level, *(each.to_level for each in changes())]) is DegradationLevel.CIRCUIT_BREAK, 60)
        wait_for(lambda: consumed() >= len(keys), 120)
        throttle.is_on.clear()
        wait_for(lambda: changes()[-1].to_level is DegradationLevel.NORMAL, 60)
        wait_for(lambda: tables.head("trades").seam.totals().deferred == 0, 120)
    finally:
        stop.set()
        running.join(60)
        producer.close()

    seam = tables.head("trades").seam
    totals = seam.totals()
    check_lists(seam)
    assert totals.unaccounted == totals.lost == totals.duplicates == 0
    assert totals.rows == totals.consumed == len(keys)
    shed = [event for event in told if isinstance(event, events.RecordsDeferred)]
    assert sum(sum(event.records.values()) for event in shed) > 0
    assert {priority for event in shed for priority, _ in event.records} <= {"high", "normal"}
    rows = tables.load("trades").scan(selected_fields=("source_sequence",)).to_arrow()["source_sequence"].to_pylist()
    assert sorted(rows) == list(range(len(keys)))
    down = [each.to_level for each in changes()][-4:]
    assert down == list(reversed(list(DegradationLevel)))[1:]
    assert json.loads(next(iter(tables.head("trades").tier_maps.values()))) == json.loads(TIERS.to_json())
    tables.close()
