"""Hybrid answers and the audit on a real broker, registry and catalog."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import uvicorn
from confluent_kafka import Producer
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from k2 import bootstrap
from k2.api.app import create_app
from k2.api.connections import limited_connections
from k2.api.keys import ApiKey
from k2.api.server import listen
from k2.api.settings import ApiSettings
from k2.bootstrap import operations
from k2.cli.main import app
from k2.client import K2Client
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.local.platform import LocalPlatform
from k2.query.request import QueryRequest
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.testing.market_rows import START_NS, market_rows

pytestmark = pytest.mark.platform

TOPIC = "market.simulated.trades.sim"
MESSAGE_COLUMNS = [field.name for field in TRADES.message_fields]


class Market:
    """A platform's data directory, what was sent to its topic so far, and the engine that answers about it."""

    def __init__(self, settings):
        self.settings = settings
        self.producer = LogProducer(settings.kafka)
        registry = bootstrap.schema_registry(settings)
        self.schema_id = registry.register(f"{TOPIC}-value", avro_text(TRADES))
        registry.close()
        self.side = bootstrap.query_side(settings)
        self.sent = 0

    def messages(self, count):
        rows = market_rows(range(self.sent, self.sent + count), symbols=("AAA", "BBB", "CCC", "DDD", "EEE"))
        self.sent += count
        return rows["symbol"].to_list(), encode_frame(TRADES, rows.select(MESSAGE_COLUMNS), self.schema_id)

    def send(self, count):
        symbols, values = self.messages(count)
        self.producer.send(TOPIC, [symbol.encode() for symbol in symbols], values)
        self.producer.flush(30)

    def send_rows(self, rows):
        values = encode_frame(TRADES, rows.select(MESSAGE_COLUMNS), self.schema_id)
        self.producer.send(TOPIC, [symbol.encode() for symbol in rows["symbol"]], values)
        self.producer.flush(30)

    def ingest(self):
        ends = {key: extent.end for key, extent in bootstrap.log_admin(self.settings).ranges(TOPIC).items()}
        bootstrap.ingest_worker(self.settings, observer=lambda _event: None).run_until(ends, timeout_seconds=60)

    def ask(self, symbol="AAA", **fields):
        return self.side.engine.query(QueryRequest(data_type="trades", symbol=symbol, exchange="sim", **fields))

    def sequences(self, symbol="AAA", **fields):
        return self.ask(symbol, **fields).table["source_sequence"].to_pylist()


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    with LocalPlatform(tmp_path_factory.mktemp("services"), components=("kafka", "registry")) as platform:
        yield platform


@pytest.fixture(scope="module")
def market(services, tmp_path_factory):
    kafka = services.settings().kafka
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K2_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
        patch.setenv("K2_KAFKA__REGISTRY_URL", kafka.registry_url)
        patch.setenv("K2_INGESTION__LOG_END_GRACE_SECONDS", "0")
        settings = load_settings(tmp_path_factory.mktemp("data"))
        bootstrap.log_admin(settings).create_topics(bootstrap.topic_catalog(settings).all_topics)
        made = Market(settings)
        made.send(20)
        made.ingest()
        made.side.start()
        yield made
        made.side.stop()
        made.producer.close()


def test_what_was_acknowledged_before_the_question_is_in_the_answer(market):
    for _ in range(20):
        market.send(5)

        assert market.sequences()[-1] == market.sent - 5

    answer = market.ask()
    assert answer.table["source_sequence"].to_pylist() == list(range(0, market.sent, 5))
    assert answer.certificate.complete
    assert answer.certificate.rows_from_log > 0


def test_an_answer_does_not_change_when_its_rows_are_committed(market):
    market.send(50)
    before = market.ask()

    market.ingest()
    after = market.ask()

    stable = [name for name in before.table.column_names if name not in ("commit_sequence", "written_by")]
    assert after.table.select(stable).equals(before.table.select(stable))
    assert after.certificate.rows_from_log < before.certificate.rows_from_log
    assert market.ask(as_of=before.certificate.as_of).table.select(stable).equals(before.table.select(stable))


