"""SQL, the audit and who reads dead letters refuse a data file with a flipped bit, and name it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import CorruptionError
from k2.query.audit import Auditor
from k2.query.scan import Scanner
from k2.query.table_sql import TableSql
from k2.storage.dead_letter_offsets import DeadLetterOffsets
from k2.storage.file_checks import FileChecks
from k2.storage.planning import Planner
from k2.storage.side_tables import files_of_side_table
from k2.storage.tables import SIDE_TABLES
from k2.testing.damage import flip_in
from k2.testing.fake_gaps import FakeGaps
from k2.testing.manual_clock import ManualClock
from k2.testing.replay_world import ReplayWorld
from k2.testing.simulated_hybrid import SETTINGS, topic
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.testing.local_lake import LocalLake

WRITTEN_BY = b"parquet-cpp"
"""Stands in each file's footer; no reader minds what it says, so nothing but the file's checksum finds it changed."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReplayWorld]:
    """Ten offsets in `trades`, one of them a dead letter."""
    world = ReplayWorld(tmp_path).create()
    world.ingest(0, 10, bad=[3])
    yield world
    world.lake.close()


def scanner_of(directory: Path) -> Scanner:
    return Scanner([str(directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30)


def sql_of(lake: LocalLake, directory: Path) -> TableSql:
    planner = Planner(lake.tables, lake.settings)

    def files_of(name: str):
        if name in SIDE_TABLES:
            return files_of_side_table(lake.tables, name)
        return planner.plan(planner.pin(name))

    return TableSql(scanner_of(directory), files_of, FileChecks(check_contents=True, files_max=10))


def file_of(lake: LocalLake, table: str) -> Path:
    (task,) = lake.tables.load(table).scan().plan_files()
    return Path(task.file.file_path.removeprefix("file://"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT count(*) FROM trades",
        'SELECT 1 FROM market."TRADES"',
        "SUMMARIZE trades",
        "SELECT * FROM query('FROM tra' || 'des')",
    ],
)
def test_sql_refuses_a_damaged_file_of_a_table_that_it_reads(world: ReplayWorld, tmp_path: Path, query: str) -> None:
    damaged = file_of(world.lake, "trades")
    flip_in(damaged, WRITTEN_BY)
    sql = sql_of(world.lake, tmp_path)

    with pytest.raises(CorruptionError, match=damaged.name):
        sql(query)

    assert sql("SELECT count(*) AS n FROM dead_letters")["n"].to_pylist() == [1]
    sql.close()


def test_sql_refuses_a_damaged_file_of_dead_letters(world: ReplayWorld, tmp_path: Path) -> None:
    damaged = file_of(world.lake, "dead_letters")
    flip_in(damaged, WRITTEN_BY)
    sql = sql_of(world.lake, tmp_path)

    with pytest.raises(CorruptionError, match=damaged.name):
        sql("SELECT * FROM dead_letters")

    sql.close()


def test_dead_letters_are_not_read_from_a_damaged_file(world: ReplayWorld) -> None:
    damaged = file_of(world.lake, "dead_letters")
    flip_in(damaged, WRITTEN_BY)

    with pytest.raises(CorruptionError, match=damaged.name):
        world.outstanding()
    with pytest.raises(CorruptionError, match=damaged.name):
        DeadLetterOffsets(world.lake.tables).offsets("topic-1", 0)


def test_the_audit_refuses_a_damaged_file(tmp_path: Path) -> None:
    market = SimulatedMarket(tmp_path, [topic("asx", partitions=1)])
    market.register(market.topics[0].name)
    market.append(market.topics[0].name, "BHP", 1)
    market.commit(market.topics[0].name, 0)
    (file,) = market.plan(market.pin("trades"))
    flip_in(Path(file.path), WRITTEN_BY)
    auditor = Auditor(
        market.topics,
        planner=market,
        log_facts=market,
        open_reader=market.open_reader,
        dead_letters=market,
        gaps=FakeGaps(),
        scanner=scanner_of(tmp_path),
        settings=SETTINGS,
        clock=ManualClock(),
    )

    with pytest.raises(CorruptionError, match=f"{Path(file.path).name} is damaged"):
        auditor.verify()
