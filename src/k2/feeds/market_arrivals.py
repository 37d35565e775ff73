"""When things happen in the simulated market: a self-exciting (Hawkes) process, made as a Poisson cluster process.

Immigrants arrive at a constant rate. Each event has a Poisson number of children, on average `BRANCHING`, each after
an exponential delay, in the same symbol; children have children. So the mean rate is immigrants / (1 - BRANCHING),
and events come in bursts. Source: A. G. Hawkes and D. Oakes, "A cluster process representation of a self-exciting
process", Journal of Applied Probability 11 (1974).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from numpy.typing import NDArray

BRANCHING: Final = 0.5
DECAY_NS: Final = 50_000_000
ZIPF_EXPONENT: Final = 1.1


@dataclass(frozen=True)
class Arrivals:
    """Events in the order of time: when (nanoseconds since the run's start) and in which symbol (an index)."""

    time_ns: NDArray[np.int64]
    symbol: NDArray[np.int64]


def activity_of(symbols: int) -> NDArray[np.float64]:
    """Return each symbol's share of the events: Zipf, so the first few make up most of them."""
    weights = np.arange(1, symbols + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    return np.asarray(weights / weights.sum())


class ArrivalProcess:
    """Draws the arrivals slice by slice; children that fall behind a slice wait for theirs."""

    def __init__(self, random: np.random.Generator, *, events_per_second: float, symbols: int) -> None:
        self._random = random
        self._immigrants_per_second = events_per_second * (1 - BRANCHING)
        self._cumulative = np.cumsum(activity_of(symbols))
        self._waiting = Arrivals(np.empty(0, np.int64), np.empty(0, np.int64))

    def between(self, start_ns: int, end_ns: int) -> Arrivals:
        """Return the events of [start_ns, end_ns), which must follow on the slice before."""
        parents = self._immigrants(start_ns, end_ns)
        families = [self._waiting, parents]
        while len(parents.time_ns):
            parents = self._children(parents)
            families.append(parents)
        time_ns = np.concatenate([family.time_ns for family in families])
        symbol = np.concatenate([family.symbol for family in families])
        order = np.argsort(time_ns, kind="stable")
        time_ns, symbol = time_ns[order], symbol[order]
        due = int(np.searchsorted(time_ns, end_ns))
        self._waiting = Arrivals(time_ns[due:], symbol[due:])
        return Arrivals(time_ns[:due], symbol[:due])

    def _immigrants(self, start_ns: int, end_ns: int) -> Arrivals:
        expected = self._immigrants_per_second * (end_ns - start_ns) / NS_PER_SECOND
        count = int(self._random.poisson(expected))
        time_ns = self._random.integers(start_ns, end_ns, size=count, dtype=np.int64)
        last = len(self._cumulative) - 1
        symbol = np.minimum(np.searchsorted(self._cumulative, self._random.random(count), side="right"), last)
        return Arrivals(time_ns, symbol.astype(np.int64))

    def _children(self, parents: Arrivals) -> Arrivals:
        counts = self._random.poisson(BRANCHING, size=len(parents.time_ns))
        delays = self._random.exponential(DECAY_NS, size=int(counts.sum())).astype(np.int64)
        return Arrivals(np.repeat(parents.time_ns, counts) + delays, np.repeat(parents.symbol, counts))
