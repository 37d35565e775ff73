"""Whatever is traded, amended, deferred and committed, whenever it is asked: bars equal those made trade by trade."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.simulated_bars import SimulatedBars
from k2.testing.simulated_questions import STEPS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("seed", [0, 2])
def test_bars_as_now_or_as_then_known_equal_a_plain_replay_of_the_log(seed: int, tmp_path: Path) -> None:
    run = SimulatedBars(seed, tmp_path)

    for _ in range(STEPS):
        run.step()
    run.ask()
    run.hybrid.close()

    assert all(run.counted.values()), f"each kind occurs: {run.counted}"
    assert run.as_then_known > 0
    assert run.tokens
