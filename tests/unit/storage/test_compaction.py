"""Merging and compaction: fewer and sorted files, the same rows, the seam word for word, never in ingestion's way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import polars as pl
import pytest
from pyiceberg.table.snapshots import Operation

from k2.schemas.arrow import polars_schema
from k2.schemas.records import DEAD_LETTERS
from k2.storage import replacing
from k2.storage.dead_letters import DeadLetterWriter
from k2.storage.file_io import local_path
from k2.storage.iceberg_schema import SORT_COLUMNS
from k2.storage.planning import Planner
from k2.storage.seam import SUMMARY_KEY, Counts, LogPartition, PartitionDelta, Seam, SeamError
from k2.storage.settings import UpkeepSettings
from k2.storage.upkeep.compaction import Compactor
from k2.storage.writer import Batch
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.storage.upkeep.compaction import Done

HOUR_NS = 3_600_000_000_000
LOG_NS = START_NS + 24 * HOUR_NS
"""`ts_log` of every row of `market_rows`."""
SMALL = {"file_bytes_min": 10**9, "file_bytes_max": 2 * 10**9, "merge_files_min": 4, "sort_rows_max": 256}


def lake_with(directory: Path, commits: int, *, rows: int = 30, **settings: float) -> LocalLake:
    lake = LocalLake(directory, ManualClock(LOG_NS + 2 * HOUR_NS), row_group_rows=1_024, **settings).create()
    for number in range(commits):
        lake.commit(f"b{number}", number * rows, (number + 1) * rows)
    return lake


def compactor(lake: LocalLake, **settings: float) -> Compactor:
    wanted = UpkeepSettings(**{**SMALL, "quiet_minutes": 0, **settings})
    return Compactor(
        lake.tables,
        lake.settings,
        wanted,
        lake.clock,
        scratch_dir=Path(local_path(lake.settings.warehouse)) / "scratch",
    )


def once(action: Callable[[], object]) -> Callable[[], None]:
    left = [action]

    def run() -> None:
        if left:
            left.pop()()

    return run


def compact(lake: LocalLake, table: str = "trades", **settings: float) -> list[Done]:
    return list(compactor(lake, **settings).run(table))


def rows_of(lake: LocalLake, table: str = "trades", snapshot_id: int | None = None) -> pl.DataFrame:
    found = pl.DataFrame(pl.from_arrow(lake.tables.load(table).scan(snapshot_id=snapshot_id).to_arrow()))
    return found.sort("log_partition", "log_offset")


def files_of(lake: LocalLake, table: str = "trades") -> list[Path]:
    return [Path(local_path(task.file.file_path)) for task in lake.tables.load(table).scan().plan_files()]


def summary_of(lake: LocalLake) -> dict[str, str]:
    return lake.tables.load("trades").current_snapshot().summary.additional_properties


def test_a_quiet_day_becomes_one_sorted_file_with_the_same_rows(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 12)
    before = rows_of(lake)

    (done,) = compact(lake)

    (file,) = files_of(lake)
    stored = pl.read_parquet(file)
    assert (done.problem, len(done.job.files), done.files_after) == ("", 12, 1)
    assert rows_of(lake).equals(before)
    assert stored.select(SORT_COLUMNS).equals(stored.select(SORT_COLUMNS).sort(SORT_COLUMNS))


def test_the_seam_is_carried_word_for_word(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)
    before = summary_of(lake)[SUMMARY_KEY]

    compact(lake)

    snapshot = lake.tables.load("trades").current_snapshot()
    assert snapshot.summary.operation is Operation.REPLACE
    assert summary_of(lake)[SUMMARY_KEY] == before
    assert "k2.batch" not in summary_of(lake)


def test_the_totals_of_the_snapshot_stay_right(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)

    compact(lake)

    found = summary_of(lake)
    (file,) = files_of(lake)
    assert (found["total-records"], found["total-data-files"]) == ("150", "1")
    assert found["total-files-size"] == str(file.stat().st_size)


def test_duckdb_reads_the_compacted_table(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 5)
    compact(lake)
    lake.commit("later", 150, 160)
    metadata = local_path(lake.tables.load("trades").metadata_location)
    connection = duckdb.connect(config={"allow_unsigned_extensions": "false"})
    try:
        load_extensions(connection)

        found = connection.sql(
            f"SELECT count(*), count(DISTINCT log_offset), sum(log_offset) FROM iceberg_scan('{metadata}')"
        ).fetchone()
    finally:
        connection.close()

    assert found == (160, 160, sum(range(160)))


def load_extensions(connection: duckdb.DuckDBPyConnection) -> None:
    for name in ("avro", "iceberg"):
        module = pytest.importorskip(f"duckdb_extension_{name}")
        (path,) = Path(module.__file__).parent.rglob(f"{name}.duckdb_extension")
        connection.execute(f"LOAD '{path}'")


def test_what_ingestion_commits_before_the_swap_stays(tmp_path: Path) -> None:
    other = lake_with(tmp_path, 6)
    lake = LocalLake(tmp_path, other.clock)
    offsets = iter(range(180, 183))

    def ingest() -> None:
        for offset in offsets:
            other.commit(f"faster-{offset}", offset, offset + 1)
            return

    lake.catalog.before_commit = ingest

    (done,) = compact(lake, commit_attempts_max=10)

    assert done.problem == ""
    assert lake.coordinates() == [(0, 0, offset) for offset in range(183)]
    assert lake.tables.head("trades").seam.next_offset(LogPartition(0, 0)) == 183
    assert len(files_of(lake)) == 4


def test_ingestion_survives_a_compaction_between_its_load_and_its_swap(tmp_path: Path) -> None:
    other = lake_with(tmp_path, 6)
    lake = LocalLake(tmp_path, other.clock)
    lake.catalog.before_commit = once(lambda: compact(other))

    commit = lake.commit("next", 180, 190)

    assert (commit.attempts, commit.seam.next_offset(LogPartition(0, 0))) == (2, 190)
    assert lake.coordinates() == [(0, 0, offset) for offset in range(190)]
    assert len(files_of(lake)) == 2


@pytest.mark.parametrize("fault", [Fault.LOSE_REPLY, Fault.FAIL_BEFORE_SWAP])
def test_an_unknown_outcome_replaces_once(tmp_path: Path, fault: Fault) -> None:
    lake = lake_with(tmp_path, 6)
    before = lake.catalog.commits
    lake.catalog.faults.append(fault)

    (done,) = compact(lake)

    assert done.problem == ""
    assert len(files_of(lake)) == 1
    assert lake.coordinates() == [(0, 0, offset) for offset in range(180)]
    assert lake.catalog.commits - before == (1 if fault is Fault.LOSE_REPLY else 2)


def test_of_two_compactions_of_the_same_files_one_gives_way(tmp_path: Path) -> None:
    other = lake_with(tmp_path, 6)
    lake = LocalLake(tmp_path, other.clock)
    lake.catalog.before_commit = once(lambda: compact(other))

    (done,) = compact(lake)

    assert "has replaced a file" in done.problem
    assert lake.coordinates() == [(0, 0, offset) for offset in range(180)]
    assert len(files_of(lake)) == 1


def test_a_table_that_never_stands_still_is_left_for_the_next_round(tmp_path: Path) -> None:
    other = lake_with(tmp_path, 6)
    lake = LocalLake(tmp_path, other.clock)
    offsets = iter(range(180, 300))

    def ingest() -> None:
        offset = next(offsets)
        other.commit(f"faster-{offset}", offset, offset + 1)

    lake.catalog.before_commit = ingest

    (done,) = compact(lake, commit_attempts_max=3)

    assert "no success" in done.problem
    assert lake.coordinates() == [(0, 0, offset) for offset in range(183)]


def test_a_reader_that_pinned_a_snapshot_sees_its_rows_throughout(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    planner = Planner(lake.tables, lake.settings)
    pinned = planner.pin("trades")
    snapshot_id, before = lake.tables.load("trades").current_snapshot().snapshot_id, rows_of(lake)

    compact(lake)
    lake.commit("later", 180, 190)

    assert rows_of(lake, snapshot_id=snapshot_id).equals(before)
    assert pl.concat([pl.read_parquet(file.path) for file in planner.plan(pinned)]).height == 180
    assert planner.pin("trades").rows == 190
    assert len(planner.plan(planner.pin("trades"))) == 2


def test_entries_that_stay_keep_their_sequence_numbers(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 3, manifests_merge_count=3)
    rows = market_rows(range(90, 120), exchange="asx")
    files = lake.writer().write_files(rows)
    delta = PartitionDelta(90, 120, Counts(consumed=30, rows=30))
    lake.writer().commit(Batch("asx", {LogPartition(0, 0): delta}, files))
    before = sequence_numbers(lake)

    compact(lake)

    after = sequence_numbers(lake)
    assert after[files[0].path] == before[files[0].path]
    assert len(after) == 2


def sequence_numbers(lake: LocalLake) -> dict[str, tuple[int, int, int]]:
    table = lake.tables.load("trades")
    return {
        entry.data_file.file_path: (entry.snapshot_id, entry.sequence_number, entry.file_sequence_number)
        for manifest in table.current_snapshot().manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io)
    }


def test_days_and_exchanges_stay_apart(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 0)
    for number in range(8):
        rows = market_rows(
            range(number * 10, number * 10 + 10),
            exchange="asx" if number % 2 else "sim",
            start_ns=START_NS + number // 4 * 24 * HOUR_NS,
        )
        delta = PartitionDelta(number * 10, number * 10 + 10, Counts(consumed=10, rows=10))
        lake.writer().commit(Batch(f"b{number}", {LogPartition(0, 0): delta}, lake.writer().write_files(rows)))
    before = rows_of(lake)

    done = compact(lake)

    assert [one.files_after for one in done] == [1, 1, 1, 1]
    assert rows_of(lake).equals(before)


def test_an_open_day_merges_only_enough_files_of_like_size(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 3)

    too_few = compact(lake, quiet_minutes=10_000)
    lake.commit("b3", 90, 120)
    enough = compact(lake, quiet_minutes=10_000)

    assert (too_few, len(enough), len(files_of(lake))) == ([], 1, 1)


def test_a_day_is_quiet_by_the_log_and_not_by_the_clock_while_a_backlog_is_worked_off(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 3)  # the clock is two hours past the rows' log time, and they have just been committed
    committed_ns = lake.tables.load("trades").current_snapshot().timestamp_ms * 1_000_000
    lake.clock = ManualClock(committed_ns)
    working_off = compact(lake, quiet_minutes=60)

    lake.clock = ManualClock(committed_ns + 2 * HOUR_NS)
    at_rest = compact(lake, quiet_minutes=60)

    assert (working_off, len(at_rest)) == ([], 1)


def test_more_rows_than_memory_may_hold_are_sorted_in_pieces(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 40, rows=50)
    before = rows_of(lake)

    (done,) = compact(lake, sort_rows_max=256, sort_pieces_max=2)

    assert done.problem == ""
    assert rows_of(lake).equals(before)
    assert not list((tmp_path / "lake" / "scratch").iterdir())


def test_a_large_day_becomes_several_files_that_follow_on_one_another(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 20, rows=500)
    size = sum(file.stat().st_size for file in files_of(lake))

    (done,) = compact(lake, file_bytes_min=size // 4, file_bytes_max=size // 3)

    bounds = sorted(
        (pl.read_parquet(file)["symbol"].min(), pl.read_parquet(file)["symbol"].max()) for file in files_of(lake)
    )
    assert done.files_after == len(bounds) >= 3
    assert all(bounds[number][1] <= bounds[number + 1][0] for number in range(len(bounds) - 1))
    assert len(lake.coordinates()) == 10_000


def test_a_head_without_a_seam_is_refused(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    table = lake.tables.load("trades")
    head = table.current_snapshot()
    head.summary.additional_properties.pop(SUMMARY_KEY)

    with pytest.raises(SeamError):
        replacing.carried_seam(table, head)


def test_the_files_of_dead_letters_are_merged_too(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 0)
    writer = DeadLetterWriter(lake.tables, lake.settings, lake.clock)
    for offset in range(5):
        writer.append(dead_letter(offset))

    (done,) = compact(lake, "dead_letters")

    assert (done.problem, len(files_of(lake, "dead_letters"))) == ("", 1)
    assert lake.tables.load("dead_letters").scan().to_arrow()["log_offset"].to_pylist() == list(range(5))
    assert writer.append(dead_letter(3)) == 0


def dead_letter(offset: int) -> pl.DataFrame:
    known = {"topic_id": "topic-1", "log_partition": 0, "log_offset": offset, "event": "written"}
    filler = {pl.String: "x", pl.Binary: b"x"}
    schema = polars_schema(DEAD_LETTERS)
    values = {name: known.get(name, filler.get(kind.base_type(), 0)) for name, kind in schema.items()}
    return pl.DataFrame([values]).select(pl.col(name).cast(kind) for name, kind in schema.items())


def test_a_catalog_that_is_down_is_a_problem_of_that_job_alone(tmp_path: Path) -> None:
    lake = lake_with(tmp_path, 6)
    lake.catalog.faults.extend([Fault.FAIL_BEFORE_SWAP] * 3)

    (done,) = compact(lake, commit_attempts_max=3)

    assert "no success" in done.problem
    assert Seam.from_json(summary_of(lake)[SUMMARY_KEY]).commit_sequence == 7
