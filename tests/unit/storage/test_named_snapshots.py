"""Tags keep a snapshot, its seam and its files from expiring, for as long as they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError, ExpiredError
from k2.common.units import NS_PER_SECOND
from k2.storage.dropped_days import ENTRIES_MAX, DroppedDays, dropped_days, dropped_property
from k2.storage.expiry import SnapshotExpiry
from k2.storage.named_snapshots import SnapshotTags
from k2.storage.planning import Planner
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.orphans import OrphanSweep
from k2.storage.upkeep.retention import Retention
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS

DAY_SECONDS = 86_400


def lake_of(directory: Path) -> LocalLake:
    lake = LocalLake(
        directory,
        ManualClock(START_NS + 9 * DAY_SECONDS * NS_PER_SECOND),
        snapshots_kept_min=1,
        snapshot_age_min_seconds=0,
        snapshots_kept_max=2,
        tags_max=2,
    )
    return lake.create()


def tags(lake: LocalLake) -> SnapshotTags:
    return SnapshotTags(lake.tables, lake.settings, lake.clock)


def expire(lake: LocalLake) -> None:
    SnapshotExpiry(lake.tables, lake.settings, lake.clock).expire("trades")


def commits(lake: LocalLake, start: int, end: int) -> None:
    for number in range(start, end):
        lake.commit(f"b{number}", number, number + 1)


def test_a_tagged_snapshot_outlives_expiry_with_its_seam_and_files(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 3)
    tag = tags(lake).tag("month-end", "trades")
    commits(lake, 3, 8)

    expire(lake)

    assert tag is not None
    kept = {each.snapshot_id: each for each in tags(lake).snapshots(["trades"])}
    assert [each.name for each in kept[tag.snapshot_id].tags] == ["month-end"]
    assert len(kept) < 9
    planner = Planner(lake.tables, lake.settings)
    assert planner.pin("trades", snapshot_id=tag.snapshot_id).rows == 3
    assert planner.pin("trades", snapshot_id=tag.snapshot_id).head.seam.commit_sequence == 4
    assert planner.pin("trades").rows == 8


def test_the_sweep_leaves_the_files_of_a_tagged_snapshot(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 3)
    tag = tags(lake).tag("audit", "trades")
    retention = Retention(lake.tables, lake.settings, lake.clock)
    retention.drop("trades", retention.plan("trades", older_than_days=1))
    expire(lake)
    sweep = OrphanSweep(lake.tables, lake.settings, UpkeepSettings(), lake.clock)

    sweep.sweep("trades")
    lake.clock.sleep(3 * DAY_SECONDS)
    sweep.sweep("trades")

    assert tag is not None
    pinned = Planner(lake.tables, lake.settings).pin("trades", snapshot_id=tag.snapshot_id)
    assert pinned.rows == 3
    assert all(Path(entry.file.path).is_file() for manifest in pinned.manifests for entry in manifest.files)


def test_a_tag_that_is_dropped_or_whose_time_is_over_keeps_nothing(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 1)
    dropped = tags(lake).tag("dropped", "trades")
    commits(lake, 1, 2)
    newest = tags(lake).snapshots(["trades"])[0]
    lake.clock.sleep((newest.committed_at_ns - lake.clock.time_ns()) / NS_PER_SECOND + 5)
    over = tags(lake).tag("over", "trades", keep_seconds=60)
    commits(lake, 2, 6)
    expire(lake)
    before = {each.snapshot_id for each in tags(lake).snapshots(["trades"])}

    tags(lake).drop("dropped", "trades")
    lake.clock.sleep(61)
    expire(lake)

    assert dropped is not None
    assert over is not None
    assert over.until_ns is not None
    assert round((lake.clock.time_ns() - over.until_ns) / NS_PER_SECOND, 1) == 1
    left = {each.snapshot_id for each in tags(lake).snapshots(["trades"])}
    assert before - left == {dropped.snapshot_id, over.snapshot_id}
    assert tags(lake).drop("over", "trades") is None


def test_a_name_is_of_one_snapshot_and_may_be_kept_longer(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 1)
    first = tags(lake).tag("q1", "trades", keep_seconds=60)
    commits(lake, 1, 2)
    assert first is not None

    longer = tags(lake).tag("q1", "trades", snapshot_id=first.snapshot_id)

    assert longer is not None
    assert (longer.snapshot_id, longer.until_ns) == (first.snapshot_id, None)
    with pytest.raises(ConfigurationError, match=f"'q1' on snapshot {first.snapshot_id}"):
        tags(lake).tag("q1", "trades")


@pytest.mark.parametrize("name", ["", "9am", "main", "now", "snapshot", "eyJ2", "a b", "a/b", "a" * 65, "ü"])
def test_what_would_mean_something_else_is_no_name(tmp_path: Path, name: str) -> None:
    lake = lake_of(tmp_path)

    with pytest.raises(ConfigurationError, match="expected a tag of letters"):
        tags(lake).tag(name, "trades")


def test_there_are_only_so_many_tags_and_none_of_nothing(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 1)
    for name in ("a", "b"):
        tags(lake).tag(name, "trades")

    with pytest.raises(ConfigurationError, match="K2_CATALOG__TAGS_MAX"):
        tags(lake).tag("c", "trades")
    with pytest.raises(ConfigurationError, match="none with the id 5"):
        tags(lake).tag("d", "trades", snapshot_id=5)
    with pytest.raises(ExpiredError, match="found it expired"):
        Planner(lake.tables, lake.settings).pin("trades", snapshot_id=5)
    assert tags(lake).tag("c", "quotes") is None


def test_a_tag_lands_though_a_commit_is_faster(tmp_path: Path) -> None:
    lake, other = lake_of(tmp_path), LocalLake(tmp_path)

    def be_faster() -> None:
        lake.catalog.before_commit = lambda: None
        other.commit("b0", 0, 1)

    lake.catalog.before_commit = be_faster

    tag = tags(lake).tag("busy", "trades")

    newest = tags(lake).snapshots(["trades"])[0]
    assert newest.rows == 1
    assert newest.tags == (tag,)


def test_a_drop_of_days_is_remembered_with_its_commit(tmp_path: Path) -> None:
    lake = lake_of(tmp_path)
    commits(lake, 0, 2)
    retention = Retention(lake.tables, lake.settings, lake.clock)

    retention.drop("trades", retention.plan("trades", older_than_days=1))

    head = lake.tables.head("trades")
    day = START_NS // (DAY_SECONDS * NS_PER_SECOND)
    assert head.dropped == (DroppedDays("sim", day, day, head.seam.commit_sequence, lake.clock.time_ns()),)


def test_days_dropped_concern_the_events_that_were_on_them() -> None:
    dropped = DroppedDays("asx", 10, 11, commit_sequence=7, at_ns=0)
    day_ns = DAY_SECONDS * NS_PER_SECOND

    assert dropped.concerns(None, None, None)
    assert dropped.concerns("asx", 12 * day_ns - 1, None)
    assert dropped.concerns("asx", None, 10 * day_ns + 1)
    assert not dropped.concerns("asx", 12 * day_ns, None)
    assert not dropped.concerns("asx", None, 10 * day_ns)
    assert not dropped.concerns("sim", None, None)


def test_of_very_many_drops_the_oldest_of_an_exchange_are_taken_together() -> None:
    known: tuple[DroppedDays, ...] = ()
    for number in range(ENTRIES_MAX + 3):
        drop = DroppedDays("asx" if number else "sim", number, number, number + 5, number)
        known = dropped_days(dropped_property(known, [drop]))

    assert len(known) == ENTRIES_MAX
    assert {each.exchange for each in known} == {"asx", "sim"}
    covered = {day for each in known for day in range(each.first_day, each.last_day + 1)}
    assert covered == set(range(ENTRIES_MAX + 3))
    assert known[-1].commit_sequence == ENTRIES_MAX + 7
