"""Whatever crashes, rebalances and fails: the ledger of gaps is what a sorted set of the numbers says, each gap once.

`python -m benchmarks gaps` does the same for long enough to inject 100,000 faults.
"""

from __future__ import annotations

from collections import Counter

import pytest

from k2.common import crash_points
from k2.ingestion import events
from k2.testing.simulated_gaps import FILLED, KINDS, LOST, OPENED, SimulatedGapLedger
from k2.testing.simulated_ingest import crash_at

MESSAGES = 800


@pytest.fixture
def world(request, monkeypatch):
    simulated = SimulatedGapLedger(request.param, messages=MESSAGES)
    monkeypatch.setattr(crash_points, "reached", crash_at(simulated))
    print(f"seed {request.param}")  # noqa: T201 shown when the test fails
    return simulated


def watched(world: SimulatedGapLedger) -> list[events.SequencesWatched]:
    return [event for worker in world.workers for event in worker.events if isinstance(event, events.SequencesWatched)]


@pytest.mark.parametrize("world", range(4), indirect=True)
@pytest.mark.parametrize("workers", [1, 2])
def test_the_ledger_is_what_a_sorted_set_says_whatever_happens(world, workers):
    references, injected = world.produce()

    world.live(workers)
    world.settle(steps_max=400 + MESSAGES // 10)
    world.fall_quiet()

    total = Counter()
    for partition, reference in enumerate(references):
        ledger = world.found(partition)
        total.update(event for event, *_ in ledger)
        assert ledger == Counter(reference.events)
    assert world.dropped == injected["duplicate"]
    assert not any(event.messages.get("duplicate") for event in watched(world))
    assert min(injected[kind] for kind in KINDS) > 0
    assert min(total[kind] for kind in (OPENED, FILLED, LOST)) > 0
