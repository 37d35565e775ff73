"""Whoever writes rows again, or counts them for good, first sees that the whole file is what was written.

The bit that flips here is in the footer, where it says who wrote the file: no page's checksum covers it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import CorruptionError
from k2.storage.file_checks import FileChecks
from k2.storage.planning import Planner
from k2.storage.seam import LogPartition
from k2.storage.seam_moves import SeamMover
from k2.storage.settings import UpkeepSettings
from k2.storage.stored_rows import StoredRows
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.retention import Retention
from k2.testing.damage import flip_in
from k2.testing.local_lake import LocalLake
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import START_NS, market_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

HOUR_NS = 3_600_000_000_000
KEY = LogPartition(0, 0)


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[LocalLake]:
    """Three files of ten rows each, on one day."""
    lake = LocalLake(tmp_path, ManualClock(START_NS + 1_000 * HOUR_NS)).create()
    for number in range(3):
        lake.commit(f"b{number}", number * 10, number * 10 + 10)
    yield lake
    lake.close()


def files_of(lake: LocalLake) -> list[Path]:
    tasks = lake.tables.load("trades").scan().plan_files()
    return [Path(task.file.file_path.removeprefix("file://")) for task in tasks]


def damage(path: Path) -> Path:
    flip_in(path, b"parquet-cpp")
    return path


def test_compaction_names_the_file_and_replaces_nothing(lake: LocalLake, tmp_path: Path) -> None:
    damaged = damage(files_of(lake)[1])
    settings = UpkeepSettings(quiet_minutes=0, merge_files_min=2)

    (done,) = Compactor(lake.tables, lake.settings, settings, lake.clock, scratch_dir=tmp_path / "s").run("trades")

    assert f"{damaged.name} is damaged: expected CRC32" in done.problem
    assert len(files_of(lake)) == 3


def test_retention_does_not_count_what_a_damaged_file_says(lake: LocalLake) -> None:
    damaged = damage(files_of(lake)[1])
    retention = Retention(lake.tables, lake.settings, lake.clock)
    days = retention.plan("trades", older_than_days=1)

    with pytest.raises(CorruptionError, match=damaged.name):
        retention.drop("trades", days)

    assert len(files_of(lake)) == 3


def test_a_move_of_a_seam_does_not_go_by_a_damaged_file(lake: LocalLake) -> None:
    damaged = damage(files_of(lake)[1])

    with pytest.raises(CorruptionError, match=damaged.name):
        SeamMover(lake.tables, lake.settings, lake.clock).row_offsets("trades", KEY, 5)


def test_a_batch_that_waited_is_not_copied_from_a_damaged_file(lake: LocalLake) -> None:
    batch = lake.batch("b3", 30, 40)
    damaged = damage(Path(batch.files[0].path.removeprefix("file://")))
    lake.clock.advance(24 * 3_600)

    with pytest.raises(CorruptionError, match=damaged.name):
        lake.writer().commit(batch)

    assert len(lake.coordinates()) == 30


def test_no_duplicate_is_decided_by_a_damaged_file(lake: LocalLake) -> None:
    damaged = damage(files_of(lake)[1])
    planner = Planner(lake.tables, lake.settings)
    stored = StoredRows(planner, lake.tables, "trades", FileChecks(check_contents=True, files_max=10))

    with pytest.raises(CorruptionError, match=damaged.name):
        stored.between(stored.pin(), KEY, market_rows(range(10, 20)), ["symbol", "log_offset"])
