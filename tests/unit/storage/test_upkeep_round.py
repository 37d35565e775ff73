"""A round of upkeep: what it reports, what it leaves alone, and that a failure at one table ends no other."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from k2.common.metrics import Metrics
from k2.storage.file_io import local_path
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.metrics import UpkeepMetrics
from k2.storage.upkeep.round import Upkeep
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock

SETTINGS = UpkeepSettings(quiet_minutes=0)


def lake_with(directory: Path, commits: int) -> LocalLake:
    clock = ManualClock(2_000_000_000 * 10**9)
    lake = LocalLake(directory, clock, snapshots_kept_min=2, snapshot_age_min_seconds=0).create()
    for number in range(commits):
        lake.commit(f"b{number}", number * 10, (number + 1) * 10)
    return lake


def upkeep(lake: LocalLake) -> Upkeep:
    scratch_dir = Path(local_path(lake.settings.warehouse)) / "scratch"
    return Upkeep(lake.tables, lake.settings, SETTINGS, lake.clock, scratch_dir=scratch_dir)


def test_a_round_reports_what_was_and_what_is(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)

    report = upkeep(lake).round()

    trades = report.tables[0]
    assert [one.table for one in report.tables] == list(upkeep(lake).table_names)
    assert (trades.before.files, trades.after.files, trades.files_replaced) == (6, 1, 6)
    assert (trades.before.rows, trades.after.rows) == (60, 60)
    assert trades.after.bytes < trades.before.bytes
    assert (trades.before.snapshots, trades.after.snapshots, trades.snapshots_expired) == (7, 2, 6)
    assert (report.is_sound, trades.swept, trades.orphans > 0, trades.orphans_deleted) == (True, True, True, 0)


def test_a_second_round_has_nothing_left_to_do(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    upkeep(lake).round()
    before = lake.tables.load("trades").metadata_location

    report = upkeep(lake).round()

    assert report.tables[0].jobs == 0
    assert lake.tables.load("trades").metadata_location == before


def test_a_dry_run_tells_and_changes_nothing(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    before = lake.tables.load("trades").metadata_location

    report = upkeep(lake).round(dry_run=True)

    trades = report.tables[0]
    assert (report.dry_run, trades.jobs, trades.files_replaced, trades.snapshots_expired) == (True, 1, 6, 5)
    assert lake.tables.load("trades").metadata_location == before


def test_a_table_that_fails_leaves_the_others_their_turn(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    lake.catalog.drop_table("market.quotes")

    report = upkeep(lake).round()

    assert [one.table for one in report.tables] == ["trades", "dead_letters", "gaps"]
    assert "quotes" in report.problems[0]
    assert not report.is_sound


def test_in_the_background_orphans_are_looked_for_only_when_it_is_time(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 2)
    upkeep(lake).round()

    swept = []
    for _ in range(2):
        swept.append(upkeep(lake).round(("trades",), sweep_now=False).tables[0].swept)
        lake.clock.advance(2 * 3_600)

    assert swept == [False, True]


def test_a_round_that_is_to_stop_begins_no_other_table(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)

    report = upkeep(lake).round(stopping=lambda: True)

    assert report.tables == ()


def test_the_metrics_tell_what_rounds_found_and_did(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    metrics = Metrics()
    kept = UpkeepMetrics(metrics, lake.clock)

    kept.failed()
    failures = values(metrics)["k2_upkeep_failures", ""]
    for _ in range(2):
        kept.record(upkeep(lake).round().to_dict())

    found = values(metrics)
    assert failures == 1
    assert (found["k2_table_files", "trades"], found["k2_table_rows", "trades"]) == (1, 60)
    assert (found["k2_upkeep_jobs_total", "trades"], found["k2_upkeep_files_replaced_total", "trades"]) == (1, 6)
    assert found["k2_table_orphan_files", "trades"] > 0
    assert (found["k2_upkeep_rounds_total", "success"], found["k2_upkeep_rounds_total", "failure"]) == (2, 1)
    assert found["k2_upkeep_failures", ""] == 0
    assert found["k2_upkeep_last_success_seconds", ""] == lake.clock.time_ns() / 1e9


def test_a_round_with_problems_is_no_success(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 2)
    lake.catalog.drop_table("market.quotes")
    metrics = Metrics()

    UpkeepMetrics(metrics, lake.clock).record(upkeep(lake).round().to_dict())

    assert values(metrics)["k2_upkeep_failures", ""] == 1


def values(metrics: Metrics) -> dict[tuple[str, str], float]:
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
