"""A simulated ingest worker under overload: the real ladder and meter, records as amounts, time in steps, no clock.

Assumed: four partitions, each served at up to 25,000 records a second, and at 30 % of that before anything happens; of
the records 20 % are CRITICAL, 20 % HIGH, 30 % NORMAL, 30 % LOW; leaving a record out costs a twentieth of writing it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from k2.common.circuit_breaker import CircuitBreaker
from k2.common.degradation import DEFERRED_FROM, DegradationLevel, Load
from k2.common.drain_time import DrainMeter, Progress
from k2.common.settings import DegradationSettings, DegradationThresholds
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from k2.testing.overload_traces import Trace

PARTITIONS: Final = 4
CAPACITY: Final = 25_000.0
BASE_LOAD: Final = 0.3
SHARES: Final = (0.2, 0.2, 0.3, 0.3)
SKIP_COST: Final = 0.05
TICK_SECONDS: Final = 0.25
CHECK_TICKS: Final = 2
MEMORY_BASE: Final = 40.0
BUFFERS_MAX: Final = 20.0
BUFFERS_PER_SECOND: Final = 2.0
_LITTLE: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trace did to a ladder; times in seconds."""

    worst_drain_seconds: float
    worst_first_tier_seconds: float
    deferred_ratio: float
    level_changes: int
    highest_level: DegradationLevel
    normal_after_seconds: float
    """From the end of the cause until the level was NORMAL for good; infinite if it never was."""
    backfilled_after_seconds: float
    """From the end of the cause until all that was deferred had been written; infinite if it never was."""
    worst_memory_percent: float
    unaccounted: float
    first_tier_deferred: float


@dataclass(slots=True)
class _Arrived:
    """What arrived in one step, by priority."""

    at: float
    records: list[float]


@dataclass(slots=True)
class _Partition:
    log: deque[_Arrived] = field(default_factory=deque)
    waiting: list[float] = field(default_factory=lambda: [0.0] * len(SHARES))
    """What the log holds, by priority."""
    deferred: deque[_Arrived] = field(default_factory=deque)
    deferred_from: int = DEFERRED_FROM[DegradationLevel.NORMAL]
    """What the list holds back; as good as nothing while it is empty."""
    arrived: float = 0.0
    read: float = 0.0
    taken: list[float] = field(default_factory=lambda: [0.0] * len(SHARES))
    written: float = 0.0
    backfilled: float = 0.0
    ever_deferred: list[float] = field(default_factory=lambda: [0.0] * len(SHARES))

    def in_force(self, level: DegradationLevel) -> int:
        return min(DEFERRED_FROM[level], self.deferred_from) if self.deferred else DEFERRED_FROM[level]

    def arrive(self, at: float, records: float) -> None:
        parts = [share * records for share in SHARES]
        self.log.append(_Arrived(at, parts))
        self.waiting = [before + part for before, part in zip(self.waiting, parts, strict=True)]
        self.arrived += records

    def work_seconds(self, level: DegradationLevel, capacity: float) -> float:
        """Return how long what waits in the log takes at a level."""
        return _cost(self.waiting, self.in_force(level), capacity)

    def serve(self, level: DegradationLevel, capacity: float) -> float:
        """Go on for one step; return the seconds of it that are left."""
        left, limit = TICK_SECONDS, self.in_force(level)
        while self.log and left > _LITTLE:
            first = self.log[0]
            cost = _cost(first.records, limit, capacity)
            share = 1.0 if cost <= left else left / cost
            left -= share * cost
            done = [share * amount for amount in first.records]
            first.records = [amount - part for amount, part in zip(first.records, done, strict=True)]
            self._take(first.at, done, limit)
            if share == 1.0:
                self.log.popleft()
        return max(left, 0.0)

    def _take(self, at: float, done: list[float], limit: int) -> None:
        self.waiting = [max(0.0, before - part) for before, part in zip(self.waiting, done, strict=True)]
        self.read += sum(done)
        self.written += sum(done[:limit])
        self.taken = [before + part for before, part in zip(self.taken, done, strict=True)]
        if sum(done[limit:]) > _LITTLE:
            held = [0.0] * limit + done[limit:]
            self.ever_deferred = [before + part for before, part in zip(self.ever_deferred, held, strict=True)]
            self.deferred_from = limit
            self.deferred.append(_Arrived(at, held))

    def backfill(self, seconds: float, capacity: float) -> None:
        """Write deferred records with the time that is left of a step, first ones first."""
        room = seconds * capacity
        while self.deferred and room > _LITTLE:
            first = self.deferred[0]
            total = sum(first.records)
            share = 1.0 if total <= room else room / total
            first.records = [amount * (1 - share) for amount in first.records]
            self.backfilled += share * total
            room -= share * total
            if share == 1.0:
                self.deferred.popleft()

    def first_tier_age(self, now: float) -> float:
        return next((now - each.at for each in self.log if each.records[0] > _LITTLE), 0.0)

    def progress(self) -> Progress:
        return Progress(
            log_end=round(self.arrived),
            position=round(self.read),
            taken=[round(amount) for amount in self.taken],
            waiting=0,
            served=round(self.written),
        )


