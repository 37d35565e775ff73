"""`k2 export`: every row once, in the directory of its exchange and day, all of it or nothing; and back again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.cli import export
from k2.cli.main import app
from k2.client import K2Client
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, QueryError, UnavailableError
from k2.query.certificate import AsOf
from k2.query.exporting import CERTIFICATES_FILE, SUMMARY_FILE
from k2.query.request import Answer, QueryRequest
from k2.schemas.records import QUOTES, TRADES
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.fake_engine import FakeEngine
from k2.testing.feed_world import FeedWorld
from k2.testing.local_lake import LocalLake
from k2.testing.mapped_files import import_mapped
from k2.testing.market_rows import market_rows

SIX_HOURS_NS = 6 * 3_600_000_000_000
NOT_VENUES = {"log_id", "log_partition", "log_offset", "ts_log", "commit_sequence", "written_by", "ts_event"}
MAPPING = """
version: 1
table: trades
exchange: sim
columns:
  symbol: symbol
  ts_event_ns: {column: ts_event_ns, unit: ns}
  ts_recv_ns: {column: ts_recv_ns, unit: ns}
  trading_date: trading_date
  action: action
  channel: channel
  sequence: sequence
  sub_index: sub_index
  trade_id: trade_id
  ref_trade_id: ref_trade_id
  price: price
  quantity: quantity
  side: side
  conditions: conditions
  extra: extra
