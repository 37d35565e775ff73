"""Whatever is cancelled or corrected, whenever it comes and is committed: an answer equals a plain replay."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.simulated_amendments import SimulatedAmendments
from k2.testing.simulated_questions import STEPS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_as_now_or_as_then_known_equals_a_plain_replay_of_the_log(seed: int, tmp_path: Path) -> None:
    run = SimulatedAmendments(seed, tmp_path)

    for _ in range(STEPS):
        run.step()
    run.ask()
    run.hybrid.close()

    assert all(run.counted.values()), f"each kind occurs: {run.counted}"
    assert run.as_then_known > 0
