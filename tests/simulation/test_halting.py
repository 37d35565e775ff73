"""Whatever is halted, deferred by levels, crashes and fails: once all is released and written, nothing shows of it.

Invariants, checked after quiescence, of every partition:
  1. the ledger of gaps is what a sorted set of the numbers says, each gap once, as it is without halting;
  2. every message is a row or a duplicate, in the order of the log, and nothing is deferred;
and after every step: the deferred lists fit the counters.
"""

from __future__ import annotations

from collections import Counter

import pytest

from k2.common import crash_points
from k2.common.degradation import DegradationLevel
from k2.testing.simulated_halting import SimulatedHalting
from k2.testing.simulated_ingest import TOPICS, crash_at

MESSAGES = 400


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedHalting(request.param, messages=MESSAGES)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


@pytest.mark.parametrize("world", range(3), indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_once_all_is_released_nothing_shows_of_what_was_halted(world, workers):
    references, injected = world.produce()

    world.live(workers)
    world.ladder.level = DegradationLevel.NORMAL
    world.settle(steps_max=400 + MESSAGES)
    world.fall_quiet()

    for partition, reference in enumerate(references):
        assert world.found(partition) == Counter(reference.events)
    for table in world.tables.tables.values():
        counts = table.head.seam.totals()
        assert (counts.deferred, counts.lost, counts.unaccounted) == (0, 0, 0)
    trades = world.tables.tables[next(iter(TOPICS.values()))].head.seam.totals()
    assert trades.rows == 2 * MESSAGES - injected["duplicate"] or trades.rows + trades.duplicates == trades.consumed
    assert world.dropped == injected["duplicate"]
    assert world.halted
