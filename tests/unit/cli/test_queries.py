"""`k2 trades`, `quotes`, `symbols` and `sql`: what is asked of the API, what is printed, what is refused."""

from __future__ import annotations

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from k2.cli import queries
from k2.cli.main import app
from k2.client import Result as Answered
from k2.common.clock import SystemClock
from k2.common.errors import K2Error, QueryError, UnavailableError
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows

CERTIFICATE = {
    "rows": 60,
    "rows_from_table": 50,
    "rows_from_log": 10,
    "complete": True,
    "truncated": False,
    "reasons": [],
    "newest_record_age_seconds": 1.25,
}


class FakeClient:
    """Answers 60 trades, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        prices = pl.Series("price", [Decimal("36.667")] * 60, dtype=pl.Decimal(28, 12))
        self.table = market_rows(range(60), symbols=("AAA",)).with_columns(prices).to_arrow()
        self.certificate = dict(CERTIFICATE)
        self.symbols_held = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def trades(self, symbol: str, **question: Any) -> Answered:
        self.asked.append(("trades", symbol, question))
        return Answered(self.table, self.certificate)

    def quotes(self, symbol: str, **question: Any) -> Answered:
        self.asked.append(("quotes", symbol, question))
        return Answered(self.table, self.certificate)

    def symbols(self, *, exchange: str | None) -> list[dict[str, Any]]:
        self.asked.append(("symbols", "", {"exchange": exchange}))
        names = ("data_type", "exchange", "symbol", "rows", "first_ts_event_ns", "last_ts_event_ns")
        times = (1_394_409_600_000_001_999, 1_394_409_601_000_000_000)
        found = [("trades", "asx", f"[S{number}]", 3, *times) for number in range(self.symbols_held)]
        return [dict(zip(names, values, strict=True)) for values in found]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeClient:
    made = FakeClient()
    monkeypatch.setattr(queries, "client_of", lambda _: made)
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path))
    return made


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def refused(*words: str) -> str:
    result = run(*words)
    assert isinstance(result.exception, K2Error), result.output
    return str(result.exception)


@pytest.mark.parametrize("command", ["trades", "quotes"])
def test_the_options_are_the_question(client: FakeClient, command: str) -> None:
    asked = ("--window", "2h", "--anchor", "latest", "--limit", "7", "--gaps", "fail", "--deferred", "read")
    run(command, "AAA", "--exchange", "asx", *asked, "--on-degrade", "stale", "--max-staleness", "2.5")

    question = {"exchange": "asx", "window_minutes": 120, "start": None, "end": None, "anchor": "latest", "limit": 7}
    choices = {"known_at": None, "amendments": "applied", "gaps": "fail", "deferred": "read"}
    choices |= {"on_degrade": "stale", "max_staleness": 2.5, "as_of": None}
    assert client.asked == [(command, "AAA", {**question, **choices})]


@pytest.mark.parametrize(
    ("window", "minutes"), [("90s", 1.5), ("15m", 15), ("2h", 120), ("1d", 1440), ("0.5h", 30), (None, 15)]
)
def test_a_window_has_a_unit(client: FakeClient, window: str | None, minutes: float) -> None:
    run("trades", "AAA", *([] if window is None else ["--window", window]))

    assert client.asked[0][2]["window_minutes"] == minutes


@pytest.mark.parametrize("window", ["15", "m", "-5m", "0s", "1w", "1e3m", ""])
def test_a_window_that_is_none_is_refused(client: FakeClient, window: str) -> None:
    assert "15m" in refused("trades", "AAA", "--window", window)


def test_a_window_and_a_range_at_once_are_refused(client: FakeClient) -> None:
    assert "found both" in refused("trades", "AAA", "--window", "5m", "--start", "2026-01-01")


def test_the_table_shows_the_newest_rows_whole_and_what_the_answer_is(client: FakeClient) -> None:
    lines = run("trades", "AAA").stdout.splitlines()

    assert lines[0].split()[:4] == ["ts_event", "exchange", "symbol", "action"]
    assert "36.667" in lines[40]
    assert "trade_id" not in lines[0]
    assert lines[-2] == "the last 40 of 60 rows; --format csv, json, parquet or arrow gives all"
    assert lines[-1] == ("60 rows (50 from the table, 10 from the log), complete, newest record 1.2 s old")


def test_an_empty_answer_says_where_to_look(client: FakeClient) -> None:
    full = run("trades", "AAA")
    client.table = client.table.slice(0, 0)

    recent = run("trades", "aaa", "--format", "csv")
    ranged = run("trades", "aaa", "--start", "2026-01-01")

    assert "'aaa'" in recent.stderr
    assert "k2 symbols" in recent.stderr
    assert "--anchor latest" in recent.stderr
    assert "k2 symbols" in ranged.stderr
    assert "--anchor latest" not in ranged.stderr
    assert "k2 symbols" not in recent.stdout + full.stderr


def test_symbols_are_all_shown_with_their_times(client: FakeClient) -> None:
    client.symbols_held = 900

    lines = run("symbols").stdout.splitlines()

    assert len(lines) == 901
    assert lines[1].split() == [
        "trades",
        "asx",
        "[S0]",
        "3",
        "2014-03-10T00:00:00.000001Z",
        "2014-03-10T00:00:01.000000Z",
    ]


def test_very_many_symbols_are_cut_with_a_word_on_how_to_get_all(client: FakeClient) -> None:
    client.symbols_held = 1001

    lines = run("symbols").stdout.splitlines()

    assert "[S0]" in lines[1]
    assert lines[-1] == "the first 1,000 of 1,001 rows; --format csv, json, parquet or arrow gives all"


def test_symbols_keep_their_nanoseconds_in_every_other_form(client: FakeClient) -> None:
    assert run("symbols", "--format", "csv").stdout.splitlines()[1].endswith(",1394409600000001999,1394409601000000000")


@pytest.mark.parametrize("name", ["csv", "json", "parquet", "arrow"])
def test_a_written_file_is_told_in_one_line(client: FakeClient, tmp_path: Path, name: str) -> None:
    file = tmp_path / "answer"

    result = run("trades", "AAA", "--format", name, "--output", str(file))

    assert result.stderr == f"60 rows written to {file}, complete, newest record 1.2 s old\n"
    assert result.stdout == ""


def test_the_table_says_why_an_answer_is_not_complete(client: FakeClient) -> None:
    client.certificate |= {"complete": False, "reasons": ["the log is down"], "truncated": True}

    assert "cut by --limit, NOT complete: the log is down" in run("trades", "AAA").stdout


def test_names_with_brackets_are_shown_as_they_are(client: FakeClient) -> None:
    assert "[S0]" in run("symbols").stdout


def test_csv_is_data_alone_and_the_certificate_goes_to_standard_error(client: FakeClient) -> None:
    result = run("trades", "AAA", "--format", "csv")

    frame = pl.read_csv(io.StringIO(result.stdout), infer_schema=False)
    assert frame["price"].unique().to_list() == ["36.667"]
    assert json.loads(result.stderr) == CERTIFICATE


def test_json_is_the_envelope_of_the_api(client: FakeClient) -> None:
    body = json.loads(run("trades", "AAA", "--format", "json").stdout)

    assert len(body["data"]) == 60
    assert body["certificate"] == CERTIFICATE


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_binary_forms_go_through_a_pipe_or_into_a_file(client: FakeClient, tmp_path: Path, name: str) -> None:
    piped = run("trades", "AAA", "--format", name).stdout_bytes
    run("trades", "AAA", "--format", name, "--output", str(tmp_path / "answer"))

    for body in (piped, (tmp_path / "answer").read_bytes()):
        table = pq.read_table(io.BytesIO(body)) if name == "parquet" else pa.ipc.open_stream(body).read_all()
        assert table.num_rows == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answer"]


@pytest.mark.parametrize("name", ["parquet", "arrow"])
def test_bytes_are_not_written_to_a_terminal(client: FakeClient, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("k2.cli.output.is_terminal", lambda: True)

    assert "found a terminal" in refused("trades", "AAA", "--format", name)
    assert client.asked == []


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--output", "x"], "--format"),
        (["--format", "csv", "--output", "no/such/x"], "directory of --output"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_question(
    client: FakeClient, words: list[str], named: str
) -> None:
    assert named in refused("trades", "AAA", *words)
    assert client.asked == []


def test_a_file_that_cannot_be_made_leaves_nothing_behind(client: FakeClient, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()

    assert "cannot write" in refused("trades", "AAA", "--format", "csv", "--output", str(tmp_path / "taken"))
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_without_a_platform_the_missing_key_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path / "none"))

    assert "k2 up" in refused("trades", "AAA")
    assert not (tmp_path / "none").exists()


def test_a_platform_that_is_down_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "api-key").write_text("key\n")
    monkeypatch.setenv("K2_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("K2_API__PORT", "9")
    monkeypatch.setenv("K2_API__KEY_FILE", str(tmp_path / "api-key"))

    result = run("trades", "AAA")

    assert isinstance(result.exception, UnavailableError)
    assert "127.0.0.1:9" in str(result.exception)
    assert "k2 status" in str(result.exception)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data directory of a platform that is down: 600 trades in two commits."""
    directory = tmp_path_factory.mktemp("platform")
    made = LocalLake(directory)
    made.tables.close()
    made.settings = load_settings(directory, environ={}).catalog
    made.tables = MarketTables(made.settings, SystemClock())
    made.create()
    made.commit("first", 0, 300)
    made.commit("second", 300, 600)
    made.close()
    return directory


