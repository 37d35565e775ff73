"""How long what waits will take, per partition, from the measured rates at which records arrive and are served."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from k2.common.degradation import DEFERRED_FROM, DegradationLevel, Load, Priority

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

_PRIORITIES: Final = len(Priority)


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one partition is. The numbers only grow, but for `waiting`.

    `log_end` is the first offset that the log does not hold, `position` the first that was not read; `taken` counts
    the records read so far by their priority; `waiting` of them are neither served nor deferred yet, `served` are done.
    """

    log_end: int
    position: int
    taken: Sequence[int]
    waiting: int
    served: int


@dataclass(slots=True)
class _Stall:
    """A time in which nothing was served though records waited; `service` is the rate before it."""

    since: float
    until: float
    service: float


@dataclass(slots=True)
class _Partition:
    at: float
    seen: Progress
    since: float
    arrival: float = 0.0
    service: float = 0.0
    best_service: float = 0.0
    known: bool = False
    stall: _Stall | None = None
    taken: list[float] = field(default_factory=lambda: [0.0] * _PRIORITIES)
    """How many of each priority were taken of late; older ones count less."""

    def share_kept(self, level: DegradationLevel) -> float:
        """Estimate which share of what was not read yet a level goes on with; all of it, where nothing was read."""
        total = sum(self.taken)
        return sum(self.taken[: DEFERRED_FROM[level]]) / total if total > 0 else 1.0


class DrainMeter:
    """Measures partitions; one thread uses it. Times are monotonic seconds, passed in.

    A partition's time to drain is (what waits + what piles up within the look-ahead) / service rate, where what a level
    defers neither waits nor piles up. The service rate is learned while records wait: an idle reader shows no limit.
    While it is idle, the rate is taken to recover up to the best one measured, since a level that keeps a slow sink
    idle would otherwise never hear that the sink is fast again.

    While nothing is served, the rate falls without end, and says how long ago that was, not how fast the reader is: the
    time to drain is then at most the time that nothing was served, once more, and what waits at the rate before it.
    A look that comes late counts as one half-life, since the process may not have run for the rest.
    """

    def __init__(
        self,
        *,
        rate_seconds: float,
        look_ahead_seconds: float,
        service_doubling_seconds: float = 5.0,
        warm_up_seconds: float = 0.0,
        records_min: int = 1,
    ) -> None:
        """Begin; a partition of which nothing was served yet has no rate, for `warm_up_seconds`.

        Where fewer than `records_min` wait or are to pile up, the time to drain is 0: of a slow feed even a few that
        wait are many seconds' worth.
        """
        self._rate_seconds = rate_seconds
        self._look_ahead_seconds = look_ahead_seconds
        self._doubling_seconds = service_doubling_seconds
        self._warm_up_seconds = warm_up_seconds
        self._records_min = records_min
        self._partitions: dict[Hashable, _Partition] = {}

    def observe(self, partition: Hashable, progress: Progress, *, at: float) -> None:
        """Take in where a partition is now."""
        known = self._partitions.get(partition)
        if known is None or progress.served < known.seen.served or progress.log_end < known.seen.log_end:
            self._partitions[partition] = _Partition(at, progress, since=at)
            return
        seconds = at - known.at
        if seconds <= 0:
            return
        kept = 0.5 ** (seconds / self._rate_seconds)
        kept_of_service = max(kept, 0.5)
        arrived = (progress.log_end - known.seen.log_end) / seconds
        served = (progress.served - known.seen.served) / seconds
        starved = progress.log_end <= progress.position and progress.waiting == 0
        known.stall = self._stall(known, at, is_served=served > 0, is_starved=starved)
        if not known.known:
            known.arrival = arrived
            warm = at - known.since >= self._warm_up_seconds
            known.service, known.known = served, served > 0 or (warm and not starved)
        else:
            known.arrival += (1 - kept) * (arrived - known.arrival)
            if served > known.service or not starved:
                known.service += (1 - kept_of_service) * (served - known.service)
            else:
                known.service = min(known.best_service, known.service * 2.0 ** (seconds / self._doubling_seconds))
        known.best_service = max(known.best_service, known.service)
        for priority, before in enumerate(known.seen.taken):
            known.taken[priority] = kept * known.taken[priority] + progress.taken[priority] - before
        known.at, known.seen = at, progress

    def _stall(self, known: _Partition, at: float, *, is_served: bool, is_starved: bool) -> _Stall | None:
        """Return the stall that lasts, or has ended so shortly ago that the rate still shows it."""
        stall = known.stall
        if not is_served and not is_starved:
            if stall is None or stall.until < known.at:
                return _Stall(known.at, at, known.service)
            return _Stall(stall.since, at, stall.service)
        return stall if stall is not None and at < stall.until + self._rate_seconds else None

    def forget(self, partition: Hashable) -> None:
        """Forget a partition that is read by another process now."""
        self._partitions.pop(partition, None)

    def load(self, level: DegradationLevel, *, memory_percent: float = 0.0) -> Load:
        """Return the load as it is, or would be, at a level: the lag of all partitions, the worst time to drain."""
        lag, worst = 0.0, 0.0
        for each in self._partitions.values():
            waiting = self._waiting(each, level)
            lag += waiting
            worst = max(worst, self._drain_seconds(each, level, waiting))
        return Load(lag, memory_percent, worst)

    def drain_seconds(self, partition: Hashable, level: DegradationLevel) -> float:
        """Return the time to drain one partition at a level; 0 for one that was never observed."""
        known = self._partitions.get(partition)
        return 0.0 if known is None else self._drain_seconds(known, level, self._waiting(known, level))

    def _waiting(self, each: _Partition, level: DegradationLevel) -> float:
        unread = max(0, each.seen.log_end - each.seen.position)
        return each.seen.waiting + unread * each.share_kept(level)

    def _drain_seconds(self, each: _Partition, level: DegradationLevel, waiting: float) -> float:
        if not each.known:
            return 0.0
        piling_up = max(0.0, each.arrival * each.share_kept(level) - each.service)
        work = waiting + piling_up * self._look_ahead_seconds
        if work < self._records_min:
            return 0.0
        seconds = work / each.service if each.service > 0 else math.inf
        stall = each.stall
        if stall is None or stall.service <= 0:
            return seconds
        return min(seconds, stall.until - stall.since + work / stall.service)
