"""Applying a plan that is ended at any point, and then applied again, moves the seam once, and the ledger adds up."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from k2.common.crash_points import EXIT_CODE
from k2.storage.seam import Counts
from k2.testing.local_lake import TOPIC
from k2.testing.offset_world import OffsetWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

APPLY = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from k2.common import crash_points
    from k2.ingestion.offset_plans import OffsetPlan
    from k2.testing.offset_world import OffsetWorld

    world = OffsetWorld(Path(sys.argv[1]))
    crash_points.arm_from(sys.argv[2])
    world.planner.apply(OffsetPlan.from_json(Path(sys.argv[1], "plan.json").read_text()))
    """
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OffsetWorld]:
    world = OffsetWorld(tmp_path).create()
    yield world
    world.close()


def apply(world: OffsetWorld, point: str = "") -> int:
    command = [sys.executable, "-c", APPLY, str(world.directory), point]
    return subprocess.run(command, check=False, timeout=60).returncode


@pytest.mark.parametrize(
    ("point", "landed"),
    [
        ("mid_parquet", False),
        ("before_commit", False),
        ("metadata_written", False),
        ("after_commit", True),
        ("before_replace", True),
        ("metadata_written:2", True),
        ("after_replace", True),
    ],
)
def test_a_move_back_that_ends_at_any_point_goes_on_when_it_is_applied_again(
    world: OffsetWorld, point: str, landed: bool
) -> None:
    (world.directory / "plan.json").write_text(world.planner.plan_move(TOPIC, "7", partition=0).to_json())

    died = apply(world, point)
    half_way, ledger = world.seam(), world.world.counts
    finished = apply(world)

    assert (died, finished) == (EXIT_CODE, 0)
    assert half_way == (7 if landed else 20)
    assert ledger.unaccounted == 0
    assert world.seam() == 7
    assert [offset for _, _, offset in world.world.lake.coordinates()] == [0, 1, 2, 4, 5, 6]
    assert world.world.counts == Counts(consumed=7, rows=6, dead_letters=1)
    assert world.world.events_of() == [3]
    assert world.audit().is_sound


@pytest.mark.parametrize(
    ("point", "landed"), [("before_commit", False), ("metadata_written", False), ("after_commit", True)]
)
def test_a_move_forward_gives_up_its_range_once(world: OffsetWorld, point: str, landed: bool) -> None:
    (world.directory / "plan.json").write_text(world.planner.plan_move(TOPIC, "25", partition=0).to_json())

    died = apply(world, point)
    half_way = world.seam()
    finished = apply(world)

    assert (died, finished) == (EXIT_CODE, 0)
    assert half_way == (25 if landed else 20)
    assert world.world.counts == Counts(consumed=25, rows=18, dead_letters=2, lost=5)
    report = world.audit()
    assert (report.is_sound, report.totals["given_up"]) == (True, 5)
