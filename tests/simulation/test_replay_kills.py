"""A replay that is ended at any point, and called again, stores each dead letter once, and the ledger adds up."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from k2.common.crash_points import EXIT_CODE
from k2.storage.seam import Counts
from k2.testing.replay_world import ReplayWorld, message

if TYPE_CHECKING:
    from pathlib import Path

REPLAY = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from k2.common import crash_points
    from k2.testing.replay_world import ReplayWorld

    crash_points.arm_from(sys.argv[2])
    ReplayWorld(Path(sys.argv[1])).replay()
    """
)


def replay(directory: Path, point: str = "") -> int:
    return subprocess.run([sys.executable, "-c", REPLAY, str(directory), point], check=False, timeout=60).returncode


@pytest.mark.parametrize(
    "point",
    ["mid_parquet", "before_commit", "after_commit", "metadata_written:2", "after_side_tables"],
)
def test_a_replay_that_ends_at_any_point_goes_on_when_it_is_called_again(tmp_path: Path, point: str) -> None:
    world = ReplayWorld(tmp_path).create()
    world.ingest(0, 10, bad=[3, 5])

    died = replay(tmp_path, point)
    ledger_after_death = world.counts
    finished = replay(tmp_path)

    assert (died, finished) == (EXIT_CODE, 0)
    assert ledger_after_death.unaccounted == 0
    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(10)]
    assert world.counts == Counts(consumed=10, rows=10)
    assert world.outstanding() == []
    assert world.events_of("replayed") == [3, 5]
    world.lake.close()


@pytest.mark.parametrize("point", ["before_commit", "after_commit", "metadata_written:2", "after_side_tables"])
def test_a_duplicate_is_settled_once_wherever_its_replay_ends(tmp_path: Path, point: str) -> None:
    world = ReplayWorld(tmp_path).create()
    world.ingest(0, 10, bad=[3], value=message(3))
    world.replay()
    world.ingest(10, 20, bad=[15], value=message(3))

    died = replay(tmp_path, point)
    ledger_after_death = world.counts
    finished = replay(tmp_path)

    assert (died, finished) == (EXIT_CODE, 0)
    assert ledger_after_death.unaccounted == 0
    assert world.counts == Counts(consumed=20, rows=19, duplicates=1)
    assert world.outstanding() == []
    assert world.events_of("replayed") == [3, 15]
    world.lake.close()
