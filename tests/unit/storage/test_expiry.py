"""Snapshot expiry: bounded snapshots, and the seam never lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.storage.expiry import SnapshotExpiry
from k2.storage.seam import LogPartition
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path


def busy_lake(directory: Path, commits: int = 8, **settings: float) -> LocalLake:
    lake = LocalLake(directory, **{"snapshots_kept_min": 3, "snapshot_age_min_seconds": 0, **settings}).create()
    for number in range(commits):
        lake.commit(f"b{number}", number, number + 1)
    return lake


def expiry(lake: LocalLake) -> SnapshotExpiry:
    return SnapshotExpiry(lake.tables, lake.settings, lake.clock)


def test_the_newest_snapshots_stay_and_the_head_keeps_the_seam(tmp_path: Path) -> None:
    lake = busy_lake(tmp_path)
    before = lake.tables.head("trades")

    gone = expiry(lake).expire("trades")

    after = lake.tables.head("trades")
    assert (gone, len(lake.tables.load("trades").snapshots())) == (6, 3)
    assert (after.snapshot_id, after.seam) == (before.snapshot_id, before.seam)
    assert len(lake.coordinates()) == 8


def test_commits_go_on_after_an_expiry(tmp_path: Path) -> None:
    lake = busy_lake(tmp_path, snapshots_kept_min=1)
    expiry(lake).expire("trades")

    commit = lake.commit("next", 8, 9)

    assert commit.seam.next_offset(LogPartition(0, 0)) == 9
    assert len(lake.coordinates()) == 9


def test_young_snapshots_stay_for_the_readers_that_pinned_them(tmp_path: Path) -> None:
    lake = busy_lake(tmp_path, snapshot_age_min_seconds=3600)

    assert expiry(lake).expire("trades") == 0


def test_too_many_young_snapshots_go_all_the_same(tmp_path: Path) -> None:
    lake = busy_lake(tmp_path, snapshot_age_min_seconds=3600, snapshots_kept_max=5)

    assert expiry(lake).expire("trades") == 4


def test_a_commit_that_was_faster_wins(tmp_path: Path) -> None:
    other = busy_lake(tmp_path)
    lake = LocalLake(tmp_path, snapshots_kept_min=3, snapshot_age_min_seconds=0)
    lake.catalog.before_commit = lambda: other.commit("faster", 8, 9)

    gone = expiry(lake).expire("trades")

    assert gone == 0
    assert lake.tables.head("trades").seam.next_offset(LogPartition(0, 0)) == 9


def test_an_empty_table_has_nothing_to_expire(lake: LocalLake) -> None:
    assert expiry(lake).expire("quotes") == 0


def test_the_thread_expires_after_so_many_commits(tmp_path: Path) -> None:
    lake = busy_lake(tmp_path, expire_every_commits=4)
    upkeep = expiry(lake)
    upkeep.start()

    for _ in range(4):
        upkeep.after_commit("trades")
    upkeep.wait_idle(timeout_seconds=30)
    upkeep.stop()

    assert len(lake.tables.load("trades").snapshots()) == 3


@pytest.mark.parametrize("fault", [Fault.FAIL_BEFORE_SWAP, Fault.LOSE_REPLY])
def test_a_failure_never_stops_the_thread(tmp_path: Path, fault: Fault) -> None:
    lake = LocalLake(
        tmp_path, ManualClock(), snapshots_kept_min=1, snapshots_kept_max=2, expire_every_commits=1
    ).create()
    for number in range(4):
        lake.commit(f"b{number}", number, number + 1)
    lake.catalog.faults.append(fault)
    upkeep = expiry(lake)
    upkeep.start()

    for _ in range(2):
        upkeep.after_commit("trades")
        upkeep.wait_idle(timeout_seconds=30)
    upkeep.stop()

    assert len(lake.tables.load("trades").snapshots()) <= 2
    assert len(lake.coordinates()) == 4
