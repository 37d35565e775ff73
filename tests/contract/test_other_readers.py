"""The tables are plain Iceberg: PyIceberg by itself and DuckDB's extension read what K2's writer wrote, exactly."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from importlib.resources import files

import duckdb
import polars as pl
import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows

LARGEST = Decimal("9999999999999999.999999999999")
CHANGES = {
    "price": [LARGEST, -LARGEST, Decimal("0.000000000001"), Decimal("1.10"), Decimal(0), Decimal(-3)],
    "quantity": [Decimal("999999999999999999.9999999999"), Decimal(-1), Decimal("0.5"), Decimal(7), Decimal(0), None],
    "conditions": [[], ["XT"], ["XT", "é"], [""], ["a", "b", "c"], []],
    "ts_event_ns": [START_NS + ns for ns in (0, 1, 999, 1_000, 86_400_000_000_000, 86_400_000_000_999)],
    "side": ["BUY", "SELL", None, "BUY", None, "SELL"],
    "extra": ['{"a": 1}', None, "", "日経", None, None],
}
KEY = "log_offset"


def rows_to_write() -> pl.DataFrame:
    rows = market_rows(range(6))
    changed = [pl.Series(name, values, dtype=rows.schema[name]) for name, values in CHANGES.items()]
    of_time = pl.from_epoch(pl.col("ts_event_ns") // 1_000, time_unit="us").dt.replace_time_zone("UTC")
    return rows.with_columns(changed).with_columns(quantity=pl.col("quantity").fill_null(Decimal(2)), ts_event=of_time)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalLake]:
    """A lake of two commits; the rows of the first one are those that hold what is hard to keep."""
    lake = LocalLake(tmp_path_factory.mktemp("lake")).create()
    written = lake.writer().write_files(rows_to_write())
    counts = Counts(consumed=6, rows=6)
    lake.writer().commit(Batch("first", {LogPartition(0, 0): PartitionDelta(0, 6, counts)}, written))
    lake.commit("second", 0, 4, partition=1)
    yield lake
    lake.close()


def assert_as_written(found: pa.Table) -> None:
    expected = pl.concat([rows_to_write(), market_rows(range(4), partition=1)]).sort("log_partition", KEY)
    ordered = found.sort_by([("log_partition", "ascending"), (KEY, "ascending")])
    assert set(ordered.column_names) == set(expected.columns)
    for name in expected.columns:
        assert ordered[name].to_pylist() == expected[name].to_list(), name


def test_plain_pyiceberg_reads_every_value_as_it_was_written(lake: LocalLake) -> None:
    catalog = SqlCatalog(lake.settings.name, uri=lake.settings.uri, warehouse=lake.settings.warehouse)

    found = catalog.load_table("market.trades").scan().to_arrow()

    assert_as_written(found)
    assert found.schema.field("price").type == pa.decimal128(28, 12)
    catalog.close()


def test_plain_pyiceberg_finds_rows_by_symbol_and_time(lake: LocalLake) -> None:
    catalog = SqlCatalog(lake.settings.name, uri=lake.settings.uri, warehouse=lake.settings.warehouse)
    table = catalog.load_table("market.trades")

    found = table.scan("symbol = 'AAA' and ts_event >= '2026-01-02T00:00:00+00:00'").to_arrow()
    day_before = table.scan("exchange = 'sim' and ts_event < '2026-01-02T00:00:00+00:00'").count()

    assert (found.num_rows, day_before) == (0, 8)
    catalog.close()


@pytest.fixture
def database() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB with the extensions that came as wheels, loaded by path."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name in ("avro", "iceberg"):
        [path] = files(f"duckdb_extension_{name}").joinpath("extensions").glob(f"*/{name}.duckdb_extension")  # type: ignore[attr-defined]  # a real directory
        connection.execute(f"LOAD '{path}'")
    yield connection
    connection.close()


def test_duckdb_reads_every_value_as_it_was_written(lake: LocalLake, database: duckdb.DuckDBPyConnection) -> None:
    location = lake.tables.head("trades").metadata_location

    found = database.execute("SELECT * FROM iceberg_scan($1)", [location]).to_arrow_table()

    assert_as_written(found)
    assert found.schema.field("price").type == pa.decimal128(28, 12)


def test_duckdb_sums_price_times_quantity_exactly(lake: LocalLake, database: duckdb.DuckDBPyConnection) -> None:
    location = lake.tables.head("trades").metadata_location
    rows = rows_to_write().filter(pl.col("price").abs() < 10)
    expected = sum(price * quantity for price, quantity in rows.select("price", "quantity").iter_rows())

    statement = "SELECT sum(price * quantity) FROM iceberg_scan($1) WHERE abs(price) < 10 AND log_partition = 0"

    assert database.execute(statement, [location]).fetchone() == (expected,)
