"""Runs the scenarios one after the other on one platform, and asks the oracle after each."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from k2.testing.faults.oracle import Verdict
from k2.testing.faults.processes.arena import Arena
from k2.testing.faults.processes.inspection import judge_tables
from k2.testing.faults.processes.scenarios import SCENARIOS
from k2.testing.faults.simulation import RunResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from k2.testing.faults.processes.scenarios import Scenario

SECONDS_MAX: Final = 7_200.0
_REFUSED: Final = "14"
"""Scenarios of this number end with a refusal: nothing is to be ingested after it."""


def run_real(
    directory: Path,
    seed: int,
    runs: int,
    *,
    scenarios: Sequence[Scenario] = SCENARIOS,
    seconds_max: float = SECONDS_MAX,
    observe: Callable[[RunResult], None] = lambda _: None,
) -> list[RunResult]:
    """Run `runs` scenarios in turn, in an order drawn from the seed; each run has a seed of its own.

    No run begins after `seconds_max`.
    """
    results = []
    with Arena(directory).open() as arena:
        deadline = arena.clock.monotonic() + seconds_max
        for number, scenario in enumerate(_schedule(seed, runs, scenarios)):
            if arena.clock.monotonic() > deadline:
                break
            results.append(run_scenario(arena, scenario, number, seed + number))
            observe(results[-1])
    return results


def run_scenario(arena: Arena, scenario: Scenario, number: int, seed: int) -> RunResult:
    """Run one scenario and ask the oracle; what goes wrong is a complaint, and the campaign goes on."""
    with arena.run(number, seed, broken=scenario.broken, small_disk=scenario.small_disk, feeder=scenario.feeder) as run:
        stale = 0
        run.feeder.start()
        try:
            scenario.inject(run)
            if scenario.numbers != _REFUSED:
                run.quiesce()
            verdict, stale = judge_tables(run.tables, run.feeder, run.complaints)
        except Exception as error:  # noqa: BLE001 - the loop's edge: a run that fails, for whatever reason, is a failed run
            text = f"{type(error).__name__}: {error}"
            verdict = Verdict(run.feeder.acknowledged, 0, 0, 0, 0, 0, (*run.complaints, text))
        return RunResult(
            scenario.name, seed, run.injected, verdict, stale, run.fenced(), recovery_seconds=tuple(run.recoveries)
        )


def _schedule(seed: int, runs: int, scenarios: Sequence[Scenario]) -> Iterator[Scenario]:
    draw = random.Random(seed)  # noqa: S311 a campaign must be repeatable
    left: list[Scenario] = []
    for _ in range(runs):
        left = left or draw.sample(scenarios, len(scenarios))
        yield left.pop()
