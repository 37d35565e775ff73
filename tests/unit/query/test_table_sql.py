"""SQL over the tables: times are UTC wherever it runs, and a mistake is answered with DuckDB's proposals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from k2.common.errors import QueryError
from k2.query.scan import Scanner
from k2.query.table_sql import TableSql
from k2.storage.file_checks import FileChecks


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TableSql]:
    """Empty tables, on a machine whose own time is not UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Australia/Sydney")
        time.tzset()
        scanner = Scanner([str(tmp_path)], memory_limit_bytes=2**28, threads=1, seconds_max=30)
        made = TableSql(scanner, lambda _: [], FileChecks(check_contents=True, files_max=10))
        yield made
        made.close()
    time.tzset()


def test_times_are_in_utc_wherever_it_runs(sql: TableSql) -> None:
    found = sql("SELECT '2026-01-01'::TIMESTAMPTZ AS day, ts_event FROM (SELECT 1) LEFT JOIN trades ON true")

    assert [field.type for field in found.schema] == [pa.timestamp("us", "UTC")] * 2
    assert found["day"][0].as_py() == datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "proposed"),
    [
        ("SELECT prices FROM trades", '"price"'),
        ("SELECT * FROM trade", 'Did you mean "trades"?'),
    ],
)
def test_a_wrong_name_is_answered_with_the_names_there_are(sql: TableSql, query: str, proposed: str) -> None:
    with pytest.raises(QueryError) as refused:
        sql(query)

    assert proposed in str(refused.value)
    assert "SHOW TABLES" in str(refused.value)
    assert "DESCRIBE trades" in str(refused.value)


def test_a_slip_in_the_text_is_pointed_at(sql: TableSql) -> None:
    with pytest.raises(QueryError, match=r"LINE 1: SELECT \* FORM trades\n +\^"):
        sql("SELECT * FORM trades")


def test_what_is_told_of_a_mistake_has_a_limit(sql: TableSql) -> None:
    with pytest.raises(QueryError) as refused:
        sql("SELECT " + "x" * 100_000)

    assert len(str(refused.value)) < 5_000


@pytest.mark.parametrize("value", ["DATE 'infinity'", "TIMESTAMP '-infinity'", "TIMESTAMPTZ 'infinity'"])
def test_an_infinite_time_is_refused_with_what_to_write_instead(sql: TableSql, value: str) -> None:
    with pytest.raises(QueryError, match="x::VARCHAR"):
        sql(f"SELECT {value} AS x")

    assert sql(f"SELECT ({value})::VARCHAR AS x")["x"].to_pylist()[0].endswith("infinity")
