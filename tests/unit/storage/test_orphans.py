"""The orphan sweep: marks what no snapshot names, deletes a day after the mark, and never what is in use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError
from k2.storage.expiry import SnapshotExpiry
from k2.storage.file_io import local_path
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.orphans import MARKS_NAME, OrphanSweep, read_marks
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

HOUR = 3_600.0
SETTINGS = UpkeepSettings(quiet_minutes=0, file_bytes_min=10**9, file_bytes_max=2 * 10**9)


def lake_with(directory: Path, commits: int) -> LocalLake:
    lake = LocalLake(directory, ManualClock(2_000_000_000 * 10**9), snapshots_kept_min=1, snapshot_age_min_seconds=0)
    lake.create()
    for number in range(commits):
        lake.commit(f"b{number}", number * 10, (number + 1) * 10)
    return lake


def sweep(lake: LocalLake, **settings: float) -> OrphanSweep:
    return OrphanSweep(lake.tables, lake.settings, SETTINGS.model_copy(update=settings), lake.clock)


def data_files(lake: LocalLake) -> set[Path]:
    return set(Path(local_path(lake.tables.load("trades").location())).rglob("*.parquet"))


def compacted(directory: Path) -> tuple[LocalLake, set[Path]]:
    """Return a lake whose old files only expired snapshots name, and those files."""
    lake = lake_with(directory, 5)
    old = data_files(lake)
    assert list(
        Compactor(lake.tables, lake.settings, SETTINGS, lake.clock, scratch_dir=directory / "scratch").run("trades")
    )
    SnapshotExpiry(lake.tables, lake.settings, lake.clock).expire("trades")
    return lake, old


def test_a_table_that_was_only_written_has_no_orphans(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)

    assert sweep(lake).sweep("trades").orphans == 0


def test_replaced_files_are_marked_first_and_deleted_a_day_later(tmp_path: Path) -> None:
    lake, old = compacted(tmp_path)

    first = sweep(lake).sweep("trades")
    lake.clock.advance(23.9 * HOUR)
    early = sweep(lake).sweep("trades")
    lake.clock.advance(0.2 * HOUR)
    late = sweep(lake).sweep("trades")

    assert (first.deleted, early.deleted) == (0, 0)
    assert late.deleted == first.orphans > len(old)
    assert not old & data_files(lake)
    assert lake.coordinates() == [(0, 0, offset) for offset in range(50)]


def test_files_that_an_older_snapshot_still_names_stay(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)
    old = data_files(lake)
    assert list(
        Compactor(lake.tables, lake.settings, SETTINGS, lake.clock, scratch_dir=tmp_path / "scratch").run("trades")
    )

    for _ in range(3):
        sweep(lake).sweep("trades")
        lake.clock.advance(25 * HOUR)

    assert old <= data_files(lake)


def test_the_age_of_a_file_counts_for_nothing(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 2)
    batch = lake.batch("waits", 20, 30)
    path = Path(local_path(batch.files[0].path))
    os.utime(path, (0, 0))

    swept = sweep(lake).sweep("trades")

    assert (swept.orphans, swept.deleted) == (1, 0)
    assert path.exists()


def test_a_batch_that_waited_long_for_its_commit_keeps_its_file(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 2)
    batch = lake.batch("waits", 20, 30)
    sweep(lake).sweep("trades")
    lake.clock.advance(11 * HOUR)
    lake.writer().commit(batch)

    lake.clock.advance(20 * HOUR)
    swept = sweep(lake).sweep("trades")

    assert swept.deleted == 0
    assert lake.coordinates() == [(0, 0, offset) for offset in range(30)]


def test_a_file_in_use_again_loses_its_mark(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 2)
    batch = lake.batch("waits", 20, 30)
    sweep(lake).sweep("trades")
    before = read_marks(lake.tables.load("trades")).files

    lake.writer().commit(batch)
    sweep(lake).sweep("trades")

    assert len(before) == 1
    assert not read_marks(lake.tables.load("trades")).files


@pytest.mark.parametrize("content", [b"", b"{", b'{"v": 99, "swept_at_ns": 0, "files": {}}', b"[]"])
def test_marks_that_cannot_be_read_only_make_files_wait_longer(tmp_path: Path, content: bytes) -> None:
    lake, _ = compacted(tmp_path)
    sweep(lake).sweep("trades")
    lake.clock.advance(25 * HOUR)
    marks = Path(local_path(lake.tables.load("trades").location())) / "metadata" / MARKS_NAME
    marks.write_bytes(content)

    swept = sweep(lake).sweep("trades")

    assert swept.deleted == 0
    assert swept.orphans > 0


def test_a_clock_that_was_ahead_does_not_keep_files_for_ever(tmp_path: Path) -> None:
    lake, _ = compacted(tmp_path)
    lake.clock.advance(1_000 * HOUR)
    sweep(lake).sweep("trades")
    lake.clock.advance(-1_000 * HOUR)

    sweep(lake).sweep("trades")
    lake.clock.advance(25 * HOUR)

    assert sweep(lake).sweep("trades").deleted > 0


def test_a_dry_run_marks_and_deletes_nothing(tmp_path: Path) -> None:
    lake, old = compacted(tmp_path)

    swept = sweep(lake).sweep("trades", dry_run=True)

    assert swept.orphans > 0
    assert not read_marks(lake.tables.load("trades")).files
    assert old <= data_files(lake)


def test_the_number_of_marks_is_bounded(tmp_path: Path) -> None:
    lake, _ = compacted(tmp_path)

    sweep(lake, orphans_marked_max=3).sweep("trades")

    assert len(read_marks(lake.tables.load("trades")).files) == 3


def test_old_versions_of_the_metadata_that_the_table_lists_stay(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)
    listed = [Path(local_path(entry.metadata_file)) for entry in lake.tables.load("trades").metadata.metadata_log]

    for _ in range(2):
        sweep(lake).sweep("trades")
        lake.clock.advance(25 * HOUR)

    assert len(listed) >= 5
    assert all(path.exists() for path in listed)


def test_a_sweep_is_due_once_an_interval(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 1)
    fresh = sweep(lake).is_due("trades")
    sweep(lake).sweep("trades")
    swept = sweep(lake).is_due("trades")
    lake.clock.advance(2 * HOUR)

    assert (fresh, swept, sweep(lake).is_due("trades")) == (True, False, True)


def test_orphans_must_wait_longer_than_a_file_may_for_its_commit(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 1)

    with pytest.raises(ConfigurationError, match="K2_UPKEEP__ORPHAN_HOURS"):
        sweep(lake, orphan_hours=12.0)
