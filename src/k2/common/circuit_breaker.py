"""A five-level degradation ladder, despite its name: climbs at once, comes down step by step once it has been calm.

The level follows the lag, this process's memory and the time to drain, and a failing sink takes it to the top at once.
A high lag alone never pauses reading, since a lag that is not read can never fall.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from k2.common.clock import SystemClock
from k2.common.degradation import Cause, DegradationLevel, Load, Priority, cause_of, keeps, level_for
from k2.common.settings import DegradationSettings, DegradationThresholds
from k2.common.sink_probe import SinkProbe, SinkState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.clock import Clock

__all__ = ["CircuitBreaker", "DegradationLevel", "DegradationThresholds", "LevelChanged", "PriorityOf"]

_NORMAL: Final = DegradationLevel.NORMAL
_TOP: Final = DegradationLevel.CIRCUIT_BREAK
_CLOSED: Final = SinkState.CLOSED
_ABOVE_NORMAL: Final = tuple(DegradationLevel)[1:]


_Measures: TypeAlias = tuple[float, float, float]
"""A load: lag, memory, time to drain; bare, since a check is made for every poll."""


class PriorityOf(Protocol):
    """Gives a key of a kind of records its priority; the same answer for the same key, for as long as it lives."""

    def __call__(self, symbol: str, data_type: str, /) -> Priority:
        """Return the priority."""
        ...


class MemoryShare(Protocol):
    """Measures this process's memory."""

    def percent(self) -> float:
        """Return the resident set as a percentage of the limit; 0 where there is no limit."""
        ...


@dataclass(frozen=True, slots=True)
class LevelChanged:
    """One change of level; `at` is monotonic seconds, `at_ns` wall time."""

    from_level: DegradationLevel
    to_level: DegradationLevel
    cause: Cause
    load: Load
    at: float
    at_ns: int


def every_key_alike(_symbol: str, _data_type: str, /) -> Priority:
    """Give every key the priority NORMAL, as where nothing says which keys matter most."""
    return Priority.NORMAL