def run_trace(trace: Trace, *, fixed_lag_only: bool = False, settings: DegradationSettings | None = None) -> Outcome:
    """Play a trace against the ladder, or against one that knows of lag and of nothing else."""
    return _Run(trace, fixed_lag_only=fixed_lag_only, settings=settings or DegradationSettings()).outcome()


class _Run:
    def __init__(self, trace: Trace, *, fixed_lag_only: bool, settings: DegradationSettings) -> None:
        self._trace = trace
        self._fixed_lag_only = fixed_lag_only
        self._clock = ManualClock()
        self._breaker = CircuitBreaker(settings.thresholds, settings=settings, clock=self._clock)
        self._meter = DrainMeter(
            rate_seconds=settings.rate_seconds,
            look_ahead_seconds=settings.look_ahead_seconds,
            service_doubling_seconds=settings.service_doubling_seconds,
        )
        self._partitions = [_Partition() for _ in range(PARTITIONS)]
        self._buffers = 0.0
        self._worst_drain = self._worst_age = self._worst_memory = 0.0
        self._not_normal_at = self._not_filled_at = 0.0
        self._highest = DegradationLevel.NORMAL

    def outcome(self) -> Outcome:
        steps = round(self._trace.seconds / TICK_SECONDS)
        for step in range(steps):
            self._step(step, step * TICK_SECONDS)
        arrived = sum(each.arrived for each in self._partitions)
        deferred = [sum(each.ever_deferred[number] for each in self._partitions) for number in range(len(SHARES))]
        accounted = sum(
            each.written
            + each.backfilled
            + sum(sum(part.records) for part in each.deferred)
            + sum(sum(part.records) for part in each.log)
            for each in self._partitions
        )
        return Outcome(
            worst_drain_seconds=self._worst_drain,
            worst_first_tier_seconds=self._worst_age,
            deferred_ratio=sum(deferred) / arrived,
            level_changes=len(self._breaker.history),
            highest_level=self._highest,
            normal_after_seconds=self._since_the_end(self._not_normal_at),
            backfilled_after_seconds=self._since_the_end(self._not_filled_at),
            worst_memory_percent=self._worst_memory,
            unaccounted=arrived - accounted,
            first_tier_deferred=deferred[0],
        )

    def _since_the_end(self, last: float) -> float:
        if last >= self._trace.seconds - 2 * TICK_SECONDS:
            return math.inf
        return max(0.0, last - self._trace.ends_at)

    def _step(self, step: int, now: float) -> None:
        level = self._breaker.level
        capacity = CAPACITY * self._trace.service(now)
        for number, each in enumerate(self._partitions):
            each.arrive(now, BASE_LOAD * CAPACITY * self._trace.load(now, number) * TICK_SECONDS)
            left = each.serve(level, capacity)
            if level <= DegradationLevel.SOFT:
                each.backfill(left, capacity)
        self._clock.advance(TICK_SECONDS)
        memory = self._memory_after(now)
        if step % CHECK_TICKS == 0:
            self._check(now, memory)
        self._note(now, capacity, memory)

    def _memory_after(self, now: float) -> float:
        grown = self._buffers + BUFFERS_PER_SECOND * TICK_SECONDS
        self._buffers = 0.0 if self._breaker.should_spill_to_disk() else min(BUFFERS_MAX, grown)
        return MEMORY_BASE + self._buffers + self._trace.leaked_percent(now)

    def _check(self, now: float, memory: float) -> None:
        level = self._breaker.level
        for number, each in enumerate(self._partitions):
            self._meter.observe(number, each.progress(), at=now)
        if self._fixed_lag_only:
            self._breaker.check_and_degrade(self._meter.load(DegradationLevel.NORMAL).lag_records, 0)
            return
        load = self._meter.load(level)
        below = None
        if level is not DegradationLevel.NORMAL:
            lower = self._meter.load(DegradationLevel(level - 1))
            below = Load(lower.lag_records, memory, lower.drain_seconds)
        self._breaker.check_and_degrade(load.lag_records, memory, drain_seconds=load.drain_seconds, below=below)

    def _note(self, now: float, capacity: float, memory: float) -> None:
        level = self._breaker.level
        self._highest = max(self._highest, level)
        for each in self._partitions:
            self._worst_drain = max(self._worst_drain, each.work_seconds(level, capacity))
            self._worst_age = max(self._worst_age, each.first_tier_age(now))
        self._worst_memory = max(self._worst_memory, memory)
        if level is not DegradationLevel.NORMAL:
            self._not_normal_at = now
        if any(each.deferred for each in self._partitions):
            self._not_filled_at = now


def _cost(records: list[float], limit: int, capacity: float) -> float:
    return sum(records[:limit]) / capacity + SKIP_COST * sum(records[limit:]) / CAPACITY


def fixed_lag_settings() -> DegradationSettings:
    """Return settings of which the lag's thresholds alone ever count."""
    return DegradationSettings(
        thresholds=DegradationThresholds(
            soft_drain_seconds=1e9,
            graceful_drain_seconds=2e9,
            aggressive_drain_seconds=3e9,
            circuit_break_drain_seconds=4e9,
        )
    )
