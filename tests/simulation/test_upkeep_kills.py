"""Real processes that keep a table up and end at a crash point: the next one goes on, and no row is touched."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from k2.common.crash_points import EXIT_CODE
from k2.storage.seam import Seam
from k2.testing.local_lake import LocalLake

COMMITS = 6
UPKEEP = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from k2.common import crash_points
    from k2.storage.settings import UpkeepSettings
    from k2.storage.upkeep.round import Upkeep
    from k2.testing.local_lake import LocalLake
    from k2.testing.manual_clock import ManualClock

    directory, point = Path(sys.argv[1]), sys.argv[2]
    crash_points.arm_from(point)
    lake = LocalLake(directory, ManualClock(2_000_000_000 * 10**9), snapshots_kept_min=1, snapshot_age_min_seconds=0)
    settings = UpkeepSettings(quiet_minutes=0)
    upkeep = Upkeep(lake.tables, lake.settings, settings, lake.clock, scratch_dir=directory / "scratch")
    for _ in range(2):
        assert upkeep.round(("trades",)).is_sound
        lake.clock.advance(25 * 3_600)
    """
)


def keep_up(directory: Path, point: str = "") -> int:
    command = [sys.executable, "-c", UPKEEP, str(directory), point]
    return subprocess.run(command, check=False, timeout=120, stdout=subprocess.DEVNULL).returncode


@pytest.mark.parametrize("point", ["before_replace", "after_replace", "mid_sweep:3"])
def test_upkeep_that_ends_at_any_point_leaves_a_table_that_goes_on(tmp_path: Path, point: str) -> None:
    lake = LocalLake(tmp_path).create()
    for number in range(COMMITS):
        lake.commit(f"b{number}", number * 5, number * 5 + 5)
    seam = lake.tables.head("trades").seam

    died = keep_up(tmp_path, point)
    after_death = lake.coordinates()
    finished = keep_up(tmp_path)

    table = lake.tables.load("trades")
    expected = [(0, 0, offset) for offset in range(COMMITS * 5)]
    assert (died, finished) == (EXIT_CODE, 0)
    assert after_death == lake.coordinates() == expected
    assert [Seam.from_summary(one.summary.additional_properties) for one in table.snapshots()] == [seam]
    assert len(list(table.scan().plan_files())) == 1
    assert lake.commit("next", 30, 31).rows == 1
    lake.close()