def test_a_stream_follows_history_table_and_log_over_http_with_one_cursor(market):
    settings = ApiSettings(stream_batch_seconds=0.01)
    app = create_app(
        market.side.engine, key=ApiKey("key"), settings=settings, clock=bootstrap.system_clock(), unready=list
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, http=limited_connections(settings)))
    with listen("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as threads:
        serving = threads.submit(server.run, [listener])
        with K2Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "key") as k2:
            got, cursor = [], None
            for what in (lambda: None, lambda: market.send(50), market.ingest, lambda: market.send(50)):
                what()
                want = market.sequences(start_ns=0)
                for event in k2.stream("AAA", exchange="sim", start=0, cursor=cursor):
                    got += [row["source_sequence"] for row in event.rows]
                    cursor = event.cursor or cursor
                    if event.kind == "heartbeat" and len(got) >= len(want):
                        break
                assert got == want
            streaming = k2.stream("AAA", exchange="sim", cursor=cursor)
            next(streaming)
            market.send(50)
            market.ingest()
            market.send(50)
            for event in streaming:
                got += [row["source_sequence"] for row in event.rows]
                if len(got) >= len(market.sequences(start_ns=0)):
                    break
            streaming.close()
        app.state.end_streams()
        server.should_exit = True
        serving.result(30)

    assert got == market.sequences(start_ns=0)


def test_a_token_gives_the_same_rows_after_the_files_were_merged(market):
    market.send(50)
    taken = [market.ask(symbol) for symbol in ("AAA", "BBB")]
    for _ in range(3):
        market.send(10)
        market.ingest()
    merging = market.settings.upkeep.model_copy(update={"merge_files_min": 2, "quiet_minutes": 1e6})
    before = market.ask().table

    with operations.upkeep(market.settings.model_copy(update={"upkeep": merging})) as upkeep:
        report = upkeep.round()

    trades = next(table for table in report.tables if table.table == "trades")
    assert trades.after.files < trades.before.files
    assert market.ask().table.equals(before)
    for answer in taken:
        again = market.ask(answer.certificate.symbol, as_of=answer.certificate.as_of).table
        assert again["source_sequence"].equals(answer.table["source_sequence"])
        assert again["log_offset"].equals(answer.table["log_offset"])


