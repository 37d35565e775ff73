"""The five levels of degradation: which loads they begin at, and the one table of what each leaves out."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class DegradationLevel(IntEnum):
    """How much is left out; a higher level leaves out all that a lower one does."""

    NORMAL = 0
    SOFT = 1
    GRACEFUL = 2
    AGGRESSIVE = 3
    CIRCUIT_BREAK = 4


class Priority(IntEnum):
    """How late a key is left out; CRITICAL ones never are."""

    CRITICAL = 0
    HIGH = 1
    NORMAL = 2
    LOW = 3


class Cause(StrEnum):
    """Why a level was taken."""

    LAG = "lag"
    DRAIN_TIME = "drain_time"
    MEMORY = "memory"
    SINK = "sink"
    RECOVERED = "recovered"
    RESET = "reset"
    DRILL = "drill"


DEFERRED_FROM: Final[tuple[int, ...]] = (4, 4, 3, 2, 1)
"""By level: priorities whose number is this or more are deferred. Nothing else decides about a priority."""


def keeps(level: DegradationLevel, priority: int) -> bool:
    """Say whether a level goes on with records of a priority."""
    return priority < DEFERRED_FROM[level]


class Load(NamedTuple):
    """What a level is decided by: records that wait, this process's memory, and how long what waits will take."""

    lag_records: float = 0.0
    memory_percent: float = 0.0
    drain_seconds: float = 0.0


class Limits(NamedTuple):
    """Of each measure, where the levels SOFT to CIRCUIT_BREAK begin, in that order."""

    lag_records: tuple[float, ...]
    memory_percent: tuple[float, ...]
    drain_seconds: tuple[float, ...]

    def scaled(self, *, lag: float, memory: float, drain: float) -> Limits:
        """Return the limits times a ratio for each measure."""
        return Limits(
            tuple(lag * limit for limit in self.lag_records),
            tuple(memory * limit for limit in self.memory_percent),
            tuple(drain * limit for limit in self.drain_seconds),
        )


def level_for(load: Load, limits: Limits) -> DegradationLevel:
    """Return the highest level whose limit one of the measures reaches."""
    return max(_levels_of(load, limits))


def cause_of(load: Load, limits: Limits) -> Cause:
    """Return the measure that asks for the highest level; of equals, the time to drain before the lag."""
    lag, memory, drain = _levels_of(load, limits)
    highest = max(lag, memory, drain)
    if memory == highest:
        return Cause.MEMORY
    return Cause.DRAIN_TIME if drain == highest else Cause.LAG


def _levels_of(load: Load, limits: Limits) -> tuple[DegradationLevel, DegradationLevel, DegradationLevel]:
    return (
        _reached(load.lag_records, limits.lag_records),
        _reached(load.memory_percent, limits.memory_percent),
        _reached(load.drain_seconds, limits.drain_seconds),
    )


def _reached(value: float, limits: Sequence[float]) -> DegradationLevel:
    return DegradationLevel(sum(value >= limit for limit in limits))
