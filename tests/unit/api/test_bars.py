"""GET /v1/ohlcv: what may be asked of bars, and that every form of an answer keeps every digit."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.common.clock import SystemClock
from k2.query.bars.columns import BARS_SCHEMA
from k2.query.bars.request import BarsRequest
from k2.query.request import QueryRequest
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows

KEY = "k2_test_key"
SECOND = 10**9


@pytest.fixture
def engine() -> FakeEngine:
    rows = market_rows(range(6), symbols=("AAA",), step_ns=SECOND // 2)
    prices = pl.Series("price", [Decimal(text) for text in ("36.667", "2", "3", "-1", "5", "0.000000000001")])
    return FakeEngine({"trades": rows.with_columns(prices.cast(pl.Decimal(28, 12)))})


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[TestClient]:
    app = create_app(engine, key=ApiKey(KEY), settings=ApiSettings(rows_max=3), clock=SystemClock(), unready=list)
    with TestClient(app, headers={"X-API-Key": KEY}, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, **parameters: Any) -> Any:
    response = client.get("/v1/ohlcv", params={"symbol": "AAA", "start": str(START_NS), "interval": "1s", **parameters})
    assert response.status_code == 200, response.text
    return response


def test_json_gives_bars_with_every_digit_and_their_certificate(client: TestClient) -> None:
    body = ask(client).json()

    assert [bar["open"] for bar in body["data"]] == ["36.667", "3", "5"]
    assert [bar["low"] for bar in body["data"]] == ["2", "-1", "0.000000000001"]
    assert [bar["bar_start_ns"] for bar in body["data"]] == [START_NS, START_NS + SECOND, START_NS + 2 * SECOND]
    assert body["data"][0]["bar_start"] == "2026-01-01T00:00:00.000000Z"
    assert body["certificate"]["bars"]["interval"] == "1s"
    assert body["next_cursor"] is None


def test_all_formats_say_the_same(client: TestClient) -> None:
    expected = ask(client).json()["data"]

    text = pl.read_csv(io.BytesIO(ask(client, format="csv").content), infer_schema=False)
    parquet = pq.read_table(io.BytesIO(ask(client, format="parquet").content))
    arrow = pa.ipc.open_stream(ask(client, format="arrow").content).read_all()

    assert text["vwap"].to_list() == [bar["vwap"] for bar in expected]
    assert parquet.equals(arrow)
    assert arrow.schema.equals(BARS_SCHEMA)
    assert json.loads(arrow.schema.metadata[b"k2.certificate"])["rows"] == 6


def test_the_question_reaches_the_engine_as_asked(client: TestClient, engine: FakeEngine) -> None:
    ask(client, interval="5m", align="session", prints="all", exchange="sim", gaps="exclude", amendments="raw")

    assert engine.asked_bars == [
        BarsRequest(
            trades=QueryRequest(
                data_type="trades",
                symbol="AAA",
                exchange="sim",
                start_ns=START_NS,
                gaps="exclude",
                amendments="raw",
            ),
            interval="5m",
            align="session",
            prints="all",
        )
    ]


def test_without_a_range_the_last_minutes_are_asked_for(client: TestClient, engine: FakeEngine) -> None:
    assert client.get("/v1/ohlcv", params={"symbol": "AAA"}).status_code == 200
    assert (engine.asked[0].window_minutes, engine.asked_bars[0].interval) == (15, "1m")


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        ({"interval": "2d"}, 422),
        ({"interval": "1 OR 1"}, 422),
        ({"interval": "1m' OR 'a"}, 422),
        ({"align": "exchange"}, 422),
        ({"prints": "some"}, 422),
        ({"limit": "5"}, 400),
        ({"cursor": "x"}, 400),
        ({"symbol": ""}, 422),
    ],
)
def test_a_wrong_question_is_refused(client: TestClient, wrong: dict[str, str], status: int) -> None:
    assert client.get("/v1/ohlcv", params={"symbol": "AAA", "start": str(START_NS), **wrong}).status_code == status


def test_more_bars_than_come_at_once_are_refused(client: TestClient, engine: FakeEngine) -> None:
    engine.rows["trades"] = market_rows(range(4), symbols=("AAA",), step_ns=SECOND)

    response = client.get("/v1/ohlcv", params={"symbol": "AAA", "start": str(START_NS), "interval": "1s"})

    assert response.status_code == 422
    assert "K2_API__ROWS_MAX" in response.json()["detail"]


def test_bars_need_the_key(client: TestClient) -> None:
    assert client.get("/v1/ohlcv", params={"symbol": "AAA"}, headers={"X-API-Key": "k2_other"}).status_code == 401
