"""A real worker process that a message kills: after three deaths that message is a dead letter, the rest are rows."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from k2 import bootstrap
from k2.common.crash_points import EXIT_CODE
from k2.kafka.producer import LogProducer
from k2.kafka.registry import SchemaRegistry
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.storage.seam import LogPartition
from k2.storage.tables import MarketTables
from k2.testing.messages import encode, trade

if TYPE_CHECKING:
    from pathlib import Path

    from k2.kafka.settings import KafkaSettings
    from k2.settings import Settings

pytestmark = pytest.mark.platform

TOPIC = "market.simulated.trades.sim"
POISON = b"poison-pill"
WAIT_SECONDS = 90


def worker(environment: dict[str, str]) -> int | None:
    """Run a worker until it dies, or until everything is in the table; return its exit code, None if it lived."""
    code = (
        "import sys; from k2 import bootstrap; from k2.settings import load_settings\n"
        "settings = load_settings()\n"
        "bootstrap.start_process(settings, component='ingest')\n"
        f"ends = {{k: r.end for k, r in bootstrap.log_admin(settings).ranges({TOPIC!r}).items()}}\n"
        "worker = bootstrap.ingest_worker(settings, observer=lambda _event: None)\n"
        f"sys.exit(0 if worker.run_until(ends, timeout_seconds={WAIT_SECONDS}) else 1)\n"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=False, timeout=WAIT_SECONDS * 2).returncode


def send(settings: Settings) -> None:
    registry = SchemaRegistry(settings.kafka)
    schema_id = registry.register(f"{TOPIC}-value", avro_text(TRADES))
    registry.close()
    at = dt.datetime(2026, 3, 2, 15, tzinfo=dt.UTC)
    values = [
        encode(
            trade(
                exchange="sim",
                symbol="IBM",
                ts_event_ns=int(at.timestamp()) * 10**9 + number,
                trading_date=at.date(),
                source_sequence=number,
                sequence=number,
                trade_id=POISON.decode() if number == 7 else str(number),
            ),
            schema_id=schema_id,
        )
        for number in range(20)
    ]
    producer = LogProducer(settings.kafka)
    producer.send(TOPIC, [b"IBM"] * len(values), values)
    producer.flush(30)
    producer.close()


def test_a_worker_is_killed_three_times_and_not_a_fourth(
    kafka_settings: KafkaSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {
        "K2_DATA_DIR": str(tmp_path),
        "K2_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "K2_KAFKA__REGISTRY_URL": kafka_settings.registry_url,
        "K2_INGESTION__GROUP_ID": f"poison-{tmp_path.name}",
        "K2_INGESTION__MEMBER_ID": "worker",
        "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.5",
    }
    for name, value in changes.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    admin = bootstrap.log_admin(settings)
    admin.create_topics(bootstrap.topic_catalog(settings).all_topics)
    admin.close()
    send(settings)
    armed = os.environ | {"K2_CRASH_POINTS": f"decoding={POISON.hex()}"}

    codes = [worker(armed) for _ in range(4)]

    tables = MarketTables(settings.catalog, bootstrap.system_clock())
    head = tables.head("trades")
    registered = head.log_of(TOPIC)
    assert registered is not None
    counts = head.seam.totals(LogPartition(registered.log_id, number) for number in range(registered.partitions))
    letters = tables.load("dead_letters").scan(f"topic = '{TOPIC}'").to_arrow().to_pylist()
    tables.close()
    assert codes == [EXIT_CODE, EXIT_CODE, EXIT_CODE, 0]
    assert (counts.consumed, counts.rows, counts.dead_letters) == (20, 19, 1)
    assert [(letter["error_class"], POISON in letter["value"]) for letter in letters] == [("KilledTheProcess", True)]
    assert "three times" in letters[0]["reason"]
