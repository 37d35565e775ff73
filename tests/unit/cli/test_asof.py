"""`k2 asof`: what is asked of the API or the tables, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.cli import asof
from k2.cli.main import app
from k2.client import K2Client
from k2.common.clock import SystemClock
from k2.schemas.records import QUOTES
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.fake_engine import FakeEngine
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows

SECOND = 10**9


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeEngine]:
    """The engine behind an API in this process: a trade each second, a quote half a second before every other one."""
    trades = market_rows(range(6), symbols=("AAA",), step_ns=SECOND)
    quotes = market_rows(
        range(3), symbols=("AAA",), record_type=QUOTES, step_ns=2 * SECOND, start_ns=START_NS + SECOND // 2
    )
    price = pl.lit(Decimal("36.5")).cast(pl.Decimal(28, 12))
    made = FakeEngine({"trades": trades, "quotes": quotes.with_columns(bid_price=price)})
    api = create_app(made, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    with TestClient(api) as server:
        monkeypatch.setattr(asof, "client_of", lambda _: K2Client("http://k2", "key", transport=server._transport))
        yield made


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, ["asof", "AAA", "--start", "2026-01-01", *words])
    assert result.exception is None, result.exception
    return result


def stood(*words: str) -> list[int | None]:
    # The API of this process logs to the same output.
    rows = json.loads(run(*words, "--format", "json").stdout.splitlines()[-1])["data"]
    return [row["quote_log_offset"] for row in rows]


def test_a_table_shows_both_sides_and_the_quotes_time(engine: FakeEngine) -> None:
    shown = run().stdout

    assert "36.5" in shown
    assert "quote_ts_event_ns" in shown
    assert "log_partition" not in shown


def test_each_trade_has_the_quote_that_stood(engine: FakeEngine) -> None:
    assert stood() == [None, 0, 0, 1, 1, 2]
    assert stood("--tolerance", "1") == [None, 0, None, 1, None, 2]
    assert stood("--limit", "2") == [None, 0]


def test_quotes_of_the_very_moment_can_be_left_out(engine: FakeEngine) -> None:
    engine.rows["quotes"] = market_rows(range(6), symbols=("AAA",), record_type=QUOTES, step_ns=SECOND)

    assert stood("--strictly-before") == [None, 0, 1, 2, 3, 4]
    assert stood() == [0, 1, 2, 3, 4, 5]


def test_the_tables_alone_need_no_api(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path)
    lake.tables.close()
    lake.settings = load_settings(tmp_path, environ={}).catalog
    lake.tables = MarketTables(lake.settings, SystemClock())
    lake.create()
    lake.commit("first", 0, 30)
    lake.close()

    assert stood("--lake-only", "--data-dir", str(tmp_path)) == [None] * 10
