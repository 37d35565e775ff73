"""For any interleaving of appends, commits, deferrals, backfills, lag, restarts, an answer equals a replay of the log.

Where records are deferred, an answer has read them from the log, or lacks just those and says so.
"""

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
    assert run.removed + run.marked + run.read_while_deferred > 0
