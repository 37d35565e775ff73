"""A backup of a platform that is busy: restored elsewhere, it is sound, answers the same, and goes on."""

from __future__ import annotations

import json
import shutil
import threading

import pytest
from typer.testing import CliRunner

from k2 import bootstrap
from k2.cli.main import app
from k2.kafka.producer import LogProducer
from k2.kafka.serialization import encode_frame
from k2.local.platform import LocalPlatform
from k2.query.request import QueryRequest
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.settings import load_settings
from k2.testing.market_rows import market_rows

pytestmark = pytest.mark.platform

TOPIC = "market.simulated.trades.sim"
MESSAGE_COLUMNS = [field.name for field in TRADES.message_fields]
SYMBOLS = ("AAA", "BBB", "CCC")


def services(root):
    return LocalPlatform(root, components=("kafka", "registry"))


def k2(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output + str(result.exception)
    return result.stdout


class Market:
    """Sends numbered trades to a platform, and ingests what the log holds."""

    def __init__(self, root, sent=0):
        self.settings = load_settings(root)
        self.sent = sent
        registry = bootstrap.schema_registry(self.settings)
        self.schema_id = registry.register(f"{TOPIC}-value", avro_text(TRADES))
        registry.close()

    def send(self, count):
        rows = market_rows(range(self.sent, self.sent + count), symbols=SYMBOLS)
        producer = LogProducer(self.settings.kafka)
        producer.send(
            TOPIC,
            [symbol.encode() for symbol in rows["symbol"].to_list()],
            encode_frame(TRADES, rows.select(MESSAGE_COLUMNS), self.schema_id),
        )
        producer.flush(30)
        producer.close()
        self.sent += count

    def ends(self):
        admin = bootstrap.log_admin(self.settings)
        try:
            return {key: extent.end for key, extent in admin.ranges(TOPIC).items()}
        finally:
            admin.close()

    def ingest(self):
        worker = bootstrap.ingest_worker(self.settings, observer=lambda _event: None)
        worker.run_until(self.ends(), timeout_seconds=60)

    def keep_busy(self, stop):
        while not stop.is_set():
            self.send(200)
            self.ingest()

    def sequences(self):
        """Return the numbers of all trades that a hybrid answer holds."""
        side = bootstrap.query_side(self.settings)
        side.start()
        try:
            answers = [
                side.engine.query(QueryRequest(data_type="trades", symbol=symbol, exchange="sim")) for symbol in SYMBOLS
            ]
        finally:
            side.stop()
        assert all(answer.certificate.complete for answer in answers)
        return sorted(number for answer in answers for number in answer.table["source_sequence"].to_pylist())


def test_a_platform_backed_up_while_it_is_busy_is_restored_whole_and_goes_on(tmp_path):
    root, backup, new = tmp_path / "data", tmp_path / "backup", tmp_path / "new"
    with services(root):
        market = Market(root)
        bootstrap.ingest_worker(market.settings, observer=lambda _event: None)
        market.send(500)
        market.ingest()
        market.send(300)  # above the seam: in the log alone
        before = market.sequences()
        stop = threading.Event()
        busy = threading.Thread(target=market.keep_busy, args=(stop,))
        busy.start()
        try:
            k2("backup", backup, "--data-dir", root)
        finally:
            stop.set()
            busy.join(120)
        topic_id = bootstrap.log_admin(market.settings).identities([TOPIC])[TOPIC].topic_id
        everything = market.sequences()
    shutil.rmtree(root)

    k2("restore", backup, "--data-dir", new)

    with services(new):
        ends = json.loads((backup / "backup.json").read_text())["facts"]["log_ends"]
        restored = Market(new, sent=market.sent)
        assert bootstrap.log_admin(restored.settings).identities([TOPIC])[TOPIC].topic_id == topic_id
        found = restored.sequences()
        assert set(before) <= set(found) <= set(everything)
        assert len(found) == len(set(found)) == sum(restored.ends().values())
        assert sum(restored.ends().values()) >= sum(ends.get(TOPIC, {}).values()) >= len(before)

        restored.send(100)
        restored.ingest()

        report = json.loads(k2("verify", "--json", "--data-dir", new))
        assert (report["lost"], report["doubled"], report["pending"]) == (0, 0, 0)
        assert report["sound"], report["problems"]
        assert report["rows"] == len(found) + 100
        assert json.loads(k2("verify", "--deep", "--json", "--data-dir", new))["sound"]
        assert len(restored.sequences()) == len(found) + 100
