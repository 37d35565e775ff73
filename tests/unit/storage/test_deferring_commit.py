"""A commit takes the deferred lists along: what it defers, and what a backfill writes."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import AccountingError, FencedError
from k2.schemas.tier_maps import TierMap
from k2.storage.deferral import Backfill, Deferral, Predicate, check_lists
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.writer import Batch
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from k2.storage.writer import Commit
    from k2.testing.local_lake import LocalLake

FIRST = LogPartition(0, 0)
TIERS = TierMap.of({"BHP"}, {"CBA"})
LOW, NORMAL = Predicate(TIERS.map_id, 3), Predicate(TIERS.map_id, 2)


def deferring(
    lake: LocalLake, batch_id: str, start: int, end: int, predicate: Predicate | None, *, kept: int
) -> Commit:
    """Commit the first `kept` records of [start, end), the others deferred by a predicate."""
    batch = lake.batch(batch_id, start, start + kept)
    counts = Counts(consumed=end - start, rows=kept, deferred=end - start - kept)
    deferral = Deferral({FIRST: predicate} if predicate else {}, tier_maps={TIERS.map_id: TIERS.to_json()})
    return lake.writer().commit(
        dataclasses.replace(batch, deltas={FIRST: PartitionDelta(start, end, counts)}, deferral=deferral)
    )


def backfill_of(lake: LocalLake, batch_id: str, start: int, end: int, found: int) -> Batch:
    """Return the batch that writes the last `found` records of [start, end), deferred by LOW."""
    files = lake.writer().write_files(market_rows(range(end - found, end)))
    return Batch(
        batch_id, {}, files, deferral=Deferral(backfill=(FIRST, Backfill(start, end, LOW, Counts(rows=found))))
    )


def test_what_is_deferred_and_the_map_that_says_so_go_in_by_one_commit(lake: LocalLake) -> None:
    commit = deferring(lake, "b1", 0, 10, LOW, kept=6)

    head = lake.tables.head("trades")
    assert head.seam == commit.seam
    assert [(each.start, each.end, each.records) for each in head.seam.deferred] == [(0, 10, 4)]
    assert head.seam.totals() == Counts(consumed=10, rows=6, deferred=4)
    assert TierMap.from_json(head.tier_maps[LOW.tier_map_id]) == TIERS
    check_lists(head.seam)


def test_a_batch_that_lets_records_pass_which_the_head_holds_back_is_fenced(lake: LocalLake) -> None:
    deferring(lake, "b1", 0, 10, NORMAL, kept=6)

    with pytest.raises(FencedError, match="sort again"):
        deferring(lake, "b2", 10, 20, LOW, kept=6)
    with pytest.raises(FencedError, match="sort again"):
        deferring(lake, "b3", 10, 20, None, kept=10)

    assert len(lake.coordinates()) == 6


def test_a_backfill_adds_its_rows_and_moves_no_offset(lake: LocalLake) -> None:
    deferring(lake, "b1", 0, 10, LOW, kept=6)

    commit = lake.writer().commit(backfill_of(lake, "fill", 0, 10, 4))

    assert lake.coordinates() == [(0, 0, offset) for offset in range(10)]
    assert commit.seam.next_offset(FIRST) == 10
    assert commit.seam.deferred == ()
    assert commit.seam.totals() == Counts(consumed=10, rows=10)
    assert commit.rows == 4


def test_a_backfill_committed_again_is_found(lake: LocalLake) -> None:
    deferring(lake, "b1", 0, 10, LOW, kept=6)
    batch = backfill_of(lake, "fill", 0, 10, 4)
    lake.writer().commit(batch)

    again = lake.writer().commit(batch)

    assert again.found
    assert len(lake.coordinates()) == 10


def test_a_second_backfill_of_one_range_is_fenced(lake: LocalLake) -> None:
    deferring(lake, "b1", 0, 10, LOW, kept=6)
    first, second = (backfill_of(lake, name, 0, 10, 4) for name in ("one", "two"))
    lake.writer().commit(first)

    with pytest.raises(FencedError, match="somebody else wrote it"):
        lake.writer().commit(second)

    assert len(lake.coordinates()) == 10


def test_a_backfill_moves_no_offset_of_another_partition_either(lake: LocalLake) -> None:
    deferring(lake, "b1", 0, 10, LOW, kept=6)
    batch = backfill_of(lake, "fill", 0, 10, 4)
    moving = {LogPartition(0, 1): PartitionDelta(0, 3, Counts(consumed=3, duplicates=3))}

    with pytest.raises(AccountingError, match="no new offsets"):
        lake.writer().commit(dataclasses.replace(batch, deltas=moving))
