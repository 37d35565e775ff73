"""Answers as now and as then known, over HTTP, through the client and from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.parameters import knowledge
from k2.api.settings import ApiSettings
from k2.client import K2Client
from k2.common.errors import QueryError
from k2.query.certificate import AsOf
from k2.schemas.records import Action
from k2.testing.simulated_hybrid import SimulatedHybrid, simulated_hybrid, topic
from k2.testing.simulated_market import LOGGED_AT_MS, SimulatedMarket
from k2.testing.simulated_messages import TradeFields

ASX = topic("asx", partitions=1)
TOKEN = AsOf("trades", None, 1, ((0, 0, 0, 1),)).to_token()
THEN = (LOGGED_AT_MS + 2) * 1_000_000
"""Before the cancel came."""


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """Two trades, of which the first is cancelled later."""
    market = SimulatedMarket(tmp_path, [ASX])
    market.register(ASX.name)
    for said in (TradeFields(trade_id="A"), TradeFields(trade_id="B"), TradeFields(Action.CANCEL, ref_trade_id="A")):
        market.append(ASX.name, "BHP", 100, trade=said)
    market.commit(ASX.name, 0, 1)
    made = simulated_hybrid(market, tmp_path)
    made.clock.advance(LOGGED_AT_MS / 1_000)
    yield made
    made.close()


@pytest.fixture
def server(hybrid: SimulatedHybrid) -> Iterator[TestClient]:
    app = create_app(hybrid.engine, key=ApiKey("key"), settings=ApiSettings(), clock=hybrid.clock, unready=list)
    with TestClient(app, headers={"X-API-Key": "key"}) as client:
        yield client


@pytest.fixture
def k2(server: TestClient, hybrid: SimulatedHybrid) -> Iterator[K2Client]:
    with K2Client("http://k2", "key", transport=server._transport, clock=hybrid.clock, page_rows=1) as client:  # type: ignore[arg-type]
        yield client


def ids(server: TestClient, **parameters: Any) -> list[str]:
    response = server.get("/v1/trades", params={"symbol": "BHP", "start": "0", **parameters})
    assert response.status_code == 200, response.text
    return [row["trade_id"] for row in response.json()["data"]]


@pytest.mark.parametrize("known_at", [str(THEN), "2026-01-01T00:00:00.002Z", "2026-01-01T00:00:00.002"])
def test_known_at_a_time_gives_what_was_known_then(server: TestClient, known_at: str) -> None:
    assert ids(server) == ["B"]
    assert ids(server, known_at=known_at) == ["A", "B"]


def test_known_at_a_token_gives_what_its_answer_knew(server: TestClient, hybrid: SimulatedHybrid) -> None:
    body = server.get("/v1/trades", params={"symbol": "BHP", "start": "0"}).json()
    hybrid.market.append(ASX.name, "BHP", 100, trade=TradeFields(Action.CANCEL, ref_trade_id="B"))

    token = body["certificate"]["as_of"]

    assert ids(server) == []
    assert ids(server, known_at=token) == ids(server, as_of=token) == ["B"]


def test_raw_records_come_when_asked_for(server: TestClient) -> None:
    assert ids(server, amendments="raw") == ["A", "B", None]


def test_a_time_and_a_token_go_together() -> None:
    assert knowledge("17", TOKEN) == (17, TOKEN)
    assert knowledge(TOKEN, TOKEN) == knowledge(TOKEN, None) == (None, TOKEN)
    assert knowledge(None, None) == (None, None)


def test_two_tokens_are_refused() -> None:
    other = AsOf("trades", None, 2, ((0, 0, 0, 1),)).to_token()

    with pytest.raises(QueryError, match="expected one token"):
        knowledge(TOKEN, other)


@pytest.mark.parametrize("known_at", ["yesterday", "", "eyJ2IjoxfQ", "2026-13-01", "9" * 30])
def test_what_is_neither_a_time_nor_a_token_is_refused(server: TestClient, known_at: str) -> None:
    response = server.get("/v1/trades", params={"symbol": "BHP", "start": "0", "known_at": known_at})

    assert response.status_code == 422
    assert "known_at as ISO 8601" in response.json()["detail"] or "known_at between" in response.json()["detail"]
    assert "nor is it the token" in response.json()["detail"]


@pytest.mark.parametrize("parameter", ["amendments", "known_at"])
def test_a_cursor_belongs_to_what_was_asked(server: TestClient, parameter: str) -> None:
    question = {"symbol": "BHP", "start": "0", "limit": "1", "amendments": "raw", "known_at": str(THEN + 10**6)}
    first = server.get("/v1/trades", params=question).json()
    second = server.get("/v1/trades", params={**question, "cursor": first["next_cursor"]})
    del question[parameter]

    response = server.get("/v1/trades", params={**question, "cursor": first["next_cursor"]})

    assert [row["trade_id"] for row in second.json()["data"]] == ["B"]
    assert response.status_code == 422
    assert "known_at, amendments" in response.json()["detail"]


def test_the_client_joins_pages_of_what_was_known_then(k2: K2Client) -> None:
    now = k2.trades("BHP", start=0)
    then = k2.trades("BHP", start=0, known_at=THEN)
    raw = k2.trades("BHP", start=0, amendments="raw")

    found = [result.table["trade_id"].to_pylist() for result in (now, then, raw)]
    assert found == [["B"], ["A", "B"], ["A", "B", None]]
    assert then.certificate["known_at_ns"] == THEN


def test_the_client_adds_up_what_each_page_says_of_itself(k2: K2Client, hybrid: SimulatedHybrid) -> None:
    for time, said in ((200, TradeFields(trade_id="C")), (201, TradeFields(trade_id="D"))):
        hybrid.market.append(ASX.name, "BHP", time, trade=said)
    hybrid.market.append(ASX.name, "BHP", 200, trade=TradeFields(Action.CANCEL, ref_trade_id="C"))

    result = k2.trades("BHP", start=0)

    assert result.table["trade_id"].to_pylist() == ["B", "D"]
    assert result.certificate["cancelled"] == 2