def test_bars_asked_over_http_are_of_all_trades_wherever_these_are(market):
    app = create_app(
        market.side.engine,
        key=ApiKey("k2_test_key"),
        settings=ApiSettings(),
        clock=bootstrap.system_clock(),
        unready=list,
    )
    question = {"symbol": "AAA", "exchange": "sim", "start": str(START_NS), "interval": "1s"}
    market.send(50)

    with TestClient(app, headers={"X-API-Key": "k2_test_key"}) as client:
        in_the_log = client.get("/v1/ohlcv", params=question).json()
        market.ingest()
        in_the_table = client.get("/v1/ohlcv", params=question).json()

    logged, stored = in_the_log["data"][0], in_the_table["data"][0]
    assert (logged["trade_count"], logged["state"]) == (market.sent // 5, "provisional")
    assert logged["last_ts_event_ns"] == START_NS + (market.sent - 5) * 1_000_000
    assert stored == {**logged, "state": "final"}
    assert in_the_log["certificate"]["rows_from_log"] > 0
    assert in_the_table["certificate"]["rows_from_log"] == 0


def test_aborted_transactions_are_no_rows_and_hold_up_no_answer(market):
    symbols, values = market.messages(10)
    client = {
        "bootstrap.servers": market.settings.kafka.bootstrap_servers,
        "transactional.id": "hybrid",
        "partitioner": "murmur2_random",
    }
    producer = Producer(client)
    producer.init_transactions(30)
    for commit in (False, True):
        producer.begin_transaction()
        for symbol, value in zip(symbols, values, strict=True):
            producer.produce(TOPIC, key=symbol.encode(), value=value)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    # The broker marks the partitions a moment after it has accepted the end of a transaction.
    deadline = time.monotonic() + 30
    while market.sequences()[-1] != market.sent - 5 and time.monotonic() < deadline:
        market.side.tail.look_again(1)

    answer = market.ask()

    assert answer.table["source_sequence"].to_pylist() == list(range(0, market.sent, 5))
    assert answer.certificate.complete


def test_a_tail_that_is_outrun_is_made_up_from_the_log(market):
    small = market.settings.query.model_copy(update={"tail_bytes_max": 1, "catch_up_seconds_max": 0.2})
    side = bootstrap.query_side(market.settings.model_copy(update={"query": small}))
    side.start()
    market.send(100)
    deadline = time.monotonic() + 30
    while side.tail.get_stats()["outrun_chunks"] == 0 and time.monotonic() < deadline:
        side.tail.look_again(1)

    answer = side.engine.query(QueryRequest(data_type="trades", symbol="BBB", exchange="sim"))

    assert answer.table["source_sequence"].to_pylist() == list(range(1, market.sent, 5))
    side.stop()


def test_the_audit_finds_every_record(market):
    market.ingest()

    with operations.auditor(market.settings) as auditor:
        report = auditor.verify()

    totals = report.totals
    assert report.advice == ()
    assert (totals["messages"], totals["rows"], totals["lost"], totals["doubled"]) == (market.sent, market.sent, 0, 0)


def test_a_cancelled_trade_is_gone_wherever_trade_and_cancel_are_and_known_as_then(market):
    trades = market_rows(range(6), symbols=("ZZZ",)).with_columns(trade_id=pl.format("Z{}", "log_offset"))
    named = {"action": pl.lit("CANCEL"), "ref_trade_id": "trade_id", "sequence": pl.lit(None, pl.Int64)}
    cancels = trades.with_columns(**named)
    market.send_rows(trades)
    market.ingest()
    then = market.ask("ZZZ")
    market.send_rows(cancels[[1, 4]])

    in_the_log = market.ask("ZZZ")
    market.ingest()
    in_the_table = market.ask("ZZZ")

    stable = [name for name in then.table.column_names if name not in ("commit_sequence", "written_by")]
    assert in_the_log.table["trade_id"].to_pylist() == ["Z0", "Z2", "Z3", "Z5"]
    assert in_the_table.table.select(stable).equals(in_the_log.table.select(stable))
    assert [answer.certificate.cancelled for answer in (then, in_the_log, in_the_table)] == [0, 2, 2]
    assert market.ask("ZZZ", as_of=then.certificate.as_of).table.equals(then.table)
    assert market.ask("ZZZ", known_at_ns=cut(market)).table.equals(then.table)
    assert market.ask("ZZZ", amendments="raw").table.num_rows == 8


def cut(market):
    """Return the time at which the log took the first cancel."""
    raw = market.ask("ZZZ", amendments="raw").table
    logged = [row["ts_log"] for row in raw.select(["action", "ts_log"]).to_pylist() if row["action"] == "CANCEL"]
    return int(min(logged).timestamp() * 1_000) * 1_000_000


def test_a_file_with_a_mapping_comes_in_once_and_goes_out_as_it_was(market, tmp_path):
    (tmp_path / "mapping.yaml").write_text(
        "version: 1\ntable: trades\nexchange: sim\ncolumns:\n  symbol: sym\n  ts_event_ns: {column: t, unit: ns}\n"
        "  price: px\n  quantity: qty\n"
    )
    lines = [f"OWN{number % 3},{START_NS + number},0.{number + 1:012},{number + 1}" for number in range(300)]
    (tmp_path / "trades.csv").write_text("\n".join(["sym,t,px,qty", *lines]))
    words = ["import", "csv", str(tmp_path / "trades.csv"), "--mapping", str(tmp_path / "mapping.yaml")]

    first = k2(market, *words)
    market.ingest()
    again = k2(market, *words)
    k2(market, "export", "trades", str(tmp_path / "out"), "-s", "OWN0", "-s", "OWN1", "-s", "OWN2", "--lake-only")

    assert "300 records added" in first
    assert re.search(r"^0 records added", again, re.MULTILINE)
    found = pl.read_parquet(tmp_path / "out" / "**/*.parquet").sort("source_sequence")
    back = found.select(pl.format("{},{},{},{}", "symbol", "ts_event_ns", "price", pl.col("quantity").cast(pl.Int64)))
    assert back.to_series().to_list() == lines


def k2(market, *words):
    result = CliRunner().invoke(app, [*words, "--data-dir", str(market.settings.data_dir)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output
