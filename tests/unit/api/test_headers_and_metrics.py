"""The certificate in one header, and metrics that carry over what the engine counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.records import certificate_header
from k2.api.settings import ApiSettings
from k2.common.clock import SystemClock
from k2.query.certificate import Certificate, PartitionRead
from k2.testing.fake_engine import FakeEngine


def certificate(partitions: int, symbol: str = "BHP") -> Certificate:
    return Certificate(
        table="trades",
        symbol=symbol,
        exchange=None,
        start_ns=1,
        end_ns=2,
        snapshot_id=2**62,
        commit_sequence=7,
        partitions=tuple(PartitionRead(0, "market.equities.trades.asx", n, 0, 1) for n in range(partitions)),
        rows=5,
        rows_from_table=5,
        rows_from_log=0,
        undecodable=0,
        as_of="t" * 100,
        complete=True,
    )


@pytest.mark.parametrize(
    ("partitions", "bytes_max", "has", "lacks"),
    [
        (1, 6144, {"partitions", "as_of", "rows"}, set()),
        (100, 6144, {"symbol", "rows", "complete", "degradation_level"}, {"partitions", "as_of"}),
        (1, 256, {"snapshot_id", "rows", "complete", "truncated"}, {"partitions", "as_of", "symbol"}),
    ],
)
def test_the_header_holds_as_much_of_the_certificate_as_fits(
    partitions: int, bytes_max: int, has: set[str], lacks: set[str]
) -> None:
    text = certificate_header(certificate(partitions), bytes_max)

    assert len(text) <= bytes_max
    assert has <= set(json.loads(text))
    assert lacks.isdisjoint(json.loads(text))


def test_the_header_is_ascii_whatever_the_symbol() -> None:
    text = certificate_header(certificate(1, "\u00c5\u2603\r\nSet-Cookie: a=b"), 6144)

    assert text.isascii()
    assert text.isprintable()
    assert json.loads(text)["symbol"] == "\u00c5\u2603\r\nSet-Cookie: a=b"


class CountingEngine(FakeEngine):
    """Counts as the real engine does."""

    counted: dict[str, Any]

    def get_stats(self) -> dict[str, Any]:
        return self.counted


def value(text: str, name: str) -> float:
    return float(next(line for line in text.splitlines() if line.startswith(name + " ")).split()[1])


def test_metrics_carry_over_what_engine_and_tail_have_counted_once() -> None:
    engine = CountingEngine()
    engine.counted = {"queries": 5, "failures": 1, "seconds": 2.5, "tail": {"rows": 70, "size_bytes": 9_000}}
    app = create_app(
        engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=lambda: ["a reason"]
    )

    with TestClient(app) as client:
        client.get("/metrics")
        engine.counted |= {"queries": 8}
        text = client.get("/metrics").text

    assert value(text, "k2_query_questions_total") == 8
    assert value(text, "k2_query_failures_total") == 1
    assert value(text, "k2_query_seconds_total") == 2.5
    assert value(text, "k2_tail_rows") == 70
    assert value(text, "k2_tail_size_bytes") == 9_000
    assert value(text, "k2_api_unready_failures") == 1
