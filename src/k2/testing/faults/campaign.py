"""Many seeded simulations on all cores, and what they add up to by fault kind."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from k2.common import logging
from k2.common.clock import SystemClock
from k2.testing.faults.fuzzing import FuzzResult, fuzz
from k2.testing.faults.plans import PLANS, plan_named
from k2.testing.faults.simulation import RunResult, simulate
from k2.testing.simulated_questions import STEPS, SimulatedQuestions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

_CHUNK: Final = 4
FUZZ_JOB_INPUTS: Final = 20_000
FUZZ_JOB_SECONDS_MAX: Final = 300
HYBRID_SHARE: Final = 10
"""One run in so many asks the hybrid engine instead."""


@dataclass(frozen=True, slots=True)
class KindSummary:
    """All runs of one kind together."""

    kind: str
    numbers: str
    runs: int
    injected: int
    acknowledged: int
    rows: int
    dead_letters: int
    lost: int
    doubled: int
    altered: int
    stale_commits: int
    fenced: int
    recovery_seconds: tuple[float, ...]
    failures: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Say whether every run kept every promise."""
        return not (self.failures or self.lost or self.doubled or self.altered or self.stale_commits)


@dataclass(frozen=True, slots=True)
class QuestionsResult:
    """One run of hybrid questions: how many answers were compared, and the first difference, if any."""

    seed: int
    answers: int
    difference: str


def run_simulations(
    seed: int, runs: int, *, processes: int | None = None, observe: Callable[[int], None] = lambda _: None
) -> tuple[list[RunResult], list[QuestionsResult]]:
    """Run `runs` seeds from `seed` on, kinds in turn; `observe` hears how many are done."""
    questions = runs // HYBRID_SHARE
    jobs = [(PLANS[number % len(PLANS)].name, seed + number) for number in range(runs - questions)]
    with ProcessPoolExecutor(
        processes or os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=_be_quiet
    ) as pool:
        results: list[RunResult] = []
        for result in pool.map(_simulate, jobs, chunksize=_CHUNK):
            results.append(result)
            observe(len(results))
        asked = []
        for answer in pool.map(ask_questions, range(seed, seed + questions)):
            asked.append(answer)
            observe(len(results) + len(asked))
    return results, asked


def ask_questions(seed: int) -> QuestionsResult:
    """Ask the hybrid engine while a market moves, and compare each answer with a replay of the log."""
    with tempfile.TemporaryDirectory() as directory:
        run = SimulatedQuestions(seed, Path(directory))
        try:
            for _ in range(STEPS):
                run.step()
            run.ask()
        except AssertionError as error:
            return QuestionsResult(seed, run.asked, f"seed {seed}: {error or 'the answer differs from the replay'}")
        finally:
            run.hybrid.close()
    return QuestionsResult(seed, run.asked, "")


def run_fuzz(seed: int, inputs: int, *, processes: int | None = None) -> list[FuzzResult]:
    """Give the decoder `inputs` hostile messages, in seeded jobs; what the libraries print of them is thrown away."""
    jobs = max(1, -(-inputs // FUZZ_JOB_INPUTS))
    with ProcessPoolExecutor(
        processes or os.cpu_count(), mp_context=multiprocessing.get_context("spawn"), initializer=_be_mute
    ) as pool:
        return list(pool.map(_fuzz, range(seed, seed + jobs)))


def summarize(results: Iterable[RunResult], numbers: Mapping[str, str] | None = None) -> list[KindSummary]:
    """Add the runs up by kind; `numbers` gives each kind's numbers in the list of faults, in the order of the table."""
    numbers = {plan.name: plan.numbers for plan in PLANS} if numbers is None else numbers
    by_kind: dict[str, list[RunResult]] = {kind: [] for kind in numbers}
    for result in results:
        by_kind[result.kind].append(result)
    return [_summary(kind, numbers[kind], runs) for kind, runs in by_kind.items() if runs]


def _summary(kind: str, numbers: str, runs: Sequence[RunResult]) -> KindSummary:
    verdicts = [run.verdict for run in runs]
    return KindSummary(
        kind=kind,
        numbers=numbers,
        runs=len(runs),
        injected=sum(run.injected for run in runs),
        acknowledged=sum(verdict.acknowledged for verdict in verdicts),
        rows=sum(verdict.rows for verdict in verdicts),
        dead_letters=sum(verdict.dead_letters for verdict in verdicts),
        lost=sum(verdict.lost for verdict in verdicts),
        doubled=sum(verdict.doubled for verdict in verdicts),
        altered=sum(verdict.altered for verdict in verdicts),
        stale_commits=sum(run.stale_commits for run in runs),
        fenced=sum(run.fenced for run in runs),
        recovery_seconds=tuple(seconds for run in runs for seconds in run.recovery_seconds),
        failures=tuple(f"seed {run.seed}: {text}" for run in runs for text in run.verdict.complaints),
    )


def _simulate(job: tuple[str, int]) -> RunResult:
    return simulate(plan_named(job[0]), job[1])


def _fuzz(seed: int) -> FuzzResult:
    faulthandler.dump_traceback_later(FUZZ_JOB_SECONDS_MAX, exit=True)  # a hang ends the job, and with it the campaign
    try:
        return fuzz(seed, FUZZ_JOB_INPUTS, SystemClock())
    finally:
        faulthandler.cancel_dump_traceback_later()


def _be_mute() -> None:
    _be_quiet()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # Rust prints each panic that the decoder catches


def _be_quiet() -> None:
    logging.configure(component="faults", level="CRITICAL")
