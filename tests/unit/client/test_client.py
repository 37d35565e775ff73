"""The client against the real API in this process: pages joined, errors as exceptions, patience with limits."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.client import K2Client
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, QueryError, UnavailableError
from k2.testing.fake_engine import FakeEngine
from k2.testing.market_rows import START_NS, market_rows


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine({"trades": market_rows(range(100), symbols=("AAA",))})


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def k2(engine: FakeEngine, pauses: list[float]) -> Iterator[K2Client]:
    app = create_app(engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
    clock = SimpleNamespace(sleep=pauses.append)
    with TestClient(app) as server, K2Client("http://k2", "key", transport=server._transport, clock=clock) as k2:  # type: ignore[arg-type]  # only sleep is used
        yield k2


def test_pages_are_joined_into_one_table(k2: K2Client) -> None:
    k2._page_rows = 7

    result = k2.trades("AAA", start=str(START_NS))

    assert result.table["log_offset"].to_pylist() == list(range(100))
    assert result.certificate["rows"] == 100
    assert result.certificate["truncated"] is False


def test_a_limit_is_a_total_over_all_pages(k2: K2Client) -> None:
    k2._page_rows = 7

    result = k2.trades("AAA", start=str(START_NS), limit=20)

    assert len(result.table) == 20
    assert result.certificate["truncated"] is True


def test_symbols_and_health_are_plain_values(k2: K2Client) -> None:
    assert k2.symbols()[0]["symbol"] == "AAA"
    assert k2.health()["status"] == "ok"


def test_a_wrong_question_is_a_query_error_with_the_request(k2: K2Client) -> None:
    with pytest.raises(QueryError, match=r"start.*request"):
        k2.trades("AAA", start="yesterday")


def test_a_wrong_key_is_a_configuration_error(engine: FakeEngine) -> None:
    app = create_app(engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)

    with (
        TestClient(app) as server,
        K2Client("http://k2", "other", transport=server._transport) as k2,
        pytest.raises(ConfigurationError, match="X-API-Key"),
    ):
        k2.symbols()


def test_an_unavailable_platform_is_asked_again_after_the_pause_that_it_names(
    k2: K2Client, engine: FakeEngine, pauses: list[float]
) -> None:
    engine.fails_with = UnavailableError("the log is down", dependency="kafka", retry_after_seconds=3)

    with pytest.raises(UnavailableError, match="the log is down"):
        k2.trades("AAA")

    assert pauses == [3.0, 3.0]
    assert len(engine.asked) == 3


def test_an_api_that_is_not_there_is_unavailable_with_the_remedy() -> None:
    with K2Client("http://127.0.0.1:9", "key") as k2, pytest.raises(UnavailableError, match="k2 status"):
        k2.symbols()
