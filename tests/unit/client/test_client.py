"""The client against the real API in this process: pages joined, errors as exceptions, patience with limits."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import httpx2
import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.settings import ApiSettings
from k2.client import ApiUnavailableError, K2Client, RefusedKeyError, RefusedQuestionError
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, LogIdentityError, QueryError, UnavailableError
from k2.query.request import Answer, QueryRequest
from k2.schemas.records import QUOTES
from k2.testing.fake_engine import FakeEngine
from k2.testing.gap_events import gap_event, gap_events
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


def test_bars_come_whole_with_their_certificate(k2: K2Client, engine: FakeEngine) -> None:
    result = k2.bars("AAA", interval="1s", start=str(START_NS), prints="all", gaps="exclude")

    assert result.table["trade_count"].to_pylist() == [100]
    assert result.certificate["bars"]["interval"] == "1s"
    assert (engine.asked_bars[0].prints, engine.asked_bars[0].trades.gaps) == ("all", "exclude")


def test_trades_come_with_the_quotes_that_stood(k2: K2Client, engine: FakeEngine) -> None:
    k2._page_rows = 7
    engine.rows["quotes"] = market_rows(range(100), symbols=("AAA",), record_type=QUOTES)

    result = k2.asof("AAA", start=str(START_NS), strictly_before=True)

    assert result.table["quote_log_offset"].to_pylist() == [None, *range(99)]


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


def test_the_pages_are_of_one_log_prefix_while_rows_arrive(k2: K2Client, engine: FakeEngine) -> None:
    k2._page_rows = 7
    asked = engine.query

    def query_while_rows_arrive(request: QueryRequest) -> Answer:
        answer = asked(request)
        engine.rows["trades"] = market_rows(range(len(engine.rows["trades"]) + 5), symbols=("AAA",))
        return answer

    engine.query = query_while_rows_arrive  # type: ignore[method-assign]  # rows arrive between the pages

    assert k2.trades("AAA", start=START_NS).table["log_offset"].to_pylist() == list(range(100))


def test_an_error_carries_its_status_and_the_request(k2: K2Client, engine: FakeEngine) -> None:
    engine.fails_with = LogIdentityError("another log")

    with pytest.raises(RefusedQuestionError, match="another log") as refused:
        k2.quotes("AAA")

    assert refused.value.status == 409
    assert refused.value.request_id is not None
    assert refused.value.request_id in str(refused.value)


def answering(*responses: httpx2.Response) -> httpx2.MockTransport:
    left = list(responses)
    return httpx2.MockTransport(lambda _: left.pop(0) if len(left) > 1 else left[0])


@pytest.mark.parametrize(("header", "pause"), [({}, 1.0), ({"Retry-After": "3"}, 3.0), ({"Retry-After": "900"}, 10.0)])
@pytest.mark.parametrize("status", [429, 503])
def test_a_pause_is_the_one_asked_for_up_to_the_limit(header: dict[str, str], pause: float, status: int) -> None:
    pauses: list[float] = []
    clock = SimpleNamespace(sleep=pauses.append)
    transport = answering(httpx2.Response(status, headers=header), httpx2.Response(200, json={"data": []}))

    with K2Client("http://k2", "key", transport=transport, clock=clock) as k2:  # type: ignore[arg-type]  # only sleep is used
        assert k2.symbols() == []

    assert pauses == [pause]


@pytest.mark.parametrize(
    ("response", "kind", "text"),
    [
        (httpx2.Response(403, json={"detail": "not yours"}), RefusedKeyError, "not yours"),
        (httpx2.Response(502, text="<html>bad gateway</html>"), ApiUnavailableError, "bad gateway"),
        (httpx2.Response(500, json=["odd"]), ApiUnavailableError, "odd"),
        (httpx2.Response(404, json={"detail": None}), RefusedQuestionError, "404"),
        (httpx2.Response(503, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}), ApiUnavailableError, "503"),
    ],
)
def test_whatever_answers_an_error_is_one_of_three(response: httpx2.Response, kind: type[Exception], text: str) -> None:
    with (
        K2Client("http://k2", "key", attempts_max=1, transport=answering(response)) as k2,
        pytest.raises(kind, match=text),
    ):
        k2.symbols()


def test_an_answer_that_takes_too_long_is_unavailable() -> None:
    def slow(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadTimeout("slow", request=request)

    with (
        K2Client("http://k2", "key", transport=httpx2.MockTransport(slow)) as k2,
        pytest.raises(ApiUnavailableError, match="in time"),
    ):
        k2.symbols()


def test_the_client_loads_nothing_of_the_server() -> None:
    script = "import sys, k2.client; print([n for n in ('fastapi', 'duckdb', 'polars', 'pyarrow') if n in sys.modules])"

    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "[]"


def test_gaps_are_plain_values(k2: K2Client, engine: FakeEngine) -> None:
    engine.known_gaps.events = gap_events(gap_event())

    assert [(gap["gap_first"], gap["state"]) for gap in k2.gaps(symbol="BHP", since=150)] == [(10, "open")]
    assert k2.gaps(symbol="CBA") == []
