"""Pages of a real hybrid engine: one log prefix, however the market, the commits and the tail move on meanwhile."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st

from k2.api.app import create_app
from k2.api.cursors import VERSION, Cursor
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.common.errors import QueryError
from k2.query.request import RowKey
from k2.testing.simulated_hybrid import SimulatedHybrid, simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

ASX = topic("asx")
SIM = topic("sim")
QUESTION = {"symbol": "BHP", "limit": "4", "start": "0"}


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    market = SimulatedMarket(tmp_path, [ASX, SIM])
    for item in (ASX, SIM):
        market.register(item.name)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(hybrid: SimulatedHybrid) -> Iterator[TestClient]:
    app = create_app(hybrid.engine, key=ApiKey("key"), settings=ApiSettings(), clock=hybrid.clock, unready=list)
    with TestClient(app, headers={"X-API-Key": "key"}) as client:
        yield client


def page(client: TestClient, **parameters: str) -> dict[str, Any]:
    response = client.get("/v1/trades", params={**QUESTION, **parameters})
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def trade(hybrid: SimulatedHybrid, *times: int) -> None:
    """Append a trade at each time on both exchanges."""
    for time in times:
        hybrid.market.append(ASX.name, "BHP", time)
        hybrid.market.append(SIM.name, "BHP", time)


def commit(hybrid: SimulatedHybrid, records: int) -> None:
    for item in (ASX, SIM):
        for number in range(item.partitions):
            hybrid.market.commit(item.name, number, records)


@pytest.mark.parametrize("lake_only", ["false", "true"])
def test_pages_are_one_log_prefix_while_trades_arrive_and_commits_move_rows(
    client: TestClient, hybrid: SimulatedHybrid, lake_only: str
) -> None:
    trade(hybrid, *range(100, 120))
    commit(hybrid, 7)
    hybrid.tail.step()
    rows: list[dict[str, Any]] = []
    first = body = page(client, lake_only=lake_only)

    while True:
        rows += body["data"]
        if body["next_cursor"] is None:
            break
        trade(hybrid, 99, *range(100, 120, 3))  # late ones among them, which sort before the place
        commit(hybrid, 3)
        hybrid.tail.step()
        body = page(client, lake_only=lake_only, cursor=body["next_cursor"])

    ends = {(item["log_id"], item["partition"]): item["end"] for item in first["certificate"]["partitions"]}
    keys = [(row["ts_event_ns"], row["log_id"], row["log_partition"], row["log_offset"]) for row in rows]
    assert keys == hybrid.market.replay("trades", "BHP", ends=ends)
    assert len(keys) == (14 if lake_only == "true" else 40)


def test_a_later_page_may_leave_the_range_out(client: TestClient, hybrid: SimulatedHybrid) -> None:
    trade(hybrid, *range(100, 110))
    cursor = page(client, end="105")["next_cursor"]

    response = client.get("/v1/trades", params={"symbol": "BHP", "limit": "100", "cursor": cursor})

    assert [row["ts_event_ns"] for row in response.json()["data"]] == [102, 102, 103, 103, 104, 104]


@pytest.mark.parametrize(
    "other",
    [
        {"symbol": "CBA"},
        {"exchange": "asx"},
        {"start": "1"},
        {"end": "500"},
        {"lake_only": "true"},
        {"on_degrade": "partial"},
    ],
)
def test_a_cursor_of_another_question_is_refused(
    client: TestClient, hybrid: SimulatedHybrid, other: dict[str, str]
) -> None:
    trade(hybrid, *range(100, 110))
    cursor = page(client)["next_cursor"]

    response = client.get("/v1/trades", params={**QUESTION, **other, "cursor": cursor})

    assert response.status_code == 422
    assert "question of its first page" in response.json()["detail"]


def test_a_cursor_of_trades_is_refused_by_quotes(client: TestClient, hybrid: SimulatedHybrid) -> None:
    trade(hybrid, *range(100, 110))
    cursor = page(client)["next_cursor"]

    assert client.get("/v1/quotes", params={**QUESTION, "cursor": cursor}).status_code == 422


def test_a_token_gives_the_first_answer_again(client: TestClient, hybrid: SimulatedHybrid) -> None:
    trade(hybrid, *range(100, 103))
    before = page(client, limit="100")
    trade(hybrid, *range(100, 103))
    commit(hybrid, 4)

    again = page(client, limit="100", as_of=before["certificate"]["as_of"])

    assert [row["log_offset"] for row in again["data"]] == [row["log_offset"] for row in before["data"]]
    assert len(page(client, limit="100")["data"]) == 12


@pytest.mark.parametrize(
    ("up", "level"), [({"catalog_is_up": False}, "LOG_ONLY"), ({"log_is_up": False}, "TABLE_ONLY")]
)
def test_what_is_out_of_reach_fails_the_question_or_marks_the_answer_as_the_caller_wants(
    client: TestClient, hybrid: SimulatedHybrid, up: dict[str, bool], level: str
) -> None:
    trade(hybrid, *range(100, 103))
    commit(hybrid, 2)
    hybrid.tail.step()
    for name, value in up.items():
        setattr(hybrid.market, name, value)

    refused = client.get("/v1/trades", params=QUESTION)
    answered = page(client, on_degrade="partial")

    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert answered["certificate"]["complete"] is False
    assert answered["certificate"]["degradation_level"] == level
    assert answered["certificate"]["reasons"] != []


@pytest.mark.parametrize("name", ["csv", "parquet", "arrow"])
def test_without_a_limit_other_formats_than_json_come_whole(
    client: TestClient, hybrid: SimulatedHybrid, name: str
) -> None:
    trade(hybrid, *range(100, 120))
    commit(hybrid, 7)
    asked = {"symbol": "BHP", "start": "0"}

    with small(hybrid, rows_default=4, rows_max=40) as some, small(hybrid, rows_default=4, rows_max=39) as fewer:
        paged = some.get("/v1/trades", params=asked).json()
        whole = some.get("/v1/trades", params=asked | {"format": name})
        limited = some.get("/v1/trades", params=asked | {"format": name, "limit": "4"})
        rest = some.get("/v1/trades", params=asked | {"format": name, "cursor": limited.headers["K2-Next-Cursor"]})
        refused = fewer.get("/v1/trades", params=asked | {"format": name})

    assert (len(paged["data"]), paged["next_cursor"] is None) == (4, False)
    assert [json.loads(answer.headers["K2-Certificate"])["rows"] for answer in (whole, limited, rest)] == [40, 4, 36]
    assert "K2-Next-Cursor" not in whole.headers
    assert refused.status_code == 422
    assert "K2_API__ROWS_MAX" in refused.json()["detail"]


def small(hybrid: SimulatedHybrid, **limits: int) -> TestClient:
    settings = ApiSettings(**limits)
    app = create_app(hybrid.engine, key=ApiKey("key"), settings=settings, clock=hybrid.clock, unready=list)
    return TestClient(app, headers={"X-API-Key": "key"})


@given(st.text() | st.binary().map(lambda raw: raw.hex()))
def test_a_text_that_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(QueryError, match="next_cursor"):
        Cursor.from_text(text)


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, 1), (1, None), (1, 5), (2, []), (3, 5), (4, "0"), (5, 1.5), (6, None), (6, True), (7, 2**63), (9, "x")],
)
def test_a_forged_cursor_is_refused(place: int, value: object) -> None:
    body: list[Any] = [VERSION, "subject", "extent", None, None, None, 1, 2, 3, 4]
    Cursor.from_text(written(body))

    body[place] = value

    with pytest.raises(QueryError, match="next_cursor"):
        Cursor.from_text(written(body))


def written(body: list[Any]) -> str:
    text = json.dumps(body).encode()
    return base64.urlsafe_b64encode(zlib.crc32(text).to_bytes(4) + text).decode()


@given(st.data())
def test_a_cursor_with_another_character_is_refused(data: st.DataObject) -> None:
    text = Cursor("subject", "extent", None, 1, 2, RowKey(1, 2, 3, 4)).to_text()
    place = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.sampled_from("aZ09-_").filter(lambda each: each != text[place]))

    with pytest.raises(QueryError, match="next_cursor"):
        Cursor.from_text(text[:place] + other + text[place + 1 :])
