"""Overload: simulated traces against the ladder and against fixed lag thresholds; what one check and one batch cost.

The traces have no clock and come out the same everywhere. Costs are CPU time of this process, the least of some rounds.
"""

from __future__ import annotations

import timeit
from functools import partial
from time import process_time
from typing import TYPE_CHECKING

from benchmarks.report import Figure
from k2.common.circuit_breaker import CircuitBreaker
from k2.common.degradation import DegradationLevel, Load
from k2.common.load_shedder import LoadShedder, TieredPriorities
from k2.testing.overload_traces import TRACES
from k2.testing.simulated_overload import fixed_lag_settings, run_trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.testing.simulated_overload import Outcome

SYMBOLS = tuple(f"S{number:03}" for number in range(500))
KEYS = 20_000
CHECKS = 20_000
DRAIN_GOALS = ("10x spike", "hot partition", "sink collapse")


def measure(*, quick: bool) -> list[Figure]:
    """Play the traces, which need no clock, then time a check and a batch; the best of several rounds counts."""
    figures = []
    for trace in TRACES:
        figures += _figures(trace.name, run_trace(trace), aimed=True)
        fixed = run_trace(trace, fixed_lag_only=True, settings=fixed_lag_settings())
        figures += _figures(f"{trace.name}, fixed lag", fixed, aimed=False)
    rounds = 3 if quick else 20
    return [*figures, *_checks(rounds), *_batches(rounds)]


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
