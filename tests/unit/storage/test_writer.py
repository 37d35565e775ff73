"""The fenced commit, one rule a test."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from pyiceberg.table.update import SetPropertiesUpdate

from k2.common.errors import AccountingError, ConfigurationError, LogIdentityError, UnavailableError
from k2.storage.seam import BATCH_KEY, Counts, LogPartition, PartitionDelta, Seam
from k2.storage.snapshots import swap
from k2.storage.writer import Batch, SeamMovedError
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIRST = LogPartition(0, 0)


def once(action: Callable[[], object]) -> Callable[[], None]:
    """Return a function that acts at its first call only."""
    left = [action]
    return lambda: None if not left else (left.pop()(), None)[1]


def test_a_commit_moves_the_seam_and_adds_the_rows(lake: LocalLake) -> None:
    commit = lake.commit("b1", 0, 5)

    head = lake.tables.head("trades")
    assert lake.coordinates() == [(0, 0, offset) for offset in range(5)]
    assert (head.snapshot_id, head.seam) == (commit.snapshot_id, commit.seam)
    assert head.seam.next_offset(FIRST) == 5
    assert head.seam.totals() == Counts(consumed=5, rows=5)


def test_a_batch_without_rows_still_moves_the_seam(lake: LocalLake) -> None:
    batch = Batch("b1", {FIRST: PartitionDelta(0, 4, Counts(consumed=3, duplicates=2, dead_letters=1), leader_epoch=7)})

    commit = lake.writer().commit(batch)

    assert commit.seam.partitions[FIRST].next_offset == 4
    assert commit.seam.partitions[FIRST].leader_epoch == 7
    assert lake.coordinates() == []


def test_a_batch_behind_the_seam_is_fenced_and_told_where_to_seek(lake: LocalLake) -> None:
    lake.commit("b1", 0, 5)

    with pytest.raises(SeamMovedError, match=r"the seam is 5, the batch begins at 0") as caught:
        lake.commit("b2", 0, 5)

    assert caught.value.head.seam.next_offset(FIRST) == 5
    assert len(lake.coordinates()) == 5


def test_a_batch_that_overlaps_the_seam_is_fenced_too(lake: LocalLake) -> None:
    lake.commit("b1", 0, 5)

    with pytest.raises(SeamMovedError):
        lake.commit("b2", 3, 9)


def test_a_batch_above_the_seam_would_leave_a_hole_and_is_refused_with_its_size(lake: LocalLake) -> None:
    with pytest.raises(LogIdentityError, match=r"the seam .* is 0, the batch begins at 3.* leave out 3 offsets"):
        lake.commit("b1", 3, 9)

    assert lake.coordinates() == []


def test_a_partition_that_no_log_has_is_refused(lake: LocalLake) -> None:
    with pytest.raises(LogIdentityError, match=r"register the log first"):
        lake.commit("b1", 0, 5, partition=9)


def test_a_batch_committed_again_is_found(lake: LocalLake) -> None:
    batch = lake.batch("b1", 0, 5)
    first = lake.writer().commit(batch)
    lake.commit("b2", 5, 7)

    again = lake.writer().commit(batch)

    assert (again.found, again.snapshot_id) == (True, first.snapshot_id)
    assert again.seam.next_offset(FIRST) == 7
    assert len(lake.coordinates()) == 7


def test_a_lost_reply_is_no_second_commit(lake: LocalLake) -> None:
    lake.catalog.faults.append(Fault.LOSE_REPLY)

    commit = lake.commit("b1", 0, 5)

    assert (commit.found, commit.attempts) == (True, 2)
    assert len(lake.coordinates()) == 5


def test_a_failure_before_the_swap_is_tried_again(lake: LocalLake) -> None:
    lake.catalog.faults.append(Fault.FAIL_BEFORE_SWAP)

    commit = lake.commit("b1", 0, 5)

    assert (commit.found, commit.attempts) == (False, 2)
    assert len(lake.coordinates()) == 5


def test_a_catalog_that_stays_down_is_unavailable_and_the_batch_can_be_committed_later(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, ManualClock(), commit_attempts_max=3).create()
    lake.catalog.faults.extend([Fault.FAIL_BEFORE_SWAP] * 3)
    batch = lake.batch("b1", 0, 5)

    with pytest.raises(UnavailableError, match=r"commit the same batch again"):
        lake.writer().commit(batch)
    commit = lake.writer().commit(batch)

    assert not commit.found
    assert len(lake.coordinates()) == 5


def test_a_commit_gives_up_when_its_time_is_over(tmp_path: Path) -> None:
    clock = ManualClock()
    lake = LocalLake(tmp_path, clock, commit_attempts_max=1000, commit_timeout_seconds=10).create()
    lake.catalog.faults.extend([Fault.FAIL_BEFORE_SWAP] * 1000)
    batch = lake.batch("b1", 0, 5)

    with pytest.raises(UnavailableError):
        lake.writer().commit(batch)

    assert clock.monotonic() <= 10


def test_another_partition_committed_in_between_is_merged(tmp_path: Path) -> None:
    other = LocalLake(tmp_path).create()
    lake = LocalLake(tmp_path)
    batch = lake.batch("b1", 0, 5, partition=0)
    lake.catalog.before_commit = once(lambda: other.commit("other", 0, 3, partition=1))

    commit = lake.writer().commit(batch)

    assert (commit.attempts, commit.seam.commit_sequence) == (2, 3)
    assert commit.seam.totals() == Counts(consumed=8, rows=8)
    assert len(lake.coordinates()) == 8


def test_the_same_partition_committed_in_between_fences(tmp_path: Path) -> None:
    other = LocalLake(tmp_path).create()
    lake = LocalLake(tmp_path)
    batch = lake.batch("b1", 0, 5)
    lake.catalog.before_commit = once(lambda: other.commit("other", 0, 5))

    with pytest.raises(SeamMovedError):
        lake.writer().commit(batch)

    assert lake.coordinates() == [(0, 0, offset) for offset in range(5)]


def test_a_table_on_which_pyiceberg_would_rebase_is_refused(lake: LocalLake) -> None:
    table = lake.tables.load("trades")
    swap(table, (SetPropertiesUpdate(updates={"commit.retry.num-retries": "4"}),))

    with pytest.raises(ConfigurationError, match=r"commit\.retry\.num-retries=0 .* found 4"):
        lake.commit("b1", 0, 5)


def test_records_unaccounted_for_stop_the_writer(lake: LocalLake) -> None:
    batch = lake.batch("b1", 0, 5)
    delta = dataclasses.replace(batch.deltas[FIRST], counts=Counts(consumed=6, rows=5))

    with pytest.raises(AccountingError, match=r"1 records of log 0 partition 0"):
        lake.writer().commit(dataclasses.replace(batch, deltas={FIRST: delta}))


def test_rows_that_the_footers_do_not_have_stop_the_writer(lake: LocalLake) -> None:
    batch = lake.batch("b1", 0, 5)

    with pytest.raises(AccountingError, match=r"expected 5 rows .* the footers say 0"):
        lake.writer().commit(dataclasses.replace(batch, files=()))


def test_schema_texts_go_in_with_the_rows(lake: LocalLake) -> None:
    batch = dataclasses.replace(lake.batch("b1", 0, 5), new_schemas={41: '{"type":"record"}'})

    lake.writer().commit(batch)

    assert lake.tables.head("trades").schemas == {41: '{"type":"record"}'}


def test_every_snapshot_has_the_seam_in_full_and_its_batch(lake: LocalLake) -> None:
    lake.commit("b1", 0, 5)
    lake.commit("b2", 0, 3, partition=1)

    summaries = [snapshot.summary.additional_properties for snapshot in lake.tables.load("trades").snapshots()]
    assert [summary.get(BATCH_KEY) for summary in summaries] == [None, "b1", "b2"]
    assert [Seam.from_summary(summary).totals().rows for summary in summaries] == [0, 5, 8]


def test_files_that_waited_too_long_are_written_again(tmp_path: Path) -> None:
    clock = ManualClock()
    lake = LocalLake(tmp_path, clock).create()
    batch = lake.batch("b1", 0, 5)
    clock.advance(13 * 3600)

    lake.writer().commit(batch)

    in_table = {task.file.file_path for task in lake.tables.load("trades").scan().plan_files()}
    assert in_table.isdisjoint({file.path for file in batch.files})
    assert len(lake.coordinates()) == 5


def test_manifests_are_merged_so_that_their_number_stays_small(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path, manifests_merge_count=3).create()
    for number in range(20):
        lake.commit(f"b{number}", number, number + 1)

    table = lake.tables.load("trades")
    snapshot = table.current_snapshot()

    assert snapshot is not None
    assert len(snapshot.manifests(table.io)) <= 8
    assert len(lake.coordinates()) == 20


def test_old_metadata_is_deleted_once_a_hundred_versions_are_kept(lake: LocalLake, tmp_path: Path) -> None:
    directory = tmp_path / "lake/market/trades/metadata"
    for number in range(105):
        lake.writer().commit(Batch(f"b{number}", {FIRST: PartitionDelta(number, number + 1, Counts(1, 0, 1))}))

    assert len(list(directory.glob("*.metadata.json"))) == 101
