"""The commit of a backfill on real tables: fenced by the list, numbered by its own commit, kept by compaction."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl
import pytest

from k2.common.errors import AccountingError, FencedError
from k2.schemas.records import WrittenBy
from k2.schemas.tier_maps import TierMap
from k2.storage.backfills import BackfilledRange, BackfillWriter
from k2.storage.deferral import Backfill, Deferral, Predicate
from k2.storage.planning import Planner
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.testing.local_lake import LocalLake
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from pathlib import Path

FIRST = LogPartition(0, 0)
TIERS = TierMap.of({"AAA"}, set())
LOW = Predicate(TIERS.map_id, 3)


def defer(lake: LocalLake, kept: int = 6, end: int = 10) -> None:
    """Commit the records [0, kept), with those of [kept, end) deferred."""
    batch = lake.batch("deferring", 0, kept)
    counts = Counts(consumed=end, rows=kept, deferred=end - kept)
    deferral = Deferral({FIRST: LOW}, tier_maps={TIERS.map_id: TIERS.to_json()})
    deltas = {FIRST: PartitionDelta(0, end, counts)}
    lake.writer().commit(dataclasses.replace(batch, deltas=deltas, deferral=deferral))


def found(start: int, end: int, rows: range) -> BackfilledRange:
    """Return a range of which these offsets are rows."""
    frame = market_rows(list(rows)).drop("commit_sequence", "written_by")
    return BackfilledRange(FIRST, Backfill(start, end, LOW, Counts(rows=frame.height)), frame)


def writer_of(lake: LocalLake) -> BackfillWriter:
    return BackfillWriter(lake.tables, "trades", lake.settings, lake.clock)


def stored(lake: LocalLake) -> pl.DataFrame:
    names = ("log_offset", "commit_sequence", "written_by")
    rows = pl.DataFrame(pl.from_arrow(lake.tables.load("trades").scan(selected_fields=names).to_arrow()))
    return rows.select(names).sort("log_offset")


def test_a_backfill_stores_its_rows_with_its_own_number_and_empties_the_list(lake: LocalLake) -> None:
    defer(lake)

    commit = writer_of(lake).commit(found(0, 10, range(6, 10)))

    late = stored(lake).filter(pl.col("log_offset") >= 6)
    assert late["commit_sequence"].to_list() == [commit.seam.commit_sequence] * 4
    assert late["written_by"].to_list() == [WrittenBy.BACKFILL] * 4
    assert commit.seam.deferred == ()
    assert commit.seam.next_offset(FIRST) == 10
    assert lake.tables.head("trades").seam == commit.seam


def test_a_commit_in_between_gives_the_rows_a_higher_number(tmp_path: Path) -> None:
    other = LocalLake(tmp_path).create()
    defer(other)
    moved: list[int] = []

    def interfere() -> None:
        if not moved:
            moved.append(1)
            other.commit("between", 0, 3, partition=1)

    lake = LocalLake(tmp_path, before_commit=interfere)
    commit = writer_of(lake).commit(found(0, 10, range(6, 10)))

    late = stored(lake).filter(pl.col("written_by") == WrittenBy.BACKFILL)
    between = other.tables.head("trades").seam
    assert commit.attempts == 2
    assert late["commit_sequence"].unique().to_list() == [between.commit_sequence]
    assert sorted(stored(lake)["log_offset"]) == sorted([*range(10), *range(3)])


def test_a_range_that_somebody_else_wrote_is_fenced(lake: LocalLake) -> None:
    defer(lake)
    writer_of(lake).commit(found(0, 10, range(6, 10)))

    with pytest.raises(FencedError, match="somebody else"):
        writer_of(lake).commit(found(0, 10, range(6, 10)))

    assert stored(lake).height == 10


def test_a_part_leaves_the_rest_of_the_list(lake: LocalLake) -> None:
    defer(lake)

    writer_of(lake).commit(found(0, 8, range(6, 8)))
    commit = writer_of(lake).commit(found(8, 10, range(8, 10)))

    assert commit.seam.deferred == ()
    assert stored(lake)["log_offset"].to_list() == list(range(10))


def test_rows_that_are_not_those_counted_are_refused(lake: LocalLake) -> None:
    defer(lake)
    wrong = dataclasses.replace(found(0, 10, range(6, 10)), rows=found(0, 10, range(6, 9)).rows)

    with pytest.raises(AccountingError, match="found 3"):
        writer_of(lake).commit(wrong)


def test_compaction_keeps_the_numbers_and_the_list(lake: LocalLake, tmp_path: Path) -> None:
    defer(lake)
    writer_of(lake).commit(found(0, 8, range(6, 8)))
    before, seam = stored(lake), lake.tables.head("trades").seam
    settings = UpkeepSettings(quiet_minutes=0, merge_files_min=2)

    done = list(Compactor(lake.tables, lake.settings, settings, lake.clock, scratch_dir=tmp_path / "s").run("trades"))

    assert [item.problem for item in done] == [""]
    assert stored(lake).equals(before)
    after = lake.tables.head("trades").seam
    assert (after.deferred, after.partitions) == (seam.deferred, seam.partitions)


def test_a_pinned_snapshot_does_not_see_a_later_backfill(lake: LocalLake) -> None:
    defer(lake)
    planner = Planner(lake.tables, lake.settings)
    pinned = planner.pin("trades")

    writer_of(lake).commit(found(0, 10, range(6, 10)))

    assert pinned.rows == 6
    assert sum(file.rows for file in planner.plan(pinned)) == 6
    assert planner.pin("trades").rows == 10
