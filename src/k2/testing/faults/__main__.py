"""`python -m k2.testing.faults`: run the campaign, print its tables, write its JSON; exit 1 where a promise broke."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from k2.common import logging
from k2.common.clock import SystemClock
from k2.testing.faults import report
from k2.testing.faults.campaign import run_fuzz, run_simulations, summarize
from k2.testing.faults.processes.campaign import run_real
from k2.testing.faults.processes.scenarios import SCENARIOS

if TYPE_CHECKING:
    from k2.testing.faults.simulation import RunResult

_OUT = Console(width=180)


def main() -> int:
    """Read the arguments and run what they ask for."""
    parser = argparse.ArgumentParser(prog="python -m k2.testing.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="first seed; the same seed gives the same runs")
    parser.add_argument("--runs", type=int, default=1000, help="simulated runs")
    parser.add_argument("--fuzz", type=int, default=0, metavar="INPUTS", help="hostile messages for the decoder")
    parser.add_argument("--real-runs", type=int, default=0, help="runs on real processes")
    parser.add_argument("--minutes", type=float, default=120.0, help="no real run begins after so many minutes")
    parser.add_argument("--kind", action="append", help="only real runs of this kind; may be repeated")
    parser.add_argument("--results", type=Path, default=Path("results"), help="directory of the JSON")
    arguments = parser.parse_args()
    kept = True
    if arguments.runs:
        kept &= _simulations(arguments.seed, arguments.runs, arguments.results)
    if arguments.real_runs:
        kept &= _real(arguments.seed, arguments.real_runs, arguments)
    if arguments.fuzz:
        kept &= _fuzz(arguments.seed, arguments.fuzz, arguments.results)
    return 0 if kept else 1


def _simulations(seed: int, runs: int, directory: Path) -> bool:
    clock = SystemClock()
    began = clock.monotonic()
    results, asked = run_simulations(seed, runs, observe=lambda done: _tell(done, runs))
    seconds = clock.monotonic() - began
    summaries = summarize(results)
    answers = sum(answer.answers for answer in asked)
    differences = [answer.difference for answer in asked if answer.difference]
    report.show(f"{runs} simulated runs, seeds from {seed}, {seconds:.0f} s", summaries, _OUT)
    _OUT.print(
        f"hybrid answers: {len(asked)} runs, {answers:,} answers compared, {len(differences)} differ from the log"
    )
    _failed("hybrid answers", differences)
    hybrid = {"runs": len(asked), "answers": answers, "differences": differences}
    body = {"seed": seed, "runs": runs, "seconds": seconds, "kinds": report.as_json(summaries), "hybrid": hybrid}
    _OUT.print(f"written: {report.write(directory, 'faults-simulated', clock, body, summaries)}")
    return all(summary.holds for summary in summaries) and not differences


def _real(seed: int, runs: int, arguments: argparse.Namespace) -> bool:
    logging.configure(component="faults", level="ERROR")
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in (arguments.kind or [scenario.name])]
    clock = SystemClock()
    began = clock.monotonic()
    with tempfile.TemporaryDirectory(prefix="k2-faults-") as place:
        results = run_real(
            Path(place), seed, runs, scenarios=scenarios, seconds_max=arguments.minutes * 60, observe=_tell_run
        )
    seconds = clock.monotonic() - began
    summaries = summarize(results, {scenario.name: scenario.numbers for scenario in scenarios})
    report.show(f"{len(results)} runs on real processes, seeds from {seed}, {seconds:.0f} s", summaries, _OUT)
    body = {"seed": seed, "runs": len(results), "seconds": seconds, "kinds": report.as_json(summaries)}
    _OUT.print(f"written: {report.write(arguments.results, 'faults-real', clock, body, summaries)}")
    return all(summary.holds for summary in summaries)


def _fuzz(seed: int, inputs: int, directory: Path) -> bool:
    clock = SystemClock()
    began = clock.monotonic()
    results = run_fuzz(seed, inputs)
    seconds = clock.monotonic() - began
    given, rows = sum(result.inputs for result in results), sum(result.rows for result in results)
    bad: Counter[str] = Counter()
    for result in results:
        bad.update(result.bad)
    wrong = [text for result in results for text in result.wrong]
    slowest = max(result.slowest_seconds for result in results)
    _OUT.print(
        f"decoder: {given:,} hostile messages, seeds from {seed}, {seconds:.0f} s, slowest block {slowest:.2f} s"
    )
    _OUT.print(f"decoder: {rows:,} rows, {bad.total():,} bad records, {len(wrong)} wrong")
    _failed("decoder", wrong)
    body = {
        "seed": seed,
        "seconds": seconds,
        "inputs": given,
        "rows": rows,
        "bad": dict(bad),
        "stricter_than_fastavro": sum(result.stricter for result in results),
        "odd_branches_read": sum(result.odd_branches for result in results),
        "slowest_block_seconds": slowest,
        "wrong": wrong,
    }
    _OUT.print(f"written: {report.write(directory, 'faults-fuzz', clock, body)}")
    return not wrong


def _failed(what: str, texts: list[str]) -> None:
    for text in texts:
        _OUT.print(f"FAILED {what}, {text}", markup=False)


def _tell_run(result: RunResult) -> None:
    verdict = result.verdict
    fate = "held" if verdict.holds else "FAILED"
    _OUT.print(f"{result.kind}, seed {result.seed}: {verdict.rows:,} rows of {verdict.acknowledged:,}, {fate}")


def _tell(done: int, runs: int) -> None:
    if done % 100 == 0:
        _OUT.print(f"{done} of {runs} runs done")


if __name__ == "__main__":
    sys.exit(main())
