"""Retention: whole days go, the seam and its counters stay, and the ledger knows what went."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.storage.seam import Counts, LogPartition, PartitionDelta, Seam
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.retention import Retention
from k2.storage.writer import Batch
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

DAY_NS = 86_400_000_000_000
NOW_NS = START_NS + 10 * DAY_NS
KEYS = (LogPartition(0, 0), LogPartition(0, 1))


def lake_of_days(directory: Path) -> LocalLake:
    """Return a lake with ten rows a day and log partition, on the days 0 to 3."""
    lake = LocalLake(directory, ManualClock(NOW_NS)).create()
    for number in range(8):
        day, partition = divmod(number, 2)
        rows = market_rows(range(day * 10, day * 10 + 10), partition=partition, start_ns=START_NS + day * DAY_NS)
        delta = PartitionDelta(day * 10, day * 10 + 10, Counts(consumed=10, rows=10))
        lake.writer().commit(Batch(f"b{number}", {KEYS[partition]: delta}, lake.writer().write_files(rows)))
    return lake


def retention(lake: LocalLake) -> Retention:
    return Retention(lake.tables, lake.settings, lake.clock)


def test_what_would_go_is_shown_and_nothing_goes(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)

    days = retention(lake).plan("trades", older_than_days=8)

    assert [(day.date, day.exchange, day.rows, day.file_count) for day in days] == [
        (dt.date(2026, 1, 1), "sim", 20, 2),
        (dt.date(2026, 1, 2), "sim", 20, 2),
    ]
    assert len(lake.coordinates()) == 80


def test_a_day_goes_only_once_all_of_it_is_old_enough(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)

    counts = [len(retention(lake).plan("trades", older_than_days=age)) for age in (10, 9, 8.99, 8)]

    assert counts == [0, 1, 1, 2]


def test_the_days_go_and_the_seam_stays(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)
    before = lake.tables.head("trades").seam
    days = retention(lake).plan("trades", older_than_days=8)

    dropped = retention(lake).drop("trades", days)

    after = lake.tables.head("trades").seam
    assert dropped == 40
    assert lake.coordinates() == [(0, part, offset) for part in (0, 1) for offset in range(20, 40)]
    assert [after.next_offset(key) for key in KEYS] == [before.next_offset(key) for key in KEYS]
    assert after.totals() == before.totals()
    assert [(after.partitions[key].removed_rows, after.partitions[key].rows_held) for key in KEYS] == [(20, 20)] * 2
    assert after.commit_sequence == before.commit_sequence + 1


def test_ingestion_and_compaction_carry_on_what_was_removed(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)
    retention(lake).drop("trades", retention(lake).plan("trades", older_than_days=8))
    lake.commit("next", 40, 50)
    settings = UpkeepSettings(quiet_minutes=0)
    done = list(Compactor(lake.tables, lake.settings, settings, lake.clock, scratch_dir=tmp_path / "s").run("trades"))

    again = retention(lake).drop("trades", retention(lake).plan("trades", older_than_days=7))

    seam = lake.tables.head("trades").seam
    assert done
    assert again == 30  # the late rows of the first day went with the third
    assert [seam.partitions[key].removed_rows for key in KEYS] == [40, 30]
    assert len(lake.coordinates()) == sum(part.rows_held for part in seam.partitions.values()) == 20


def test_a_commit_that_was_faster_is_kept(tmp_path: Path) -> None:
    other = lake_of_days(tmp_path)
    lake = LocalLake(tmp_path, other.clock)
    batches = [other.batch("faster", 40, 50)]
    lake.catalog.before_commit = lambda: batches and other.writer().commit(batches.pop())

    retention(lake).drop("trades", retention(lake).plan("trades", older_than_days=8))

    assert lake.tables.head("trades").seam.next_offset(KEYS[0]) == 50
    assert (0, 0, 45) in lake.coordinates()


def test_days_that_compaction_rewrote_meanwhile_are_not_dropped_by_half(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)
    days = retention(lake).plan("trades", older_than_days=8)
    settings = UpkeepSettings(quiet_minutes=0)
    list(Compactor(lake.tables, lake.settings, settings, lake.clock, scratch_dir=tmp_path / "s").run("trades"))

    with pytest.raises(UnavailableError, match="run the command again"):
        retention(lake).drop("trades", days)

    assert len(lake.coordinates()) == 80


def test_side_tables_are_refused(tmp_path: Path) -> None:
    lake = lake_of_days(tmp_path)

    with pytest.raises(ConfigurationError, match="dead_letters"):
        retention(lake).plan("dead_letters", older_than_days=8)


def test_only_a_seam_with_removed_rows_needs_the_newer_version(tmp_path: Path) -> None:
    before = Seam().with_log(0, {0: 0}).advanced({KEYS[0]: PartitionDelta(0, 9, Counts(consumed=9, rows=9))})
    after = before.with_rows_removed({KEYS[0]: 4})

    assert ('"v":1' in before.to_json(), '"v":2' in after.to_json()) == (True, True)
    assert (Seam.from_json(before.to_json()), Seam.from_json(after.to_json())) == (before, after)
