"""What Polars reads is what DuckDB reads; what it declines, DuckDB reads."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import polars as pl
import pyarrow.parquet as pq
import pytest

from k2.query.merging import answer_columns, answer_schema, matching, merged, rows_statement
from k2.query.narrow_reader import NarrowReader
from k2.query.request import QueryRequest, RowKey
from k2.query.scan import Scanner
from k2.query.settings import QuerySettings
from k2.schemas.records import ORDER, RECORD_TYPES, TRADES
from k2.storage.planning import PlannedFile
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import START_NS, market_rows
from k2.testing.simulated_hybrid import simulated_hybrid, topic
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from k2.schemas.records import RecordType

QUESTIONS = 60
ROWS = 400


def written(directory: Path, data_type: str) -> list[str]:
    """Write three files of rows that overlap in time, with nulls, lists and the largest decimals in some."""
    lake = LocalLake(directory)
    lake.tables.ensure()
    record_type, paths = RECORD_TYPES[data_type], []
    for partition in range(3):
        rows = market_rows(range(ROWS), record_type=record_type, partition=partition, step_ns=1_000 + partition)
        paths += [file.path for file in lake.writer(data_type).write_files(_varied(rows))]
    lake.close()
    return [path.removeprefix("file://") for path in paths]


def _varied(rows: pl.DataFrame) -> pl.DataFrame:
    odd = pl.col("log_offset") % 2 == 1
    changes = [pl.when(odd).then(pl.lit("A")).alias("channel"), pl.when(odd).then(7).cast(pl.Int32).alias("sub_index")]
    if "price" in rows.columns:
        huge = pl.lit("-9999999999999999.999999999999").cast(rows.schema["price"])
        changes += [
            pl.when(odd).then(huge).otherwise("price").alias("price"),
            pl.when(odd).then(pl.lit(["x", "", "ß"])).otherwise("conditions").alias("conditions"),
        ]
    return rows.with_columns(changes)


def a_question(data_type: str, seed: int) -> QueryRequest:
    chance = random.Random(seed)
    span = ROWS * 1_000
    start = None if chance.random() < 0.3 else START_NS + chance.randrange(-10, span)
    end = None if chance.random() < 0.3 else (start or START_NS) + chance.randrange(1, span)
    known = RECORD_TYPES[data_type].fields
    names = tuple(field.name for field in chance.sample(known, chance.randrange(1, len(known))))
    after = RowKey(START_NS + chance.randrange(span), 0, chance.randrange(3), chance.randrange(ROWS))
    return QueryRequest(
        data_type=data_type,  # type: ignore[arg-type]
        symbol=chance.choice(["AAA", "BBB", "it's", "ZZZ"]),
        exchange=chance.choice([None, "sim", "asx"]),
        start_ns=start,
        end_ns=end,
        columns=chance.choice([None, names]),
        after=chance.choice([None, after]),
    )


def by_duckdb(request: QueryRequest, record_type: RecordType, paths: list[str], names: list[str]) -> pa.Table:
    directories = sorted({path.rpartition("/")[0] for path in paths})
    condition = matching(request, request.start_ns, request.end_ns)
    statement, values = rows_statement(record_type, names, condition, limit=1_000_000, ordered=True)
    with Scanner(directories, memory_limit_bytes=2**28, threads=1, seconds_max=30) as scanner:
        return scanner.fetch(statement, values, files=paths)


@pytest.mark.parametrize("data_type", sorted(RECORD_TYPES))
def test_polars_reads_what_duckdb_reads(tmp_path: Path, data_type: str) -> None:
    paths, record_type, found = written(tmp_path, data_type), RECORD_TYPES[data_type], 0
    reader = NarrowReader(QuerySettings())
    for seed in range(QUESTIONS):
        request = a_question(data_type, seed)
        columns = answer_columns(record_type, request.columns)
        names = list(dict.fromkeys([*columns, *ORDER]))

        rows = reader.read(
            request, record_type, paths, names, start_ns=request.start_ns, end_ns=request.end_ns, ordered=True
        )

        schema = answer_schema(record_type, names)
        expected = merged(by_duckdb(request, record_type, paths, names), None, schema)
        assert merged(rows, None, schema).equals(expected), f"seed {seed}"
        found += expected.num_rows
    assert found > QUESTIONS


def test_a_column_that_a_file_is_too_old_for_is_null(tmp_path: Path) -> None:
    old = str(tmp_path / "old.parquet")
    pq.write_table(market_rows(range(9)).drop("sub_index").to_arrow(), old)
    request = QueryRequest(data_type="trades", symbol="AAA")

    rows = NarrowReader(QuerySettings()).read(
        request, TRADES, [old], ["sub_index", *ORDER], start_ns=None, end_ns=None, ordered=True
    )

    assert rows is not None
    assert rows["sub_index"].to_pylist() == [None, None, None]


def test_more_rows_than_the_limit_are_left_to_duckdb(tmp_path: Path) -> None:
    paths = written(tmp_path, "trades")
    request = QueryRequest(data_type="trades", symbol="AAA")

    rows = NarrowReader(QuerySettings(narrow_rows_max=100)).read(
        request, TRADES, paths, list(ORDER), start_ns=None, end_ns=None, ordered=True
    )

    assert rows is None


def test_a_file_that_polars_cannot_read_is_left_to_duckdb(tmp_path: Path) -> None:
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1" + bytes(range(200)) + b"PAR1")
    request = QueryRequest(data_type="trades", symbol="AAA")

    rows = NarrowReader(QuerySettings()).read(
        request, TRADES, [str(bad)], list(ORDER), start_ns=None, end_ns=None, ordered=True
    )

    assert rows is None


@pytest.mark.parametrize(
    ("request_", "path", "size_bytes", "accepted"),
    [
        (QueryRequest(data_type="trades", symbol="A"), "/lake/a.parquet", 1_000, True),
        (QueryRequest(data_type="trades", symbol="A"), "/lake/a.parquet", 1_001, False),
        (QueryRequest(data_type="trades", symbol="A"), "s3://lake/a.parquet", 10, False),
        (QueryRequest(data_type="trades", symbol="A", limit=5), "/lake/a.parquet", 10, False),
        (QueryRequest(data_type="trades", symbol="A", as_of="token"), "/lake/a.parquet", 10, False),
    ],
)
def test_only_small_local_questions_that_are_no_pages_are_accepted(
    request_: QueryRequest, path: str, size_bytes: int, accepted: bool
) -> None:
    reader = NarrowReader(QuerySettings(narrow_bytes_max=1_000))
    file = PlannedFile(path=path, size_bytes=size_bytes, rows=1, partition="", checksum=None)

    assert reader.accepts(request_, [file]) is accepted


def test_an_answer_is_the_same_whoever_reads_it(tmp_path: Path) -> None:
    sim = topic("sim", partitions=1)
    market = SimulatedMarket(tmp_path, [sim])
    market.register(sim.name)
    for number in range(30):
        market.append(sim.name, "BHP", number)
    market.commit(sim.name, 0, 10)
    market.commit(sim.name, 0, 10)
    request = QueryRequest(data_type="trades", symbol="BHP", start_ns=3)
    tables = []
    for settings in (QuerySettings(), QuerySettings(narrow_bytes_max=0), QuerySettings(narrow_rows_max=5)):
        hybrid = simulated_hybrid(market, tmp_path, settings=settings)
        hybrid.tail.step()

        tables.append(hybrid.engine.query(request).table)

        hybrid.close()

    assert tables[0].num_rows == 27
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
