"""Halted streams on a real broker: one symbol waits for its gap, the others go on, and a release writes what waited."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
from contextlib import closing
from importlib.resources import files

import polars as pl
import pytest
import yaml

from k2 import bootstrap
from k2.bootstrap import operations
from k2.bootstrap.feeds import feed
from k2.schemas.arrow import message_polars_schema
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.testing.market_rows import market_rows

pytestmark = pytest.mark.platform

CLOCK = bootstrap.system_clock()


@pytest.fixture
def settings(kafka_settings, tmp_path, monkeypatch):
    """Settings of an exchange of one partition that no other test knows, whose worker halts streams."""
    exchange = f"halt{uuid.uuid4().hex[:8]}"
    topics = yaml.safe_load(files("k2").joinpath("config/topics.yaml").read_text())
    topics["exchanges"] = {exchange: topics["exchanges"]["sim"] | {"partitions": 1}}
    (tmp_path / "topics.yaml").write_text(yaml.safe_dump(topics))
    for name, value in {
        "K2_TOPICS_FILE": str(tmp_path / "topics.yaml"),
        "K2_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
        "K2_KAFKA__REGISTRY_URL": kafka_settings.registry_url,
        "K2_INGESTION__GROUP_ID": exchange,
        "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.1",
        "K2_INGESTION__BACKFILL__LOOK_SECONDS": "0.1",
        "K2_INGESTION__SEQUENCES__ON_HALT": "defer",
        "K2_INGESTION__SEQUENCES__REORDER_MESSAGES": "2",
    }.items():
        monkeypatch.setenv(name, value)
    return load_settings(tmp_path)


@pytest.fixture
def exchange(settings):
    (name,) = bootstrap.topic_catalog(settings).exchanges
    return name


@pytest.fixture(autouse=True)
def _worker(settings):
    stop = threading.Event()
    worker = bootstrap.ingest_worker(settings, observer=lambda _event: None)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def channel(settings, exchange):
    with feed(settings, exchange) as opened:
        yield opened.channel


def send(channel, symbol, numbers):
    rows = market_rows(numbers, symbols=(symbol,), exchange=channel.topic("trades").exchange)
    channel.send("trades", rows.select(list(message_polars_schema(TRADES))))
    channel.flush()


def k2_gaps(settings, *words):
    command = [sys.executable, "-m", "k2.cli.main", "gaps", *words, "--data-dir", str(settings.data_dir)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def halted(settings):
    """Return the streams that the table's list holds, each with its first message and how many wait."""
    with closing(bootstrap.market_tables(settings)) as tables:
        entries = tables.head("trades").seam.deferred
    return [(each.halted.stream, each.start, each.records) for each in entries if each.halted is not None]


def numbers_of(settings, symbol):
    """Return the numbers that the table holds of a symbol, in the order of the log."""
    with closing(bootstrap.market_tables(settings)) as tables:
        rows = tables.load("trades").scan(selected_fields=("symbol", "log_offset", "sequence")).to_arrow()
    return pl.DataFrame(pl.from_arrow(rows)).filter(pl.col("symbol") == symbol).sort("log_offset")["sequence"].to_list()


def gaps(settings, symbol):
    with operations.gap_reader(settings) as reader:
        return reader.gaps(symbol=symbol).select("gap_first", "gap_last", "missing", "state").rows()


def wait_for(expected, look, seconds=60.0):
    deadline = CLOCK.monotonic() + seconds
    while (found := look()) != expected:
        assert CLOCK.monotonic() < deadline, found
        CLOCK.sleep(0.1)


def test_a_stream_waits_from_its_gap_on_until_it_is_released_and_then_follows_in_order(settings, exchange, channel):
    send(channel, "AAA", range(1, 9))
    send(channel, "BBB", range(1, 9))
    wait_for(list(range(1, 9)), lambda: numbers_of(settings, "BBB"))
    send(channel, "AAA", range(5_000, 5_010))
    send(channel, "BBB", range(9, 21))
    wait_for([("AAA", 16, 10)], lambda: halted(settings))
    wait_for(list(range(1, 21)), lambda: numbers_of(settings, "BBB"))
    meanwhile = numbers_of(settings, "AAA"), gaps(settings, "AAA")

    (listed,) = json.loads(k2_gaps(settings, "halted", "--json"))["halted"]
    k2_gaps(settings, "release", "AAA", "--exchange", exchange, "--yes")
    wait_for([], lambda: halted(settings))
    send(channel, "AAA", range(5_010, 5_020))
    wait_for([*range(1, 9), *range(5_000, 5_020)], lambda: numbers_of(settings, "AAA"))
    wait_for([(9, 4_999, 4_991, "open")], lambda: gaps(settings, "AAA"))

    assert meanwhile == (list(range(1, 9)), [])
    assert gaps(settings, "BBB") == []
    assert (listed["exchange"], listed["stream"], listed["records"]) == (exchange, "AAA", 10)
