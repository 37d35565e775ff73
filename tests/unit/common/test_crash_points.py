"""A crash point ends the process at the hit that it was armed for, and only then."""

from __future__ import annotations

import subprocess
import sys

import pytest

from k2.common import crash_points

PROGRAM = """
from k2.common import crash_points
crash_points.arm_from({armed!r})
for number in range(5):
    crash_points.reached("before_commit")
    print(number, flush=True)
"""


def run(armed: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM.format(armed=armed)], capture_output=True, text=True, check=False
    )


def test_the_process_ends_at_the_armed_hit() -> None:
    ended = run("before_commit:3")

    assert ended.returncode == crash_points.EXIT_CODE
    assert ended.stdout.split() == ["0", "1"]


def test_points_that_are_not_armed_do_nothing() -> None:
    assert run("after_poll:1").returncode == 0
    assert run("").returncode == 0


@pytest.mark.parametrize("text", ["no_such_point", "before_commit:0"])
def test_an_impossible_point_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown|hits"):
        crash_points.arm_from(text)
