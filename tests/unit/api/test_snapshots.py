"""GET /v1/snapshots and as_of over HTTP, through the client and from the command line, on real tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from k2 import bootstrap
from k2.api.app import create_app
from k2.api.keys import ApiKey
from k2.api.parameters import knowledge
from k2.api.settings import ApiSettings
from k2.cli.main import app
from k2.client import K2Client
from k2.client.errors import RefusedQuestionError
from k2.common.clock import SystemClock
from k2.common.errors import K2Error, QueryError
from k2.query.certificate import AsOf
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.local_lake import LocalLake

TOKEN = AsOf("trades", None, 1, ((0, 0, 0, 1),)).to_token()
QUESTION: dict[str, Any] = {"start": "2026-01-01", "lake_only": True, "exchange": "sim"}


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    """The tables of a platform that is down: three trades, one of each symbol."""
    made = LocalLake(tmp_path)
    made.tables.close()
    made.settings = load_settings(tmp_path, environ={}).catalog
    made.tables = MarketTables(made.settings, SystemClock())
    made.create()
    made.commit("b0", 0, 3)
    yield made
    made.close()


@pytest.fixture
def k2(lake: LocalLake, tmp_path: Path) -> Iterator[K2Client]:
    with bootstrap.lake_engine(load_settings(tmp_path, environ={})) as engine:
        api = create_app(engine, key=ApiKey("key"), settings=ApiSettings(), clock=SystemClock(), unready=list)
        with (
            TestClient(api) as server,
            K2Client("http://k2", "key", transport=server._transport, page_rows=1) as client,
        ):
            yield client


def run(directory: Path, *words: str) -> str:
    result = CliRunner().invoke(app, [*words, "--data-dir", str(directory)])
    assert result.exception is None, result.exception
    return result.stdout


def test_a_tag_made_on_the_command_line_is_listed_and_answers_over_http(
    lake: LocalLake, k2: K2Client, tmp_path: Path
) -> None:
    said = run(tmp_path, "snapshot", "tag", "month-end", "--keep", "90d")
    lake.commit("b1", 3, 9)

    newest, tagged = [each for each in k2.snapshots(table="trades") if each["rows"]]

    assert "month-end is snapshot" in said
    assert "kept for 90d" in said
    assert "market.quotes: no snapshot yet" in said
    assert (newest["newest"], newest["rows"], newest["tags"], newest["kept_until"]) == (True, 9, [], None)
    assert (tagged["newest"], tagged["rows"], tagged["tags"]) == (False, 3, ["month-end"])
    assert tagged["kept_until"] is not None
    for as_of in ("month-end", tagged["as_of"]):
        assert k2.trades("AAA", as_of=as_of, **QUESTION).table.num_rows == 1
    assert k2.trades("AAA", as_of="now", **QUESTION).table.num_rows == 3
    assert k2.snapshots(table="quotes") == []


def test_pages_go_on_from_a_tag_while_rows_are_committed(lake: LocalLake, k2: K2Client, tmp_path: Path) -> None:
    lake.commit("b1", 3, 9)
    run(tmp_path, "snapshot", "tag", "before")
    lake.commit("b2", 9, 30)

    assert k2.trades("AAA", as_of="before", **QUESTION).table["log_offset"].to_pylist() == [0, 3, 6]


def test_what_has_expired_is_gone_by_its_status(k2: K2Client) -> None:
    with pytest.raises(RefusedQuestionError, match="it has expired") as refused:
        k2.trades("AAA", as_of="snapshot:5", **QUESTION)

    assert refused.value.status == 410


def test_the_command_line_asks_as_of_a_tag_lists_and_drops_it(lake: LocalLake, tmp_path: Path) -> None:
    run(tmp_path, "snapshot", "tag", "first", "--table", "trades")
    lake.commit("b1", 3, 9)
    words = ("trades", "AAA", "--lake-only", "--start", "2026-01-01", "--format", "json")

    then, now = (json.loads(run(tmp_path, *words, "--as-of", as_of)) for as_of in ("first", "now"))
    listed = json.loads(run(tmp_path, "snapshot", "list", "--format", "json"))
    dropped = run(tmp_path, "snapshot", "drop", "first")

    assert [len(body["data"]) for body in (then, now)] == [1, 3]
    assert [each["rows"] for each in listed["data"] if each["tags"] == ["first"]] == [3]
    assert "first is dropped" in dropped
    again = CliRunner().invoke(app, ["snapshot", "drop", "first", "--data-dir", str(tmp_path)])
    assert isinstance(again.exception, K2Error)
    alone = CliRunner().invoke(app, ["snapshot", "tag", "x", "--snapshot", "5", "--data-dir", str(tmp_path)])
    assert "expected --table" in str(alone.exception)


def test_as_of_may_be_a_time_or_now() -> None:
    at_ns = 1_767_225_600_000_000_000

    assert knowledge(None, "2026-01-01") == (at_ns, None)
    assert knowledge("2026-01-01", str(at_ns)) == (at_ns, None)
    assert knowledge(TOKEN, "2026-01-01") == (at_ns, TOKEN)
    assert knowledge(None, "now") == (None, None)
    assert knowledge("2026-01-01", "month-end") == (at_ns, "month-end")
    with pytest.raises(QueryError, match="expected one time"):
        knowledge("2026-01-02", "2026-01-01")
    with pytest.raises(QueryError, match="expected as_of as"):
        knowledge(None, "2026-13-01")