def on_lake(lake: Path, *words: str) -> Result:
    result = run(*words, "--data-dir", str(lake))
    assert result.exception is None, result.exception
    return result


def test_lake_only_answers_without_broker_registry_and_api(lake: Path) -> None:
    result = on_lake(lake, "trades", "AAA", "--lake-only", "--start", "2026-01-01", "--format", "json")

    body = json.loads(result.stdout)
    assert [row["log_offset"] for row in body["data"]] == list(range(0, 600, 3))
    assert (body["certificate"]["lake_only"], body["certificate"]["rows_from_log"]) == (True, 0)


def test_lake_only_counts_symbols(lake: Path) -> None:
    result = on_lake(lake, "symbols", "--lake-only", "--format", "csv")

    assert [line.split(",")[2:4] for line in result.stdout.splitlines()[1:]] == [
        ["AAA", "200"],
        ["BBB", "200"],
        ["CCC", "200"],
    ]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["NOPE", "--exchange", "nowhere"], "exchange"),
        (["AAA", "--start", "yesterday"], "--start"),
        (["AAA", "--start", "2099-01-01"], "future"),
        (["AAA", "--start", "2026-01-02", "--end", "2026-01-01"], "before the end"),
        ([""], "symbol"),
    ],
)
def test_a_wrong_question_of_the_lake_is_one_clear_error(lake: Path, words: list[str], named: str) -> None:
    assert named in refused("trades", *words, "--lake-only", "--data-dir", str(lake))


