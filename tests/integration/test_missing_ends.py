"""Missing ends on a real broker: what feeds mark on the status topic, the ledger tells, without another message."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import uuid
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
SYMBOLS = [f"S{number}" for number in range(40)]


@pytest.fixture(scope="module")
def settings(kafka_settings, tmp_path_factory):
    """Settings of an exchange that no other test knows, whose worker decides soon."""
    exchange = f"ends{uuid.uuid4().hex[:8]}"
    directory = tmp_path_factory.mktemp("ends")
    topics = yaml.safe_load(files("k2").joinpath("config/topics.yaml").read_text())
    topics["exchanges"] = {exchange: topics["exchanges"]["sim"] | {"partitions": 2}}
    (directory / "topics.yaml").write_text(yaml.safe_dump(topics))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "K2_TOPICS_FILE": str(directory / "topics.yaml"),
            "K2_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers,
            "K2_KAFKA__REGISTRY_URL": kafka_settings.registry_url,
            "K2_INGESTION__GROUP_ID": exchange,
            "K2_INGESTION__COMMIT_INTERVAL_SECONDS": "0.1",
            "K2_INGESTION__SEQUENCES__REORDER_SECONDS": "0.3",
            "K2_INGESTION__SEQUENCES__QUIET_LOOK_SECONDS": "0.2",
        }.items():
            patch.setenv(name, value)
        yield load_settings(directory)


@pytest.fixture(scope="module", autouse=True)
def _worker(settings):
    stop = threading.Event()
    worker = bootstrap.ingest_worker(settings, observer=lambda _event: None)
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    yield
    stop.set()
    thread.join()


@pytest.fixture
def channel(settings):
    exchange = next(iter(bootstrap.topic_catalog(settings).exchanges))
    with feed(settings, exchange) as opened:
        yield opened.channel


def send(channel, symbol, *numbers):
    rows = market_rows(numbers, symbols=(symbol,), exchange=channel.topic("trades").exchange)
    channel.send("trades", rows.select(list(message_polars_schema(TRADES))))
    channel.flush()


def how_far(symbol, last):
    numbers = {name: [last] for name in ("last_sequence", "last_source_sequence", "records")}
    return pl.DataFrame({"source": ["test"], "symbol": [symbol], **numbers})


def gaps(settings, symbol):
    with operations.gap_reader(settings) as reader:
        found = reader.gaps(symbol=symbol).sort("gap_first")
    return found.select("gap_first", "gap_last", "missing", "state").rows()


def wait_for(expected, look, seconds=60.0):
    deadline = CLOCK.monotonic() + seconds
    while (found := look()) != expected:
        assert CLOCK.monotonic() < deadline, found
        CLOCK.sleep(0.1)


def test_a_heartbeat_and_an_end_each_show_what_is_missing_before_them_and_late_messages_fill_it(settings, channel):
    send(channel, "AAA", *range(1, 9))
    channel.mark_alive("trades", how_far("AAA", 10))
    wait_for([(9, 10, 2, "open")], lambda: gaps(settings, "AAA"))

    send(channel, "AAA", 9)
    wait_for([(9, 10, 1, "open")], lambda: gaps(settings, "AAA"))
    channel.mark_end("trades", how_far("AAA", 12))
    wait_for([(9, 10, 1, "open"), (11, 12, 2, "open")], lambda: gaps(settings, "AAA"))

    send(channel, "AAA", 10, 11, 12)
    wait_for([(9, 10, 0, "filled"), (11, 12, 0, "filled")], lambda: gaps(settings, "AAA"))


def test_the_ledger_of_a_replay_with_gaps_is_its_truth_file_to_the_last_number(settings, tmp_path):
    recording, truth = tmp_path / "trades.parquet", tmp_path / "truth.jsonl"
    market_rows(range(2_000), symbols=SYMBOLS).write_parquet(recording)
    [topic] = [each.name for each in bootstrap.topic_catalog(settings).market_topics if each.data_type == "trades"]

    words = ["replay", str(recording), "--to", topic, "--gaps", "0.2", "--reorder", "0.02", "--truth", str(truth)]
    command = [sys.executable, "-m", "k2.cli.main", *words, "--data-dir", str(settings.data_dir)]
    subprocess.run(command, check=True, timeout=60)

    told = [json.loads(line) for line in truth.read_text().splitlines()]
    withheld = sorted((each["symbol"], each["record"]["sequence"]) for each in told if each["kind"] == "withheld")
    assert len([number for _, number in withheld if number == 1_999 // len(SYMBOLS)]) > 1, "some ends are missing"
    wait_for(withheld, lambda: missing_numbers(settings))


def missing_numbers(settings):
    """Return the numbers that were missed and have not come."""
    found = {"opened": [], "filled": [], "lost": []}
    with operations.gap_reader(settings) as reader:
        topics = reader.gaps().select("topic_id", "log_partition").unique().rows()
        for event, symbol, first, last in (
            row
            for topic_id, partition in topics
            for row in reader.events(topic_id, partition)
            .select("event", "symbol", "first_missing", "last_missing")
            .iter_rows()
        ):
            found[event] += [(symbol, number) for number in range(first, last + 1)]
    assert len(found["opened"]) == len(set(found["opened"])), "each missing number is told of once"
    return sorted({each for each in set(found["opened"]) - set(found["filled"]) if each[0] in SYMBOLS})
