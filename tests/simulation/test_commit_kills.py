"""Real processes that commit to one table and are killed with SIGKILL, or end at every crash point of the commit."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from k2.common.crash_points import EXIT_CODE
from k2.storage.seam import LogPartition
from k2.testing.local_lake import LocalLake

if TYPE_CHECKING:
    from pathlib import Path

LOG_LENGTH = 200
WORKER = textwrap.dedent(
    """
    import json
    import sys
    from pathlib import Path
    from k2.common import crash_points
    from k2.common.errors import FencedError, UnavailableError
    from k2.storage.seam import LogPartition
    from k2.testing.local_lake import LocalLake

    directory, length, points = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    crash_points.arm_from(points)
    lake = LocalLake(directory, **json.loads(sys.argv[4]))
    key, number = LogPartition(0, 0), 0
    print("ready", flush=True)
    position = lake.tables.head("trades").seam.next_offset(key)
    while position < length:
        number += 1
        try:
            lake.commit(f"{id(lake)}-{points}-{position}-{number}", position, min(length, position + 7))
        except (FencedError, UnavailableError):
            pass
        position = lake.tables.head("trades").seam.next_offset(key)
    """
)


def worker(
    directory: Path, points: str = "", length: int = LOG_LENGTH, place: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(directory), str(length), points, json.dumps(place or {})]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> int:
    process.communicate(timeout=120)
    return process.returncode


@pytest.mark.parametrize("point", ["mid_parquet", "file_closed", "before_commit", "metadata_written", "after_commit"])
def test_a_process_that_ends_at_any_point_of_a_commit_leaves_a_table_that_goes_on(tmp_path: Path, point: str) -> None:
    lake = LocalLake(tmp_path).create()

    died = finish(worker(tmp_path, f"{point}:2", length=28))
    after_death = lake.coordinates()
    finished = finish(worker(tmp_path, length=28))

    assert (died, finished) == (EXIT_CODE, 0)
    assert len(after_death) in {7, 14}
    assert lake.coordinates() == [(0, 0, offset) for offset in range(28)]
    lake.close()


@pytest.mark.platform
def test_on_any_catalog_and_store_a_process_that_ends_in_a_commit_leaves_nothing_half_visible(
    place: dict[str, str], tmp_path: Path
) -> None:
    lake = LocalLake(tmp_path, **place).create()

    before = finish(worker(tmp_path, "before_commit:2", length=21, place=place))
    rows_before = len(lake.coordinates())
    after = finish(worker(tmp_path, "after_commit:1", length=21, place=place))
    rows_after = len(lake.coordinates())
    finished = finish(worker(tmp_path, length=21, place=place))

    assert (before, after, finished) == (EXIT_CODE, EXIT_CODE, 0)
    assert (rows_before, rows_after) == (7, 14)
    assert lake.coordinates() == [(0, 0, offset) for offset in range(21)]
    lake.close()


def test_killed_and_overlapping_processes_neither_lose_nor_double_a_row(tmp_path: Path) -> None:
    lake = LocalLake(tmp_path).create()
    processes = [worker(tmp_path) for _ in range(2)]
    kills = 0

    while kills < 3:
        victim = processes[kills % 2]
        assert victim.stdout is not None
        victim.stdout.readline()  # it has opened the table
        before = lake.tables.head("trades").seam.commit_sequence
        while lake.tables.head("trades").seam.commit_sequence < before + 2 and victim.poll() is None:
            pass
        victim.kill()
        finish(victim)
        processes[kills % 2] = worker(tmp_path)
        kills += 1

    assert [finish(process) for process in processes] == [0, 0]
    assert lake.coordinates() == [(0, 0, offset) for offset in range(LOG_LENGTH)]
    assert lake.tables.head("trades").seam.partitions[LogPartition(0, 0)].counts.rows == LOG_LENGTH
    lake.close()