def test_lake_only_makes_no_platform_where_there_is_none(tmp_path: Path) -> None:
    assert "no such file" in refused("trades", "AAA", "--lake-only", "--data-dir", str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT symbol, count(*) AS n FROM trades GROUP BY ALL ORDER BY 1 LIMIT 1", [{"symbol": "AAA", "n": 200}]),
        ("WITH t AS (SELECT price FROM market.trades) SELECT sum(price) AS total FROM t", [{"total": "30300"}]),
        ("SELECT count(*) AS n FROM quotes", [{"n": 0}]),
        ("SELECT count(*) AS n FROM market.dead_letters", [{"n": 0}]),
        ("SELECT count(*) AS n FROM gaps", [{"n": 0}]),
        ("SELECT 1 AS a, 2 AS a", [{"a": 1, "a_1": 2}]),
    ],
)
def test_sql_reads_the_committed_tables(lake: Path, query: str, rows: list[dict[str, Any]]) -> None:
    assert json.loads(on_lake(lake, "sql", query, "--format", "json").stdout)["data"] == rows


@pytest.mark.parametrize("query", ["DESCRIBE trades", "SUMMARIZE trades", "EXPLAIN SELECT 1", "SHOW TABLES"])
def test_sql_explains_itself(lake: Path, query: str) -> None:
    assert on_lake(lake, "sql", query).stdout != ""


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "explain  analyze\nCOPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPLAIN /* */ ANALYZE COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPLAIN/**/ANALYZE COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPLAIN (ANALYZE) COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "-- x\nEXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPLAIN ANALYZE EXPLAIN ANALYZE COPY (SELECT 1) TO '{lake}/warehouse/x.csv'",
        "EXPORT DATABASE '{lake}/warehouse/x'",
        "DROP VIEW trades",
        "CREATE TABLE t AS SELECT 1",
        "INSERT INTO market.quotes SELECT * FROM quotes",
        "ATTACH '{lake}/catalog.db' AS c",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "PREPARE p AS SELECT 1",
        "SELECT 1; SELECT 2",
        "SELECT $1",
        "SELECT ?",
        "SELEC 1",
        "",
        ";",
        "-- nothing",
        "SELECT * FROM read_text('/etc/passwd')",
        "SELECT * FROM '{lake}/catalog.db'",
        "SELECT * FROM read_text('{lake}/warehouse/../catalog.db')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('COPY (SELECT 1) TO ''{lake}/warehouse/x.csv''')",
        "SELECT * FROM settings",
        "SELECT * FROM 'http://127.0.0.1/x.parquet'",
        "SELECT count(*) FROM nowhere",
    ],
)
def test_sql_that_is_no_read_of_the_tables_is_refused(lake: Path, query: str) -> None:
    before = sorted(path for path in lake.rglob("*"))

    result = run("sql", "--data-dir", str(lake), "--", query.format(lake=lake))

    assert isinstance(result.exception, QueryError), result.output
    assert sorted(path for path in lake.rglob("*")) == before


def test_a_column_without_a_form_in_parquet_is_named(lake: Path, tmp_path: Path) -> None:
    words = ["--format", "parquet", "--output", str(tmp_path / "x"), "--data-dir", str(lake)]

    assert "cast it to text" in refused("sql", "SELECT INTERVAL 1 DAY AS i", *words)
    assert list(tmp_path.iterdir()) == []
