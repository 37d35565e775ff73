"""Reading a table in the order of answers: all of it, in stretches, and never around a damaged file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from k2.common.errors import CorruptionError
from k2.query.intact_files import IntactFiles
from k2.query.scan import Scanner
from k2.query.table_reading import RowsWanted, rows_in_order
from k2.schemas.records import ORDER
from k2.storage.file_checks import FileChecks
from k2.storage.planning import Planner
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS

MINUTE_NS = 60_000_000_000
ROWS = 150_000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLake]:
    """Rows a millisecond apart, so 60,000 a minute, in both partitions, over three commits."""
    lake = LocalLake(tmp_path_factory.mktemp("lake")).create()
    lake.commit("a", 0, ROWS // 2)
    lake.commit("b", 0, 100, partition=1)
    lake.commit("c", ROWS // 2, ROWS)
    yield lake
    lake.close()


def read(lake: LocalLake, rows_max: int = 10**6, **wanted: str | int) -> list[pl.DataFrame]:
    place = lake.settings.warehouse.removeprefix("file://")
    with Scanner([place], memory_limit_bytes=2**29, threads=1, seconds_max=30) as scanner:
        files = IntactFiles(scanner, FileChecks(check_contents=True, files_max=100))
        planner = Planner(lake.tables, lake.settings)
        return list(rows_in_order(planner, files, RowsWanted(table="trades", **wanted), rows_max=rows_max))


def test_every_row_comes_once_and_in_order_in_stretches(lake: LocalLake) -> None:
    frames = read(lake, rows_max=70_000)

    rows = pl.concat(frames)
    assert rows.select(ORDER).equals(rows.select(ORDER).unique().sort(ORDER))
    assert [len(frame) for frame in frames] == [60_100, 60_000, 30_000]


def test_only_what_is_wanted_comes(lake: LocalLake) -> None:
    start_ns, end_ns = START_NS + MINUTE_NS - 5_000_000, START_NS + MINUTE_NS + 7_000_000

    rows = pl.concat(read(lake, rows_max=1, exchange="sim", symbol="BBB", start_ns=start_ns, end_ns=end_ns))

    assert rows["symbol"].unique().to_list() == ["BBB"]
    assert rows["log_offset"].to_list() == [number for number in range(59_995, 60_007) if number % 3 == 1]


@pytest.mark.parametrize("wanted", [{"exchange": "asx"}, {"start_ns": START_NS + 10 * MINUTE_NS}, {"symbol": "CC"}])
def test_nothing_comes_where_nothing_is(lake: LocalLake, wanted: dict[str, str | int]) -> None:
    assert read(lake, **wanted) == []


def test_a_damaged_file_ends_the_reading(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    lake.commit("a", 0, 1_000)
    (path,) = tmp_path.rglob("*.parquet")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)

    with pytest.raises(CorruptionError, match=path.name):
        read(lake)

    lake.close()
