"""For any interleaving of appends, commits, deferrals, lag, cuts and restarts, a stream gives each row once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.simulated_streams import SimulatedStreams

if TYPE_CHECKING:
    from pathlib import Path

STEPS = 100


@pytest.mark.parametrize("seed", range(5))
def test_a_stream_gives_every_row_of_the_log_since_it_began_once(seed: int, tmp_path: Path) -> None:
    run = SimulatedStreams(seed, tmp_path)
    run.open()

    for _ in range(STEPS):
        run.step()
    run.finish()
    run.hybrid.close()

    assert run.clients
    assert sum(len(client.rows) for client in run.clients) > 0
