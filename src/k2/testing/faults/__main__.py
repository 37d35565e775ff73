"""`python -m k2.testing.faults`: run the campaign, print its table, write its JSON; exit 1 where a promise broke."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from k2.common.clock import SystemClock
from k2.testing.faults import report
from k2.testing.faults.campaign import run_simulations, summarize

_OUT = Console(width=180)


def main() -> int:
    """Read the arguments and run what they ask for."""
    parser = argparse.ArgumentParser(prog="python -m k2.testing.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="first seed; the same seed gives the same runs")
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs")
    parser.add_argument("--results", type=Path, default=Path("results"), help="directory of the JSON")
    arguments = parser.parse_args()
    return 0 if _simulations(arguments.seed, arguments.runs, arguments.results) else 1


def _simulations(seed: int, runs: int, directory: Path) -> bool:
    if not runs:
        return True
    clock = SystemClock()
    began = clock.monotonic()
    results, asked = run_simulations(seed, runs, observe=lambda done: _tell(done, runs))
    seconds = clock.monotonic() - began
    summaries = summarize(results)
    differences = [answer.difference for answer in asked if answer.difference]
    answers = sum(answer.answers for answer in asked)
    report.show(f"{runs} simulated runs, seeds from {seed}, {seconds:.0f} s", summaries, _OUT)
    _OUT.print(
        f"hybrid answers: {len(asked)} runs, {answers:,} answers compared, {len(differences)} differ from the log"
    )
    for difference in differences:
        _OUT.print(f"FAILED hybrid answers, {difference}", markup=False)
    path = report.write(
        directory,
        "faults-simulated",
        clock,
        {
            "seed": seed,
            "runs": runs,
            "seconds": seconds,
            "kinds": report.as_json(summaries),
            "hybrid": {"runs": len(asked), "answers": answers, "differences": differences},
        },
    )
    _OUT.print(f"written: {path}")
    return all(summary.holds for summary in summaries) and not differences


def _tell(done: int, runs: int) -> None:
    if done % 100 == 0:
        _OUT.print(f"{done} of {runs} runs done")


if __name__ == "__main__":
    sys.exit(main())
