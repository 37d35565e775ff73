"""For any interleaving of appends, duplicates, commits, lag, restarts, an answer equals a plain replay of the log."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.simulated_questions import STEPS, SimulatedQuestions

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", range(15))
def test_a_hybrid_answer_equals_a_plain_replay_of_the_log(seed: int, tmp_path: Path) -> None:
    run = SimulatedQuestions(seed, tmp_path)

    for _ in range(STEPS):
        run.step()
    run.ask()
    run.hybrid.close()

    assert run.asked > 0
    assert run.removed > 0
