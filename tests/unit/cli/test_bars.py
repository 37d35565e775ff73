"""`k2 bars`: what is asked of the API or the tables, and what is shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner, Result

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.cli import bars
from k2.cli.main import app
from k2.client import K2Client
from k2.common.clock import SystemClock
from k2.common.errors import QueryError
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.fake_engine import FakeEngine
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeEngine]:
    """The engine behind an API in this process, which the command asks."""
    made = FakeEngine({"trades": market_rows(range(90), symbols=("AAA",), step_ns=10**9)})
    api = create_app(made, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path))
    with TestClient(api) as server:
        monkeypatch.setattr(bars, "client_of", lambda _: K2Client("http://k2", "key", transport=server._transport))
        yield made


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a platform that is down: 300 trades of three symbols, a millisecond apart."""
    directory = tmp_path_factory.mktemp("platform")
    made = LocalLake(directory)
    made.tables.close()
    made.settings = load_settings(directory, environ={}).catalog
    made.tables = MarketTables(made.settings, SystemClock())
    made.create()
    made.commit("first", 0, 300)
    made.close()
    return directory


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["bars", *words])


def body_of(*words: str) -> dict[str, Any]:
    result = run(*words, "--format", "json")
    assert result.exception is None, result.exception
    # The API of this process logs to the same output.
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_bars_are_shown_with_what_they_are_made_of(engine: FakeEngine) -> None:
    result = run("AAA", "--interval", "1m", "--start", "2026-01-01")

    assert result.exception is None, result.exception
    assert "2026-01-01T00:01:00.000000Z" in result.stdout
    assert "2 bars of 90 rows" in result.stdout
    assert "first_log_offset" not in result.stdout


def test_the_other_forms_have_every_column(engine: FakeEngine) -> None:
    bar = body_of("AAA", "-i", "1h", "--start", "2026-01-01")["data"][0]

    assert bar["trade_count"] == 90
    assert {"first_log_offset", "bar_end_ns", "revision", "excluded_count"} <= set(bar)


def test_the_options_reach_the_question(engine: FakeEngine) -> None:
    run("AAA", "-i", "5m", "--align", "session", "--prints", "all", "--window", "1h", "--anchor", "latest", "-e", "sim")

    asked = engine.asked_bars[0]
    assert (asked.interval, asked.align, asked.prints) == ("5m", "session", "all")
    assert (asked.trades.window_minutes, asked.trades.anchor, asked.trades.exchange) == (60, "latest", "sim")


def test_bars_of_the_tables_alone_need_no_api(lake: Path) -> None:
    words = ("AAA", "--lake-only", "--start", "2026-01-01", "--interval", "1s", "--data-dir", str(lake))

    body = body_of(*words)

    assert [bar["trade_count"] for bar in body["data"]] == [100]
    assert body["data"][0]["state"] == "final"
    assert body["certificate"]["lake_only"] is True


def test_nothing_found_says_where_to_look(lake: Path) -> None:
    result = run("ZZZ", "--lake-only", "--start", "2026-01-01", "--data-dir", str(lake))

    assert "k2 symbols" in result.stderr


def test_a_wrong_interval_is_one_clear_error(lake: Path) -> None:
    result = run("AAA", "--lake-only", "--interval", "2d", "--data-dir", str(lake))

    assert isinstance(result.exception, QueryError)
    assert "from 1s to 1d" in str(result.exception)
