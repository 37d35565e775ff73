"""GET /v1/asof: trades with the quotes that stood, in pages under one token, with both certificates."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.common.clock import SystemClock
from k2.schemas.records import QUOTES
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows

KEY = "k2_test_key"
SECOND = 10**9


@pytest.fixture
def engine() -> FakeEngine:
    """A trade each second, and a quote at the same moments."""
    kinds = {"trades": market_rows(range(5), symbols=("AAA",), step_ns=SECOND)}
    kinds["quotes"] = market_rows(range(5), symbols=("AAA",), record_type=QUOTES, step_ns=SECOND)
    return FakeEngine(kinds)


@pytest.fixture
def client(engine: FakeEngine) -> Iterator[TestClient]:
    app = create_app(engine, key=ApiKey(KEY), settings=ApiSettings(rows_max=5), clock=SystemClock(), unready=list)
    with TestClient(app, headers={"X-API-Key": KEY}, raise_server_exceptions=False) as client:
        yield client


def ask(client: TestClient, **parameters: Any) -> Any:
    return client.get("/v1/asof", params={"symbol": "AAA", "start": str(START_NS), **parameters})


def test_a_trade_comes_with_its_quote_and_the_certificates_of_both(client: TestClient) -> None:
    body = ask(client).json()

    assert [row["quote_log_offset"] for row in body["data"]] == [0, 1, 2, 3, 4]
    assert body["data"][0]["quote_ts_event_ns"] == START_NS
    assert {"bid_price", "bid_size", "ask_price", "ask_size", "price", "quantity"} <= set(body["data"][0])
    assert body["certificate"]["table"] == "market.trades"
    assert body["certificate"]["quotes"]["table"] == "market.quotes"


def test_pages_go_on_under_one_token_while_rows_arrive(client: TestClient, engine: FakeEngine) -> None:
    first = ask(client, limit=2).json()

    engine.rows["quotes"] = market_rows(range(9), symbols=("AAA",), record_type=QUOTES, step_ns=SECOND // 2)
    second = client.get("/v1/asof", params={"symbol": "AAA", "limit": 9 - 4, "cursor": first["next_cursor"]}).json()

    assert [row["log_offset"] for row in second["data"]] == [2, 3, 4]
    assert [row["quote_log_offset"] for row in second["data"]] == [4, 4, 4]
    assert second["certificate"]["as_of"] == first["certificate"]["as_of"]
    assert second["next_cursor"] is None


def test_arrow_says_the_same_as_json(client: TestClient) -> None:
    table = pa.ipc.open_stream(ask(client, format="arrow", strictly_before="true").content).read_all()

    assert table["quote_log_offset"].to_pylist() == [None, 0, 1, 2, 3]
    assert json.loads(table.schema.metadata[b"k2.certificate"])["quotes"]["rows"] == 4


@pytest.mark.parametrize(
    ("parameters", "status"),
    [
        ({"tolerance": "0"}, 422),
        ({"tolerance": "nan"}, 422),
        ({"tolerance": "1e9"}, 422),
        ({"strictly_before": "maybe"}, 422),
        ({"interval": "1m"}, 400),
        ({"as_of": "~"}, 422),
        ({"as_of": "x~y"}, 422),
    ],
)
def test_a_wrong_question_is_refused(client: TestClient, parameters: dict[str, str], status: int) -> None:
    response = ask(client, **parameters)

    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
