"""Overload on the real broker: what a worker defers is answered in full, and written by others, whatever kills them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from k2 import bootstrap
from k2.bootstrap import operations
from k2.common.errors import K2Error
from k2.kafka.producer import LogProducer
from k2.kafka.registry import SchemaRegistry
from k2.local.platform import LocalPlatform
from k2.query.request import QueryRequest
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES, WrittenBy
from k2.schemas.tier_maps import TierMap
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.messages import encode, trade

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from k2.settings import Settings

pytestmark = pytest.mark.platform

TOPIC = "market.equities.trades.asx"
SYMBOLS = [f"S{number}" for number in range(7)]
RECORDS = 14_000
EVENT_NS = 1_394_494_200_000_000_000
OVERLOADED = {
    f"K2_DEGRADATION__THRESHOLDS__{level}_LAG_RECORDS": str(number)
    for number, level in enumerate(("SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK"), start=1)
}
"""Thresholds under which a handful of waiting records is an overload."""
IN_PARTS = {"K2_INGESTION__BACKFILL__RECORDS_MAX": "500", "K2_INGESTION__BACKFILL__LAST_OFFSETS_MAX": "1"}


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A broker and registry of its own, and a tier map whose only critical symbol is the first."""
    with LocalPlatform(tmp_path / "services", components=("kafka", "registry")) as platform:
        kafka = platform.settings().kafka
        tiers = tmp_path / "tiers.json"
        tiers.write_text(TierMap.of(SYMBOLS[:1], SYMBOLS[1:2]).to_json())
        for name, value in {
            "K2_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "K2_KAFKA__REGISTRY_URL": kafka.registry_url,
            "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.5",
            "K2_INGESTION__MEMBER_ID": "worker",
            "K2_INGESTION__BACKFILL__LOOK_SECONDS": "0.1",
            "K2_DEGRADATION__TIERS_FILE": str(tiers),
        }.items():
            monkeypatch.setenv(name, value)
        yield load_settings(tmp_path)


@pytest.fixture
def start_worker(settings: Settings) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return what starts a worker as a process of its own; none is left running."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(**environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "k2.cli.main", "ingest", "--data-dir", str(settings.data_dir)]
        with (settings.data_dir / "worker.log").open("ab") as log:
            processes.append(subprocess.Popen(command, env=os.environ | environment, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def produce(settings: Settings) -> None:
    with closing(SchemaRegistry(settings.kafka)) as registry:
        schema_id = registry.register(f"{TOPIC}-value", avro_text(TRADES))
    producer = LogProducer(settings.kafka)
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    for number in range(RECORDS):
        symbol = SYMBOLS[number % len(SYMBOLS)]
        same = number - len(SYMBOLS) if number % 50 == 49 else number  # now and then one that repeats another
        fields: dict[str, Any] = {
            "symbol": symbol,
            "ts_event_ns": EVENT_NS + same,
            "ts_recv_ns": EVENT_NS + same + 1_000,
            "sequence": same // len(SYMBOLS) + 1,
        }
        keys.append(symbol.encode())
        values.append(encode(trade(**fields, source_sequence=number), schema_id=schema_id))
    producer.send(TOPIC, keys, values)
    producer.flush(30)
    producer.close()


def wait_until(settings: Settings, done: Callable[[Any], bool], seconds: float = 90.0) -> Any:  # Any: a Counts
    deadline = time.monotonic() + seconds
    with closing(MarketTables(settings.catalog, bootstrap.system_clock())) as tables:
        while True:
            try:
                counts = tables.head("trades").seam.totals()
                if done(counts):
                    return counts
            except K2Error:  # no tables yet
                counts = None
            assert time.monotonic() < deadline, (counts, (settings.data_dir / "worker.log").read_text()[-3000:])
            threading.Event().wait(0.05)


def ask(settings: Settings, symbol: str, deferred: str) -> Any:  # Any: an Answer
    side = bootstrap.query_side(settings)
    side.start()
    try:
        return side.engine.query(
            QueryRequest(data_type="trades", symbol=symbol, start_ns=EVENT_NS, end_ns=None, deferred=deferred)  # type: ignore[arg-type]  # one of its texts
        )
    finally:
        side.stop()


def places(answer: Any) -> list[tuple[int, int]]:
    return list(zip(*(answer.table[name].to_pylist() for name in ("log_partition", "log_offset")), strict=True))


def test_deferred_records_are_answered_and_then_written_by_workers_that_are_killed(
    settings: Settings, start_worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    bootstrap.log_admin(settings).create_topics(bootstrap.topic_catalog(settings).all_topics)
    produce(settings)
    overloaded = start_worker(**OVERLOADED, K2_INGESTION__POLL_MESSAGES_MAX="500")
    put_off = wait_until(settings, lambda counts: counts.consumed == RECORDS)
    overloaded.send_signal(signal.SIGKILL)
    overloaded.wait()
    marked, read = ask(settings, SYMBOLS[3], "mark"), ask(settings, SYMBOLS[3], "read")
    critical = ask(settings, SYMBOLS[0], "mark")
    with operations.auditor(settings) as auditor:
        meanwhile = auditor.verify()

    ended = start_worker(**IN_PARTS, K2_CRASH_POINTS="after_backfill:2")
    assert ended.wait(60) == 137
    killed = start_worker(**IN_PARTS)
    some = wait_until(settings, lambda counts: counts.deferred < put_off.deferred - 1_500)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    start_worker()
    final = wait_until(settings, lambda counts: counts.deferred == 0)
    with operations.auditor(settings) as auditor:
        report = auditor.verify()
    after = ask(settings, SYMBOLS[3], "mark")

    assert put_off.deferred > RECORDS // 2
    assert meanwhile.is_sound
    assert meanwhile.totals["deferred"] == put_off.deferred
    assert critical.certificate.complete
    assert not marked.certificate.complete
    assert marked.certificate.deferred
    assert read.certificate.complete
    assert 0 < some.deferred < put_off.deferred
    assert report.is_sound, report.advice
    totals = report.totals
    assert (totals["lost"], totals["doubled"], totals["deferred"]) == (0, 0, 0)
    assert totals["messages"] == RECORDS == totals["rows"] + totals["duplicates"]
    assert final.unaccounted == 0
    assert places(after) == places(read)
    rows = MarketTables(settings.catalog, bootstrap.system_clock()).load("trades").scan().to_arrow()
    by_path = pl.DataFrame(pl.from_arrow(rows))["written_by"].value_counts()
    assert set(by_path["written_by"]) == {WrittenBy.INGEST, WrittenBy.BACKFILL}
    assert (settings.data_dir / "worker.log").read_text().count("backfill_stopped") == 0
