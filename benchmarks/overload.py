"""Overload: simulated traces against the ladder and against fixed lag thresholds; what checks, batches, ingest cost.

The traces have no clock and come out the same everywhere. Costs are CPU time, the least of some rounds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import timeit
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time
from typing import TYPE_CHECKING

from benchmarks.report import Figure
from benchmarks.services import fill, services
from k2.common.circuit_breaker import CircuitBreaker
from k2.common.degradation import DegradationLevel, Load
from k2.common.load_shedder import LoadShedder, TieredPriorities
from k2.schemas.tier_maps import TierMap
from k2.testing.overload_traces import TRACES
from k2.testing.simulated_overload import fixed_lag_settings, run_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.testing.simulated_overload import Outcome

SYMBOLS = tuple(f"S{number:03}" for number in range(500))
KEYS = 20_000
CHECKS = 20_000
GOAL_INGEST = 0.98
NEVER_OVERLOADED = {
    f"K2_DEGRADATION__THRESHOLDS__{name}_{measure}": str(number * 10**12)
    for number, name in enumerate(("SOFT", "GRACEFUL", "AGGRESSIVE", "CIRCUIT_BREAK"), start=1)
    for measure in ("LAG_RECORDS", "DRAIN_SECONDS")
}
DRAIN_GOALS = ("10x spike", "hot partition", "sink collapse")


def measure(*, quick: bool) -> list[Figure]:
    """Play the traces, which need no clock, then time a check and a batch; the best of several rounds counts."""
    figures = []
    for trace in TRACES:
        figures += _figures(trace.name, run_trace(trace), aimed=True)
        fixed = run_trace(trace, fixed_lag_only=True, settings=fixed_lag_settings())
        figures += _figures(f"{trace.name}, fixed lag", fixed, aimed=False)
    rounds = 3 if quick else 20
    return [*figures, *_checks(rounds), *_batches(rounds), *_ingest_figures(quick=quick)]


def _figures(name: str, outcome: Outcome, *, aimed: bool) -> list[Figure]:
    drain, normal = outcome.worst_drain_seconds, outcome.normal_after_seconds
    drain_goal = aimed and name in DRAIN_GOALS
    return [
        Figure(f"{name}: worst drain", drain, "s", "<= 5" if drain_goal else "", drain <= 5 if drain_goal else None),
        Figure(f"{name}: worst tier-1 delay", outcome.worst_first_tier_seconds, "s"),
        Figure(f"{name}: deferred", 100 * outcome.deferred_ratio, "%"),
        Figure(f"{name}: level changes", outcome.level_changes, "changes"),
        Figure(f"{name}: NORMAL after", normal, "s", "<= 60" if aimed else "", normal <= 60 if aimed else None),
        Figure(f"{name}: backfilled after", outcome.backfilled_after_seconds, "s"),
        Figure(f"{name}: worst memory", outcome.worst_memory_percent, "%"),
    ]


def _checks(rounds: int) -> list[Figure]:
    """Time checks that change nothing: at NORMAL, and at the top level under a load that stays."""
    breaker = CircuitBreaker()
    below = Load(9e6, 20.0, 0.1)
    figures = [_check_figure("one check at NORMAL", rounds, lambda: breaker.check_and_degrade(10, 20.0))]
    breaker.check_and_degrade(5e6)
    figures.append(
        _check_figure(
            "one check at CIRCUIT_BREAK", rounds, lambda: breaker.check_and_degrade(5e6, 20.0, drain_seconds=0.1)
        )
    )
    figures.append(
        _check_figure(
            "one check, with the load one level lower", rounds, lambda: breaker.check_and_degrade(10, 20.0, below=below)
        )
    )
    return figures


def _check_figure(name: str, rounds: int, check: Callable[[], object]) -> Figure:
    microseconds = 1e6 * min(timeit.repeat(check, number=CHECKS, repeat=rounds, timer=process_time)) / CHECKS
    return Figure(name, microseconds, "µs", "< 2", met=microseconds < 2)


def _batches(rounds: int) -> list[Figure]:
    shedder = LoadShedder(TieredPriorities(SYMBOLS[:20], SYMBOLS[20:100]))
    few = [bytes(SYMBOLS[number * 7919 % 500], "utf-8") for number in range(KEYS)]
    many = [f"K{number}".encode() for number in range(KEYS)]
    figures = []
    for name, keys, goal in (("500 symbols", few, True), ("20,000 symbols", many, False)):
        divide = partial(shedder.divide, keys, DegradationLevel.AGGRESSIVE)
        milliseconds = 1e3 * min(timeit.repeat(divide, number=20, repeat=rounds, timer=process_time)) / 20
        figures.append(
            Figure(
                f"20,000 keys of {name} sorted into keep and defer",
                milliseconds,
                "ms",
                "< 2" if goal else "",
                milliseconds < 2 if goal else None,
            )
        )
    return figures


def _ingest_figures(*, quick: bool) -> list[Figure]:
    """Ingest one topic with the ladder at NORMAL and without it, in turns; CPU time of the whole process counts."""
    records, rounds = (500_000, 2) if quick else (2_000_000, 5)
    with services() as settings:
        topic = fill(settings, records)
        tiers = settings.data_dir / "tiers.json"
        tiers.write_text(TierMap.of(SYMBOLS[:20], SYMBOLS[20:100]).to_json())
        _ingest_seconds(settings.data_dir, topic, "warm-up", tiers)
        pairs = []
        for number in range(rounds):
            without = _ingest_seconds(settings.data_dir, topic, f"without-{number}", tiers)
            pairs.append((without, _ingest_seconds(settings.data_dir, topic, f"with-{number}", tiers)))
    ratio = median(without / laddered for without, laddered in pairs)
    seconds = median(laddered for _, laddered in pairs) * 1e6 / records
    return [
        Figure("ingest with the ladder: CPU time a million records, median", seconds, "s"),
        Figure(
            "ingest with the ladder at NORMAL / without it, by CPU time, median of rounds", ratio, "ratio",
            f"at least {GOAL_INGEST}", ratio >= GOAL_INGEST,
        ),
    ]  # fmt: skip


def _ingest_seconds(data_dir: Path, topic: str, name: str, tiers: Path) -> float:
    """Return the CPU time of a worker that ingests the topic into tables of its own."""
    place = data_dir / name
    place.mkdir()
    tables = {"K2_CATALOG__URI": f"sqlite:///{place}/catalog.db", "K2_CATALOG__WAREHOUSE": place.as_uri()}
    environment = {
        **os.environ, **NEVER_OVERLOADED, **tables, "K2_DATA_DIR": str(data_dir), "POLARS_MAX_THREADS": "2",
        "K2_DEGRADATION__TIERS_FILE": str(tiers),
    }  # fmt: skip
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.overload", name.partition("-")[0], topic],
        env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        raise RuntimeError(ended.stderr)
    return float(ended.stdout.split()[-1])


def _ingest(kind: str, topic: str) -> float:
    """Return the CPU time from the worker's start to its end."""
    from k2 import bootstrap  # noqa: PLC0415
    from k2.bootstrap import overload  # noqa: PLC0415
    from k2.ingestion.memory import prepare_process  # noqa: PLC0415
    from k2.ingestion.overload.parts import OverloadParts  # noqa: PLC0415
    from k2.settings import load_settings  # noqa: PLC0415

    settings = load_settings()
    if kind == "without":
        overload.overload_parts = lambda *_arguments, **_named: OverloadParts()
    worker = bootstrap.ingest_worker(settings, observer=lambda _event: None)
    prepare_process()
    ends = {key: found.end for key, found in bootstrap.log_admin(settings).ranges(topic).items()}
    began = process_time()
    if not worker.run_until(ends, timeout_seconds=300):
        raise RuntimeError("the topic was not ingested within 300 s")
    return process_time() - began


if __name__ == "__main__":
    print(_ingest(sys.argv[1], sys.argv[2]))
