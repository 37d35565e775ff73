"""The real worker on a real broker, registry and catalog: bad bytes, kill -9, other logs than the table's."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import closing
from decimal import Decimal

import fastavro
import pytest
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from k2 import bootstrap
from k2.bootstrap import operations
from k2.cli.main import app
from k2.common.errors import ConfigurationError
from k2.ingestion import events
from k2.kafka.admin import LogAdmin
from k2.kafka.consumer import LogReader
from k2.kafka.producer import LogProducer, partition_for
from k2.kafka.registry import SchemaRegistry
from k2.local.platform import LocalPlatform
from k2.schemas.avro import avro_schema, avro_text
from k2.schemas.records import QUOTES, TRADES
from k2.settings import load_settings
from k2.storage.snapshots import append
from k2.storage.tables import MarketTables

pytestmark = pytest.mark.platform

TOPIC = "market.equities.trades.asx"
QUOTES_TOPIC = "market.equities.quotes.asx"
AVRO = {record_type.name: fastavro.parse_schema(avro_schema(record_type)) for record_type in (TRADES, QUOTES)}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with LocalPlatform(tmp_path_factory.mktemp("services"), components=("kafka", "registry")) as platform:
        yield platform.settings().kafka


@pytest.fixture
def data_dir(services, tmp_path, monkeypatch):
    """An empty data directory on the shared broker, whose market topics are new."""
    monkeypatch.setenv("K2_KAFKA__BOOTSTRAP_SERVERS", services.bootstrap_servers)
    monkeypatch.setenv("K2_KAFKA__REGISTRY_URL", services.registry_url)
    monkeypatch.setenv("K2_INGESTION__COMMIT_INTERVAL_SECONDS", "0.5")
    monkeypatch.setenv("K2_INGESTION__GROUP_ID", f"ingest-{tmp_path.name}")
    monkeypatch.setenv("K2_INGESTION__LOG_END_GRACE_SECONDS", "0")
    monkeypatch.setenv("K2_KAFKA__SESSION_TIMEOUT_SECONDS", "6")
    settings = load_settings(tmp_path)
    recreate(settings, TOPIC, QUOTES_TOPIC, f"{TOPIC}.dlq")
    return tmp_path


def recreate(settings, *topics):
    client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    present = set(client.list_topics(timeout=10).topics)
    for future in client.delete_topics([topic for topic in topics if topic in present] or ["none"]).values():
        if future.exception() and present & set(topics):
            raise future.exception()
    admin = LogAdmin(settings.kafka)
    wanted = bootstrap.topic_catalog(settings).all_topics
    deadline = time.monotonic() + 20
    while True:
        try:
            admin.create_topics(wanted)
            missing = {topic.name for topic in wanted} - set(admin.identities(topic.name for topic in wanted))
            if not missing:
                return
        except Exception:
            if time.monotonic() > deadline:
                raise
        threading.Event().wait(0.2)


def trade(number: int, symbol: str) -> dict:
    ts = 1_700_000_000_000_000_000 + number * 1_000_000
    return {
        "exchange": "asx", "symbol": symbol, "ts_event_ns": ts, "ts_recv_ns": ts, "trading_date": dt.date(2023, 11, 14),
        "action": "NEW", "source": "test", "source_sequence": number, "channel": None, "sequence": number,
        "sub_index": None, "trade_id": str(number), "ref_trade_id": None, "price": Decimal("1.25"),
        "quantity": Decimal(number % 100), "side": "BUY", "conditions": ["XT"], "extra": None,
    }  # fmt: skip


def framed(schema_id: int, record_type, value: dict, schema=None) -> bytes:
    body = io.BytesIO(b"\0" + schema_id.to_bytes(4, "big"))
    body.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(body, schema or AVRO[record_type.name], value)
    return body.getvalue()


def send(settings, values: list[tuple[bytes, bytes | None]], topic: str = TOPIC) -> None:
    producer = LogProducer(settings.kafka)
    producer.send(topic, [key for key, _ in values], [value for _, value in values])
    producer.flush(30)
    producer.close()


def good_messages(settings, numbers) -> list[tuple[bytes, bytes]]:
    schema_id = register(settings, TOPIC, TRADES)
    return [
        (symbol.encode(), framed(schema_id, TRADES, trade(number, symbol)))
        for number in numbers
        for symbol in [f"S{number % 7}"]
    ]


def registry_of(settings):
    return closing(SchemaRegistry(settings.kafka))


def register(settings, topic, record_type) -> int:
    with registry_of(settings) as registry:
        return registry.register(f"{topic}-value", avro_text(record_type))


def ends(settings, topic=TOPIC):
    return {key: extent.end for key, extent in LogAdmin(settings.kafka).ranges(topic).items()}


def ingest(settings, *, until=None, seconds=60.0, observer=None):
    worker = bootstrap.ingest_worker(settings, observer=observer or (lambda _event: None))
    return worker.run_until(ends(settings) if until is None else until, timeout_seconds=seconds)


def rows(settings, table="trades"):
    return MarketTables(settings.catalog, bootstrap.system_clock()).load(table).scan().to_arrow()


def counts(settings, table="trades"):
    return MarketTables(settings.catalog, bootstrap.system_clock()).head(table).seam.totals()


def test_good_and_bad_bytes_each_find_their_place(data_dir):
    settings = load_settings(data_dir)
    good = good_messages(settings, range(500))
    whole = good[0][1]
    late = trade(1, "S1") | {"ts_event_ns": 4_000_000_000_000_000_000}
    large = framed(int.from_bytes(whole[1:5], "big"), TRADES, late)
    bad = [
        (b"S1", b""),
        (b"S1", b"\0"),
        (b"S2", b"not avro at all"),
        (b"S3", b"\0\x7f\xff\xff\xff" + whole[5:]),
        (b"S4", whole[:-3]),
        (b"S5", whole + b"\1\2\3"),
        (b"S6", large),
        (b"S6", None),
        *[(b"S0", whole[:cut]) for cut in range(6, len(whole), 7)],
    ]
    mixed = [
        message for index, one in enumerate(good) for message in ([one, bad[index]] if index < len(bad) else [one])
    ]
    send(settings, mixed)
    heard = []

    assert ingest(settings, observer=heard.append)

    table = rows(settings)
    assert sorted(table["source_sequence"].to_pylist()) == list(range(500))
    assert set(table["written_by"].to_pylist()) == {"ingest"}
    letters = rows(settings, "dead_letters")
    assert Counter(letters["value"].to_pylist()) == Counter(value for _, value in bad)
    total = counts(settings)
    assert (total.consumed, total.rows, total.dead_letters, total.unaccounted) == (len(mixed), 500, len(bad), 0)
    reader = LogReader(settings.kafka, {(f"{TOPIC}.dlq", 0): 0})
    values = [value for _ in range(20) for batch in reader.poll(1_000, 0.2) for value in batch.values]
    reader.close()
    assert Counter(values) == Counter(value for _, value in bad)
    assert [event for event in heard if isinstance(event, events.TopicRefused)] == []


def test_a_worker_killed_twice_while_records_come_loses_and_doubles_nothing(data_dir, start_worker):
    settings = load_settings(data_dir)
    first = good_messages(settings, range(30_000))
    done = threading.Event()

    def produce():
        for start in range(0, len(first), 1_000):
            send(settings, first[start : start + 1_000])
            done.wait(0.15)
        done.set()

    producing = threading.Thread(target=produce)
    producing.start()
    for _ in range(2):
        process = start_worker()
        wait_for_more_rows(settings)
        process.send_signal(signal.SIGKILL)
        process.wait()
    producing.join()

    assert ingest(settings, seconds=60)

    table = rows(settings)
    assert sorted(table["source_sequence"].to_pylist()) == list(range(30_000))
    coordinates = set(zip(table["log_partition"].to_pylist(), table["log_offset"].to_pylist(), strict=True))
    assert len(coordinates) == 30_000
    assert counts(settings).unaccounted == 0


@pytest.fixture
def start_worker(data_dir):
    """Return what starts a worker as a process of its own; its events go to a file; none is left running."""
    processes = []

    def start(**environment):
        with (data_dir / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "k2.cli.main", "ingest", "--data-dir", str(data_dir)]
            processes.append(subprocess.Popen(command, env=os.environ | environment, stderr=log))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def wait_for_line(path, text, seconds=60.0):
    deadline = time.monotonic() + seconds
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        threading.Event().wait(0.05)


def wait_for_more_rows(settings, seconds=90.0):
    tables = MarketTables(settings.catalog, bootstrap.system_clock())
    tables.ensure()
    before, deadline = tables.head("trades").seam.totals().rows, time.monotonic() + seconds
    while tables.head("trades").seam.totals().rows <= before:
        assert time.monotonic() < deadline, "no commit in time"
        threading.Event().wait(0.05)


@pytest.mark.parametrize("point", ["after_poll", "mid_parquet", "after_commit"])
def test_a_worker_that_ends_at_a_crash_point_is_followed_exactly(data_dir, start_worker, point):
    settings = load_settings(data_dir)
    send(settings, good_messages(settings, range(300)))
    process = start_worker(K2_CRASH_POINTS=point)
    assert process.wait(60) == 137

    assert ingest(settings)

    assert sorted(rows(settings)["source_sequence"].to_pylist()) == list(range(300))


def test_a_producer_with_a_newer_schema_is_ingested_by_the_worker_that_runs(data_dir, start_worker):
    settings = load_settings(data_dir)
    send(settings, good_messages(settings, range(50)))
    worker = start_worker()
    wait_for_more_rows(settings)
    field = {"name": "venue_note", "type": ["null", "string"], "default": None}
    newer = avro_schema(TRADES) | {"fields": [*avro_schema(TRADES)["fields"], field]}
    without_default = newer | {"fields": [*avro_schema(TRADES)["fields"], {"name": "lot", "type": "long"}]}

    with registry_of(settings) as registry:
        schema_id = registry.register(f"{TOPIC}-value", json.dumps(newer))
        with pytest.raises(ConfigurationError, match="only add fields that have a default"):
            registry.register(f"{TOPIC}-value", json.dumps(without_default))
    parsed = fastavro.parse_schema(newer)
    values = [trade(number, "S1") | {"venue_note": f"note {number}"} for number in range(50, 100)]
    send(settings, [(b"S1", framed(schema_id, TRADES, value, parsed)) for value in values])
    wait_for_more_rows(settings)

    assert worker.poll() is None
    assert sorted(rows(settings)["source_sequence"].to_pylist()) == list(range(100))
    assert counts(settings).dead_letters == 0
    assert schema_id in MarketTables(settings.catalog, bootstrap.system_clock()).head("trades").schemas


def test_a_killed_members_successor_goes_on_at_once_and_a_second_of_its_name_ends_it(data_dir, start_worker):
    settings = load_settings(data_dir)
    member = {"K2_INGESTION__MEMBER_ID": f"w-{data_dir.name}", "K2_KAFKA__SESSION_TIMEOUT_SECONDS": "600"}
    send(settings, good_messages(settings, range(100)))
    first = start_worker(**member)
    wait_for_more_rows(settings)
    first.kill()
    first.wait()
    send(settings, good_messages(settings, range(100, 200)))

    second = start_worker(**member)
    wait_for_more_rows(settings)  # a worker of no name would wait for ten minutes
    third = start_worker(**member)

    assert second.wait(60) == 2
    assert third.poll() is None
    last_line = (data_dir / "worker.log").read_text().splitlines()
    assert [line for line in last_line if line.startswith("k2: ") and "another process has joined the group" in line]
    assert "Traceback" not in "".join(last_line)
    assert sorted(rows(settings)["source_sequence"].to_pylist()) == list(range(200))


def test_a_stopped_worker_commits_what_it_has_and_leaves(data_dir, start_worker):
    settings = load_settings(data_dir)
    process = start_worker(K2_INGESTION__COMMIT_INTERVAL_SECONDS="300")
    wait_for_line(data_dir / "worker.log", TOPIC)
    send(settings, good_messages(settings, range(200)))
    threading.Event().wait(2)

    process.send_signal(signal.SIGTERM)

    assert process.wait(30) == 0
    assert rows(settings).num_rows == 200


def test_a_topic_created_again_is_refused_and_another_goes_on(data_dir):
    settings = load_settings(data_dir)
    send(settings, good_messages(settings, range(50)))
    assert ingest(settings)
    recreate(settings, TOPIC)
    send(settings, good_messages(settings, range(100, 200)))
    quote = framed(register(settings, QUOTES_TOPIC, QUOTES), QUOTES, a_quote())
    send(settings, [(b"S1", quote)], QUOTES_TOPIC)
    heard = []

    assert ingest(settings, until=ends(settings, QUOTES_TOPIC), observer=heard.append)

    [refused] = [event for event in heard if isinstance(event, events.TopicRefused)]
    assert refused.topic == TOPIC
    assert "deleted and created again" in refused.reason
    assert rows(settings).num_rows == 50
    assert rows(settings, "quotes").num_rows == 1


def a_quote() -> dict:
    value = trade(1, "S1")
    for name in ("trade_id", "ref_trade_id", "price", "quantity", "side"):
        del value[name]
    return value | {"bid_price": Decimal(1), "bid_size": Decimal(5), "ask_price": None, "ask_size": None}


def test_a_log_shorter_than_the_seam_is_refused_with_the_difference(data_dir):
    settings = load_settings(data_dir)
    messages = good_messages(settings, range(40))
    send(settings, messages)
    assert ingest(settings)
    tables = MarketTables(settings.catalog, bootstrap.system_clock())
    partition = partition_for(b"S1", 4)
    table = tables.load("trades")
    seam = json.loads(table.current_snapshot().summary.additional_properties["k2.seam"])
    log_id = str(tables.head("trades").log_of(TOPIC).log_id)
    end = seam["logs"][log_id][str(partition)]["next"]
    seam["logs"][log_id][str(partition)]["next"] = end + 234
    append(table, summary={"k2.seam": json.dumps(seam)})
    heard = []
    worker = bootstrap.ingest_worker(settings, observer=heard.append)

    worker.run_until({(TOPIC, partition): end + 234}, timeout_seconds=5)

    [refused] = [event for event in heard if isinstance(event, events.TopicRefused)]
    assert f"seam says {end + 234:,}, log ends at {end:,}: 234 records" in refused.reason
    assert rows(settings).num_rows == 40


def test_a_seam_moved_by_the_command_line_is_where_ingestion_goes_on(data_dir):
    settings = load_settings(data_dir)
    send(settings, good_messages(settings, range(200)))
    assert ingest(settings)
    before = rows(settings).num_rows

    def offsets(*words):
        run = CliRunner().invoke(app, ["offsets", *words, "--data-dir", str(data_dir)], catch_exceptions=False)
        assert run.exit_code == 0, run.output
        return run.output

    planned = offsets("plan", TOPIC, "--to", "start", "--output", str(data_dir / "plan.json"))
    applied = offsets("apply", str(data_dir / "plan.json"), "--yes")
    emptied = rows(settings).num_rows
    assert ingest(settings)

    assert planned.count("are taken out, and") == len({partition_for(f"S{n}".encode(), 4) for n in range(7)})
    assert "run k2 verify" in applied
    assert (before, emptied) == (200, 0)
    assert sorted(rows(settings)["source_sequence"].to_pylist()) == list(range(200))
    with operations.auditor(settings) as auditor:
        assert auditor.verify().is_sound
