"""Finds how many pieces of work may run at once: more while they take as long as without load, fewer once they wait.

The rule is that of the gradient controller in Envoy's adaptive concurrency filter (its documentation: "Adaptive
Concurrency", envoyproxy.io): gradient = (time without load + buffer) / time now, limit = gradient x limit + headroom,
headroom = square root of the limit. From Gradient2Limit of Netflix' concurrency-limits comes that nothing grows while
less than half of the limit is in use. Both keep the gradient above 0.5; with that headroom no limit would fall below 4
then, which is a lot for one machine, so here it is 0.25 (no limit below 2). Unlike in both, the time without load is
kept for each kind of work, so that a long scan does not look like a slow read; and it is taken from whatever happens to
run with few others beside it, so that the limit is only lowered for the measurement where nothing does.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.common.clock import Clock

GRADIENT_MIN: Final = 0.25
SAMPLES_MIN: Final = 10
"""Pieces of work from which a time is taken; of fewer, the window goes on."""
_SAMPLES_MAX: Final = 10_000
_MEASURING_WINDOWS_MAX: Final = 5
"""How many windows the limit stays lowered for a measurement that finds nothing."""


def gradient_of(
    times: Mapping[str, Sequence[float]], unloaded: Mapping[str, float], *, tolerance_ratio: float
) -> float:
    """Return the gradient of a window, 0.25 to 1, from seconds by kind; kinds weigh as much as they have samples.

    `unloaded` are the seconds that each kind takes without load; a time up to `tolerance_ratio` of it counts as such.
    """
    known = {kind: seconds for kind, seconds in times.items() if seconds and kind in unloaded}
    samples = sum(len(seconds) for seconds in known.values())
    if not samples:
        return 1.0
    weighed = sum(
        len(seconds) * max(GRADIENT_MIN, min(1.0, tolerance_ratio * unloaded[kind] / max(median(seconds), 1e-9)))
        for kind, seconds in known.items()
    )
    return weighed / samples


def next_limit(limit: float, gradient: float, *, least: int, most: int) -> float:
    """Return the limit after a window with this gradient."""
    return max(float(least), min(float(most), gradient * limit + math.sqrt(limit)))


class GradientLimit:
    """The limit as it is now. It is told of each piece of work once that has ended."""

    def __init__(
        self,
        *,
        least: int,
        most: int,
        window_seconds: float,
        unloaded_seconds: float,
        tolerance_ratio: float,
        clock: Clock,
    ) -> None:
        if not 1 <= least <= most:
            raise ValueError(f"expected 1 <= least <= most, found least {least} and most {most}")
        self._least = least
        self._most = most
        self._window_seconds = window_seconds
        self._unloaded_seconds = unloaded_seconds
        self._tolerance_ratio = tolerance_ratio
        self._clock = clock
        self._limit = float(max(least, most // 2))
        self._unloaded: dict[str, float] = {}
        self._alone: defaultdict[str, list[float]] = defaultdict(list)
        self._times: defaultdict[str, list[float]] = defaultdict(list)
        self._used = 0
        self._window_began = self._unloaded_at = clock.monotonic()
        self._measuring_until: float | None = None

    @property
    def limit(self) -> int:
        """Return how many may run at once now."""
        return self._least if self.is_measuring else int(self._limit)

    @property
    def is_measuring(self) -> bool:
        """Say whether the limit is lowered for now, to see how long work takes without load."""
        return self._measuring_until is not None

    @property
    def unloaded_seconds(self) -> Mapping[str, float]:
        """Return the time without load of each kind, as last measured."""
        return dict(self._unloaded)

    def ended(self, kind: str, seconds: float, *, beside: int) -> None:
        """Take in how long a piece of work took; `beside` is how many ran at most meanwhile, itself included."""
        now = self._clock.monotonic()
        self._used = max(self._used, beside)
        if beside <= self._least:
            self._learn(kind, seconds, now)
        if len(self._times[kind]) < _SAMPLES_MAX:
            self._times[kind].append(seconds)
        if now - self._window_began >= self._window_seconds:
            self._close_window(now)

    def _learn(self, kind: str, seconds: float, now: float) -> None:
        alone = self._alone[kind]
        alone.append(seconds)
        if len(alone) >= SAMPLES_MIN:
            self._unloaded[kind] = median(alone)
            alone.clear()
            self._unloaded_at = now
            self._measuring_until = None

    def _close_window(self, now: float) -> None:
        if self._measuring_until is not None:
            if now < self._measuring_until:
                return
            self._measuring_until, self._unloaded_at = None, now  # nothing ran alone: try again later
        elif sum(map(len, self._times.values())) < SAMPLES_MIN:
            return
        elif 2 * self._used >= self._limit:
            gradient = gradient_of(self._times, self._unloaded, tolerance_ratio=self._tolerance_ratio)
            self._limit = next_limit(self._limit, gradient, least=self._least, most=self._most)
        if now - self._unloaded_at >= self._unloaded_seconds:
            self._measuring_until = now + _MEASURING_WINDOWS_MAX * self._window_seconds
        self._window_began = now
        self._used = 0
        self._times.clear()
