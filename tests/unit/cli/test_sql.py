"""`k2 sql` ends at its limits, whatever DuckDB is busy with, and says what became of NaN."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from k2.cli.sql_limits import SqlLimits
from k2.common.clock import SystemClock
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 2**20


def watched(*, seconds: float = 0.0, held: int = 0) -> list[str]:
    """Return what ends a statement that has run so long and holds so much; nothing where it is left alone."""
    ended: list[str] = []
    looked, clock = threading.Event(), ManualClock()

    def resident_bytes() -> int:
        looked.set()
        return held

    def end(reason: str) -> None:
        ended.append(reason)
        looked.set()

    with SqlLimits(seconds_max=10, resident_bytes_max=1_000, clock=clock, resident_bytes=resident_bytes, end=end):
        looked.wait(10)
        clock.advance(seconds)
        if not ended:
            looked.clear()
            looked.wait(10)
    return ended


def test_a_statement_within_its_limits_is_left_alone() -> None:
    assert watched(seconds=10.5, held=1_000) == []


def test_one_that_the_interrupt_did_not_reach_is_ended_a_second_later() -> None:
    (reason,) = watched(seconds=11.5)

    assert "longer than 10 s (K2_QUERY__QUERY_SECONDS_MAX)" in reason


def test_one_that_holds_too_much_is_ended() -> None:
    (reason,) = watched(held=1_001)

    assert "1001 bytes of memory, more than 1000 (K2_QUERY__SQL_RESIDENT_BYTES_MAX)" in reason


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    lake = LocalLake(tmp_path).create()
    lake.close()
    monkeypatch.setenv("K2_CATALOG__URI", lake.settings.uri)
    monkeypatch.setenv("K2_CATALOG__WAREHOUSE", lake.settings.warehouse)
    return tmp_path


def sql(data_dir: Path, query: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "k2.cli.main", "sql", query, "--data-dir", str(data_dir), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("query", "limit", "named"),
    [
        ("SELECT range(1000000000) AS x", ("K2_QUERY__SQL_RESIDENT_BYTES_MAX", 400 * MEBIBYTE), "bytes of memory"),
        (
            "SELECT sum(length(repeat('x', 30000000 + i::INT))) FROM range(100000) t(i)",
            ("K2_QUERY__QUERY_SECONDS_MAX", 1),
            "longer than 1 s",
        ),
    ],
)
def test_a_function_that_cannot_be_interrupted_ends_with_its_process(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, query: str, limit: tuple[str, int], named: str
) -> None:
    monkeypatch.setenv(limit[0], str(limit[1]))
    clock = SystemClock()
    began = clock.monotonic()

    ended = sql(data_dir, query)

    assert (ended.returncode, ended.stdout) == (2, "")
    assert named in ended.stderr
    assert clock.monotonic() - began < 30


def test_json_has_null_where_a_number_is_none_and_csv_says_which(data_dir: Path) -> None:
    query = "SELECT 'NaN'::DOUBLE AS a, 'inf'::DOUBLE AS b, '-inf'::DOUBLE AS c, 1.5::DOUBLE AS d"

    rows = json.loads(sql(data_dir, query, "--format", "json").stdout)["data"]
    csv = sql(data_dir, query, "--format", "csv").stdout.splitlines()

    assert rows == [{"a": None, "b": None, "c": None, "d": 1.5}]
    assert csv == ["a,b,c,d", "NaN,inf,-inf,1.5"]