"""


class BreakingEngine(FakeEngine):
    """Fails on a symbol."""

    breaks_on: str | None = None

    def query(self, request: QueryRequest) -> Answer:
        if request.symbol == self.breaks_on:
            raise UnavailableError("the log is away", dependency="kafka")
        return super().query(request)


@pytest.fixture
def rows() -> pl.DataFrame:
    """Trades of three symbols over five days of two exchanges."""
    asx = market_rows(range(6), exchange="asx", symbols=("XYZ",), step_ns=SIX_HOURS_NS, log_id=1)
    return pl.concat([market_rows(range(20), step_ns=SIX_HOURS_NS), asx])


@pytest.fixture
def engine(rows: pl.DataFrame) -> BreakingEngine:
    return BreakingEngine({"trades": rows, "quotes": market_rows(range(5), record_type=QUOTES)})


@pytest.fixture(autouse=True)
def client(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path / "data"))
    api = create_app(engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
    with TestClient(api) as server:

        def client_of(_: object) -> K2Client:
            return K2Client("http://k2", "key", transport=server._transport, page_rows=2, attempts_max=1)

        monkeypatch.setattr(export, "client_of", client_of)
        yield


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, ["export", *map(str, words)], env={"COLUMNS": "200"})
    if result.exception is not None:
        raise result.exception
    return result


def found_in(directory: Path) -> pl.DataFrame:
    """Return the rows as any reader of hive directories sees them, in order."""
    return pl.read_parquet(directory / "**/*.parquet", hive_partitioning=True).sort(
        "ts_event_ns", "log_id", "log_offset"
    )


def test_each_row_is_in_the_file_of_its_exchange_and_day(rows: pl.DataFrame, tmp_path: Path) -> None:
    result = run("trades", tmp_path / "out")

    found = found_in(tmp_path / "out")
    assert found.drop("date").select(rows.columns).equals(rows.sort("ts_event_ns", "log_id", "log_offset"))
    assert (found["date"] == found["ts_event"].dt.date()).all()
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.parquet"))
    assert names[:2] == [f"exchange=asx/date=2026-01-0{day}/part-00000.parquet" for day in (1, 2)]
    assert len(names) == 7
    assert "26 trades of 4 symbols in 7 files written to" in result.stdout


def test_the_certificate_of_each_answer_is_in_the_directory(tmp_path: Path) -> None:
    run("trades", tmp_path / "out", "--exchange", "sim", "--end", "2026-01-03")

    lines = (tmp_path / "out" / CERTIFICATES_FILE).read_text().splitlines()
    certificates = [json.loads(line) for line in lines]
    assert [(each["symbol"], each["exchange"], each["rows"]) for each in certificates] == [
        ("AAA", "sim", 3),
        ("BBB", "sim", 3),
        ("CCC", "sim", 2),
    ]
    assert all(each["complete"] and not each["truncated"] for each in certificates)
    summary = json.loads((tmp_path / "out" / SUMMARY_FILE).read_text())
    assert (summary["rows"], summary["answers"], summary["complete"]) == (8, 3, True)
    assert summary["question"]["end"] == "2026-01-03"


def test_what_is_asked_narrows_what_is_exported(engine: FakeEngine, tmp_path: Path) -> None:
    token = AsOf("trades", "sim", 1, ((0, 0, 9, 9),)).to_token()

    run("trades", tmp_path / "some", "-s", "BBB", "-s", "AAA", "-e", "sim", "--as-of", token, "--start", "2026-01-02")
    run("quotes", tmp_path / "quotes")

    found = found_in(tmp_path / "some")
    assert set(found["symbol"]) == {"AAA", "BBB"}
    assert found["log_offset"].to_list() == [4, 6, 7]
    assert found_in(tmp_path / "quotes").height == 5
    assert {request.symbol for request in engine.asked if request.data_type == "trades"} == {"AAA", "BBB"}


def test_few_rows_at_a_time_and_few_files_at_once_lose_nothing(
    rows: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("K2_QUERY__EXPORT_ROWS_MAX", "3")
    monkeypatch.setenv("K2_QUERY__EXPORT_FILES_OPEN_MAX", "1")

    run("trades", tmp_path / "out")

    found = found_in(tmp_path / "out")
    assert found.select(rows.columns).equals(rows.sort("ts_event_ns", "log_id", "log_offset"))
    assert len(list((tmp_path / "out" / "exchange=sim" / "date=2026-01-01").iterdir())) > 1


def test_a_failure_leaves_nothing_and_an_earlier_export_as_it_was(engine: BreakingEngine, tmp_path: Path) -> None:
    run("trades", tmp_path / "out", "--exchange", "asx")
    engine.breaks_on = "BBB"

    for target in ("out", "new"):
        with pytest.raises(Exception, match="the log is away"):
            run("trades", tmp_path / target, "--overwrite")

    assert [path.name for path in tmp_path.iterdir() if path.name != "data"] == ["out"]
    assert found_in(tmp_path / "out").height == 6


def test_what_is_there_is_replaced_only_where_it_is_an_export_and_that_was_asked(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "empty").mkdir()
    run("trades", tmp_path / "out")

    with pytest.raises(ConfigurationError, match="--overwrite"):
        run("trades", tmp_path / "out")
    with pytest.raises(ConfigurationError, match="found something else"):
        run("trades", tmp_path / "mine", "--overwrite")
    with pytest.raises(ConfigurationError, match="make it"):
        run("trades", tmp_path / "nowhere" / "out")
    run("trades", tmp_path / "out", "--overwrite", "--exchange", "asx")
    run("trades", tmp_path / "empty")

    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    assert found_in(tmp_path / "out").height == 6
    assert found_in(tmp_path / "empty").height == 26
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_export_of_nothing_is_refused(engine: FakeEngine, tmp_path: Path) -> None:
    engine.rows = {}

    with pytest.raises(QueryError, match="k2 symbols"):
        run("trades", tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_the_tables_alone_are_exported_without_broker_and_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setattr(export, "_LAKE_PAGE_ROWS", 70)
    made = LocalLake(data)
    made.tables.close()
    made.settings = load_settings(data, environ={}).catalog
    made.tables = MarketTables(made.settings, SystemClock())
    made.create()
    made.commit("first", 0, 500)
    made.close()

    run("trades", tmp_path / "out", "--lake-only")

    assert found_in(tmp_path / "out")["log_offset"].to_list() == list(range(500))


def test_what_was_exported_comes_back_by_an_import_as_it_was(engine: FakeEngine, tmp_path: Path) -> None:
    odd = market_rows(range(40), symbols=("AAA", "B.B")).with_columns(
        pl.col("price") / 1000 - 1,
        side=pl.Series(["BUY", "SELL", None, "BUY"] * 10),
        conditions=pl.Series([["x"], [], ["x", "y z"], []] * 10),
        extra=pl.Series(['{"a":1}', None] * 20),
        trade_id=pl.Series([f"t{number}" for number in range(40)]),
    )
    engine.rows["trades"] = odd = odd.cast({"price": pl.Decimal(28, 12)})
    (tmp_path / "mapping.yaml").write_text(MAPPING)
    world = FeedWorld(tmp_path, "sim")

    run("trades", tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.parquet")
    found = import_mapped(world, file, tmp_path / "mapping.yaml")
    again = import_mapped(world, file, tmp_path / "mapping.yaml")

    names = [
        field.name for field in TRADES.message_fields if field.name not in {"source", "source_sequence"} | NOT_VENUES
    ]
    back = world.rows("trades").select(names).sort("ts_event_ns")
    assert back.equals(odd.select(names).sort("ts_event_ns"))
    assert (found.sent, again.sent) == (40, 0)
    assert "exchange" not in pq.read_schema(file).names