class CircuitBreaker:
    """Holds the level. Several threads may use it; observers are called in the order of the changes, within it."""

    def __init__(
        self,
        thresholds: DegradationThresholds | None = None,
        *,
        settings: DegradationSettings | None = None,
        clock: Clock | None = None,
        priority_of: PriorityOf = every_key_alike,
        memory: MemoryShare | None = None,
        observers: Sequence[Callable[[LevelChanged], None]] = (),
    ) -> None:
        self._settings = settings or DegradationSettings()
        self.thresholds = thresholds or self._settings.thresholds
        self._clock = clock or SystemClock()
        self._priority_of = priority_of
        self._memory = memory
        self._observers = tuple(observers)
        self._limits = self.thresholds.limits()
        self._enter = tuple(zip(*self._limits, strict=True))
        self._leave = tuple(zip(*self.thresholds.recovery_limits(), strict=True))
        self._sink = SinkProbe(
            probe_seconds=self._settings.sink_probe_seconds, probe_seconds_max=self._settings.sink_probe_seconds_max
        )
        self._lock = threading.RLock()
        self._history: deque[LevelChanged] = deque(maxlen=self._settings.history_max)
        self._level = _NORMAL
        self._cause = Cause.RESET
        self._load: _Measures = Load()
        self._memory_out = False
        self._calm_since: list[float | None] = [None] * len(DegradationLevel)
        self._restless = int(_TOP)
        self._hold_seconds = self._settings.calm_seconds
        self._stepped_down_at: float | None = None
        self._changed_at = self._clock.monotonic()

    @property
    def level(self) -> DegradationLevel:
        """The level now."""
        return self._level

    @property
    def cause(self) -> Cause:
        """Why the level was taken."""
        return self._cause

    @property
    def sink_state(self) -> SinkState:
        """Whether the sink works, as far as is known."""
        return self._sink.state

    @property
    def history(self) -> tuple[LevelChanged, ...]:
        """The last changes of level, oldest first."""
        return tuple(self._history)

    # Deciding.

    def check_and_degrade(
        self, lag: float, heap_pct: float | None = None, *, drain_seconds: float = 0.0, below: Load | None = None
    ) -> DegradationLevel:
        """Decide on the level and return it.

        `lag` is in records and leaves out what is deferred; `heap_pct` is this process's memory in percent of its own
        limit, measured here where it is left out. `below` is the load as it would be one level lower, where the caller
        can tell: calm is judged by it, so that a level is not left whose effect is all that keeps the load low.
        """
        if heap_pct is None:
            heap_pct = 0.0 if self._memory is None else self._memory.percent()
        soft_lag, soft_memory, soft_drain = self._enter[0]
        if (
            self._level is _NORMAL
            and 0 <= lag < soft_lag
            and 0 <= heap_pct < soft_memory
            and 0 <= drain_seconds < soft_drain
        ):
            return _NORMAL
        if not (lag >= 0 and heap_pct >= 0 and drain_seconds >= 0):
            raise ValueError(
                f"expected a lag, a memory share and a time to drain of 0 or more, found {lag}, {heap_pct} and "
                f"{drain_seconds}: mend what measures them"
            )
        with self._lock:
            self._decide((lag, heap_pct, drain_seconds), below)
            return self._level

    def _decide(self, load: _Measures, below: _Measures | None) -> None:
        now = self._clock.monotonic()
        self._load = load
        self._memory_out = load[1] >= (self._leave if self._memory_out else self._enter)[-1][1]
        level = self._level
        if level is not _TOP and _reaches(load, self._enter[level]):
            whole = Load(*load)
            self._climb(level_for(whole, self._limits), cause_of(whole, self._limits), now)
            return
        self._judge_calm(load, below, now)
        calm_since = self._calm_since[level]
        if calm_since is not None and self._may_step_down(calm_since, now):
            self._stepped_down_at = now
            self._change(DegradationLevel(level - 1), Cause.RECOVERED, now)

    def _climb(self, level: DegradationLevel, cause: Cause, now: float) -> None:
        if self._stepped_down_at is not None:
            calm_for = now - self._stepped_down_at
            if calm_for <= self._settings.flap_seconds:
                self._hold_seconds = min(2 * self._hold_seconds, self._settings.hold_seconds_max)
            elif calm_for > self._hold_seconds:
                self._hold_seconds = self._settings.calm_seconds
        self._forget_calm()
        self._change(level, cause, now)

    def _forget_calm(self) -> None:
        self._calm_since = [None] * len(DegradationLevel)
        self._restless = int(_TOP)

    def _judge_calm(self, load: _Measures, below: _Measures | None, now: float) -> None:
        """Restart the calm spell of each level that the load does not stay below; a failing sink leaves none calm."""
        restless = self._restless_level(load)
        if below is not None:
            restless = max(restless, self._restless_level(below))
        if self._sink.state is not _CLOSED:
            restless = self._level
        if restless == self._restless:
            return
        for level in _ABOVE_NORMAL:
            if level <= restless:
                self._calm_since[level] = None
            elif self._calm_since[level] is None:
                self._calm_since[level] = now
        self._restless = restless

    def _restless_level(self, load: _Measures) -> int:
        """Return the highest level, up to the one now, that the load is not calm for; 0 if it is calm for all."""
        if not _reaches(load, self._leave[0]):
            return 0
        level: int = self._level
        while level > 1 and not _reaches(load, self._leave[level - 1]):
            level -= 1
        return level

    def _may_step_down(self, calm_since: float, now: float) -> bool:
        return now - calm_since >= self._hold_seconds and now - self._changed_at >= self._settings.step_seconds

    def _change(self, level: DegradationLevel, cause: Cause, now: float) -> None:
        changed = LevelChanged(self._level, level, cause, Load(*self._load), now, self._clock.time_ns())
        self._level, self._cause, self._changed_at = level, cause, now
        self._history.append(changed)
        for observe in self._observers:
            observe(changed)

    def reset(self) -> None:
        """Go back to NORMAL at once and forget what was remembered, but for the history."""
        with self._lock:
            self._sink.succeeded()
            self._memory_out = False
            self._forget_calm()
            self._hold_seconds = self._settings.calm_seconds
            self._stepped_down_at = None
            self._load = Load()
            if self._level is not _NORMAL:
                self._change(_NORMAL, Cause.RESET, self._clock.monotonic())

    # The sink.

    def sink_failed(self) -> DegradationLevel:
        """Take the top level at once, and leave the sink alone until its next try."""
        with self._lock:
            now = self._clock.monotonic()
            self._sink.failed(now)
            if self._level is not _TOP:
                self._climb(_TOP, Cause.SINK, now)
            self._judge_calm(self._load, None, now)
            return self._level

    def sink_succeeded(self) -> DegradationLevel:
        """Take note that the sink works; the level comes down by its own rules."""
        if self._sink.state is not SinkState.CLOSED:
            with self._lock:
                self._sink.succeeded()
        return self._level

    def may_try_sink(self) -> bool:
        """Say whether the sink may be given something now: always while it works, else one try after each pause."""
        if self._sink.state is SinkState.CLOSED:
            return True
        with self._lock:
            return self._sink.may_try(self._clock.monotonic())

    # What the level means.

    def should_process_symbol(self, symbol: str, data_type: str = "trades") -> bool:
        """Say whether records of a key are gone on with, or deferred."""
        return keeps(self._level, self._priority_of(symbol, data_type))

    def is_accepting_data(self) -> bool:
        """Say whether the entry is open: feeds run freely, the API takes heavy work. Draining goes on in any case."""
        return self._level < _TOP

    def should_skip_enrichment(self) -> bool:
        """Say whether joins with reference data, optional statistics and notifications are left out."""
        return self._level >= DegradationLevel.SOFT

    def should_spill_to_disk(self) -> bool:
        """Say whether buffers go to disk and memory is given back."""
        return self._level >= DegradationLevel.AGGRESSIVE

    def should_pause_partitions(self) -> bool:
        """Say whether reading pauses: only while the sink fails or memory is out, never for lag."""
        return self._memory_out or self._sink.state is not SinkState.CLOSED

    def get_status(self) -> dict[str, object]:
        """Return what the ladder knows, as values that JSON can hold."""
        with self._lock:
            now = self._clock.monotonic()
            calm_since = self._calm_since[self._level]
            return {
                "level": int(self._level),
                "level_name": self._level.name,
                "cause": str(self._cause),
                "level_seconds": now - self._changed_at,
                "lag_records": self._load[0],
                "memory_percent": self._load[1],
                "drain_seconds": min(self._load[2], _SHOWN_SECONDS_MAX),
                "calm_seconds": 0.0 if calm_since is None else now - calm_since,
                "hold_seconds": self._hold_seconds,
                "sink": str(self._sink.state),
                "memory_out": self._memory_out,
                "accepting_data": self.is_accepting_data(),
                "pausing_partitions": self.should_pause_partitions(),
                "changes": [
                    {
                        "from_level": each.from_level.name,
                        "to_level": each.to_level.name,
                        "cause": str(each.cause),
                        "at_ns": each.at_ns,
                    }
                    for each in self._history
                ],
            }


_SHOWN_SECONDS_MAX: Final = 1e9
"""An infinite time to drain as JSON can hold it."""


def _reaches(load: _Measures, bounds: _Measures) -> bool:
    return load[0] >= bounds[0] or load[1] >= bounds[1] or load[2] >= bounds[2]
