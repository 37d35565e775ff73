"""A real file system that is full, or read-only: the worker says so, loses nothing, and goes on by itself."""

from __future__ import annotations

import subprocess
import threading
import uuid
from contextlib import contextmanager
from importlib.resources import files

import polars as pl
import pytest
import yaml

from k2 import bootstrap
from k2.ingestion import events
from k2.ingestion.health import WorkerHealth
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.market_rows import market_rows

pytestmark = pytest.mark.platform

MESSAGE_COLUMNS = [field.name for field in TRADES.message_fields]
DISK_BYTES = 4 * 2**20
BALLAST_BYTES = 32 * 2**10
CLOCK = bootstrap.system_clock()


def mount(*words):
    subprocess.run(["mount", *words], check=True, capture_output=True, text=True)


@contextmanager
def mounted(target, *words):
    """Mount something for a while; skip the test where that is not permitted."""
    try:
        mount(*words, str(target))
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        pytest.skip(f"mounting is not permitted here: {getattr(error, 'stderr', error)}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@pytest.fixture
def disk(tmp_path):
    target = tmp_path / "disk"
    target.mkdir()
    with mounted(target, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs"):
        yield target


@pytest.fixture
def settings(disk, tmp_path, kafka_settings, monkeypatch):
    """Settings whose tables lie on the small disk, with an exchange that no other test knows."""
    exchange = f"disk{uuid.uuid4().hex[:8]}"
    topics = yaml.safe_load(files("k2").joinpath("config/topics.yaml").read_text())
    topics["exchanges"] = {exchange: topics["exchanges"]["sim"] | {"partitions": 1}}
    (tmp_path / "topics.yaml").write_text(yaml.safe_dump(topics))
    for name, value in {
        "K2_TOPICS_FILE": str(tmp_path / "topics.yaml"),
        "K2_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "K2_KAFKA__REGISTRY_URL": kafka_settings.registry_url,
        "K2_INGESTION__GROUP_ID": exchange,
        "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.1",
        "K2_INGESTION__RETRY_PAUSE_SECONDS": "0.01",
        "K2_INGESTION__RETRY_PAUSE_SECONDS_MAX": "0.02",
        "K2_CATALOG__COMMIT_ATTEMPTS_MAX": "1",
        "K2_DEGRADATION__SINK_PROBE_SECONDS": "0.01",
        "K2_DEGRADATION__SINK_PROBE_SECONDS_MAX": "0.02",
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings(disk)


class Ingestion:
    """A worker in a thread, what it told, and the rows sent to it."""

    def __init__(self, settings):
        self.settings = settings
        self.topic = next(t for t in bootstrap.topic_catalog(settings).market_topics if t.data_type == "trades")
        self.health = WorkerHealth(settings.ingestion)
        self.failures = []
        self.sent = 0
        self.on_failure = lambda: None
        worker = bootstrap.ingest_worker(settings, observer=events.Observers(self.health, self._note))
        registry = bootstrap.schema_registry(settings)
        self.schema_id = registry.register(self.topic.subject, avro_text(TRADES))
        registry.close()
        self._producer = LogProducer(settings.kafka)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=worker.run, args=(self._stop,))
        self._thread.start()

    def send(self, count, *, missing=0):
        rows = market_rows(range(self.sent, self.sent + count), exchange=self.topic.exchange)
        rows = rows.with_columns(pl.col("sequence") + missing)
        self.sent += count
        values = encode_frame(TRADES, rows.select(MESSAGE_COLUMNS), self.schema_id)
        self._producer.send(self.topic.name, [symbol.encode() for symbol in rows["symbol"]], values)
        self._producer.flush(30)

    def close(self):
        self._stop.set()
        self._thread.join()
        self._producer.close()

    def _note(self, event):
        if isinstance(event, events.CommitFailed):
            self.failures.append(event.reason)
            self.on_failure()


@pytest.fixture
def ingestion(settings):
    running = Ingestion(settings)
    running.send(100)
    wait_for(lambda: held(settings) == list(range(100)))
    yield running
    running.close()


def wait_for(reached, seconds=60.0):
    deadline = CLOCK.monotonic() + seconds
    while not reached():
        assert CLOCK.monotonic() < deadline
        CLOCK.sleep(0.02)


def held(settings):
    """Return the sequences that the table holds, and see that its ledger adds up."""
    tables = MarketTables(settings.catalog, CLOCK)
    assert tables.head("trades").seam.totals().unaccounted == 0
    found = tables.load("trades").scan(selected_fields=("source_sequence",)).to_arrow()["source_sequence"].to_pylist()
    tables.close()
    return sorted(found)


def fill(disk):
    """Fill the disk to the last byte, with files that can be taken away one by one."""
    ballast = []
    try:
        while True:
            ballast.append(disk / f"ballast-{len(ballast)}")
            ballast[-1].write_bytes(bytes(BALLAST_BYTES))
    except OSError:
        return ballast


def test_a_full_disk_holds_commits_back_until_there_is_room_whatever_it_was_that_did_not_fit(disk, settings, ingestion):
    ballast = fill(disk)
    ingestion.send(2_000, missing=3)
    wait_for(ingestion.health.reasons)
    [reason] = ingestion.health.reasons()
    before = held(settings)

    ingestion.on_failure = lambda: ballast.pop().unlink() if ballast else None
    wait_for(lambda: held(settings) == list(range(2_100)))

    assert "No space left" in reason
    assert before == list(range(100))
    assert ingestion.health.reasons() == []
    assert {text.split(":")[1].split()[0] for text in ingestion.failures} == {"writing", "appending", "committing"}


def test_a_read_only_warehouse_holds_commits_back_until_it_can_be_written(disk, settings, ingestion):
    warehouse = str(disk / "warehouse")
    with mounted(warehouse, "--bind", warehouse):
        mount("-o", "remount,bind,ro", warehouse)
        ingestion.send(50)
        wait_for(ingestion.health.reasons)
        [reason] = ingestion.health.reasons()
        before = held(settings)

        mount("-o", "remount,bind,rw", warehouse)
        wait_for(lambda: held(settings) == list(range(150)))

    assert "Read-only file system" in reason
    assert before == list(range(100))
    assert ingestion.health.reasons() == []
