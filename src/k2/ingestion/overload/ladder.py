"""The worker's level: what its load asks for, or a drill if that asks for more; told to metrics and to the others."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.announcing import LevelAnnouncement
from k2.common.circuit_breaker import CircuitBreaker, LevelChanged
from k2.common.degradation import Cause, DegradationLevel, Load, Priority
from k2.common.drain_time import DrainMeter
from k2.common.logging import get_logger
from k2.ingestion.events import LoadMeasured

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from k2.common.announcing import Announcer, Drills
    from k2.common.circuit_breaker import MemoryShare
    from k2.common.clock import Clock
    from k2.common.drain_time import Progress
    from k2.common.settings import DegradationSettings
    from k2.ingestion.events import Observer

log = get_logger(__name__)

_NORMAL: Final = DegradationLevel.NORMAL
_DRAIN_SECONDS_MAX: Final = 1e9
"""A time to drain that has no end, as a number that can be told."""


class Ladder(Protocol):
    """What the worker's two threads ask about overload."""

    @property
    def level(self) -> DegradationLevel:
        """The level now."""
        ...

    @property
    def reason(self) -> str:
        """Why it was taken."""
        ...

    def check(self, measure: Callable[[], Iterable[tuple[Hashable, Progress]]]) -> None:
        """Look at the load, if it is time; `measure` says where each partition is that this worker reads."""
        ...

    def must_pause(self) -> bool:
        """Say whether reading pauses: only while the sink fails or memory is out."""
        ...

    def is_short_of_memory(self) -> bool:
        """Say whether memory is worth more than the time to put on disk what is in it."""
        ...

    def may_try_sink(self) -> bool:
        """Say whether a commit may be tried now; once one failed, one at a time is, after a pause."""
        ...

    def sink_failed(self) -> None:
        """Take note that a commit failed since the sink did not answer."""
        ...

    def sink_succeeded(self) -> None:
        """Take note that the sink works, or that nobody waits for it any more."""
        ...

    def deferred(self, table: str, records: int, *, lowest_priority: int) -> None:
        """Take note of how many records of a table are deferred by now, and from which priority on."""
        ...


class NoLadder:
    """Stays at NORMAL whatever the load."""

    level = _NORMAL
    reason = ""

    def check(self, measure: Callable[[], Iterable[tuple[Hashable, Progress]]]) -> None:
        """Do nothing."""

    def must_pause(self) -> bool:
        """Never pause."""
        return False

    def is_short_of_memory(self) -> bool:
        """Never be short."""
        return False

    def may_try_sink(self) -> bool:
        """Always allow."""
        return True

    def sink_failed(self) -> None:
        """Do nothing."""

    def sink_succeeded(self) -> None:
        """Do nothing."""

    def deferred(self, table: str, records: int, *, lowest_priority: int) -> None:
        """Do nothing."""


@dataclass(slots=True)
class _Lasting:
    """The least of a measure over some seconds: what was there for a moment does not count."""

    seconds: float
    seen: deque[tuple[float, float, float]] = field(default_factory=deque)

    def least(self, at: float, drain: float, below: float) -> tuple[float, float]:
        """Add what was measured, at the level and one lower; return the least of each."""
        self.seen.append((at, drain, below))
        while len(self.seen) > 1 and self.seen[1][0] <= at - self.seconds:
            self.seen.popleft()
        if self.seen[0][0] > at - self.seconds:
            return 0.0, 0.0
        return min(drain for _, drain, _ in self.seen), min(below for _, _, below in self.seen)


class WorkerLadder:
    """The ladder of one worker. Any thread may ask; `check` belongs to one."""

    def __init__(
        self,
        settings: DegradationSettings,
        *,
        clock: Clock,
        memory: MemoryShare,
        worker: str,
        observer: Observer,
        announcer: Announcer | None = None,
        drills: Drills | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._memory = memory
        self._worker = worker
        self._observe = observer
        self._announcer = announcer
        self._drills = drills
        self.breaker = CircuitBreaker(settings=settings, clock=clock, memory=memory)
        self._meter = DrainMeter(
            rate_seconds=settings.rate_seconds,
            look_ahead_seconds=settings.look_ahead_seconds,
            service_doubling_seconds=settings.service_doubling_seconds,
            warm_up_seconds=settings.warm_up_seconds,
            records_min=settings.drain_records_min,
        )
        self._lasting = _Lasting(settings.confirm_seconds)
        self._measured: set[Hashable] = set()
        self._lock = threading.Lock()
        self._load = Load()
        self._deferred: dict[str, int] = {}
        self._deferred_since: dict[tuple[str, Priority], float] = {}
        self._floor = _NORMAL
        self._level, self._reason = _NORMAL, str(Cause.RESET)
        self._since_ns = clock.time_ns()
        self._check_at = self._announce_at = clock.monotonic()

    @property
    def level(self) -> DegradationLevel:
        """The level now."""
        return self._level

    @property
    def reason(self) -> str:
        """Why it was taken."""
        return self._reason

    def check(self, measure: Callable[[], Iterable[tuple[Hashable, Progress]]]) -> None:
        """Look at the load and the drill in force; see Ladder."""
        now = self._clock.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + self._settings.check_seconds
        seen = set()
        for partition, progress in measure():
            self._meter.observe(partition, progress, at=now)
            seen.add(partition)
        for partition in self._measured - seen:
            self._meter.forget(partition)
        self._measured = seen
        self._decide(now)
        if self._drills is not None:
            drill = self._drills.wanted()
            self._floor = _NORMAL if drill is None else drill.level
        if self._take_level() or now >= self._announce_at:
            self._announce(now)

    def _decide(self, now: float) -> None:
        level, memory = self.breaker.level, self._memory.percent()
        load = self._meter.load(level, memory_percent=memory)
        lower = self._meter.load(DegradationLevel(level - 1), memory_percent=memory) if level > _NORMAL else load
        drain, below = self._lasting.least(now, load.drain_seconds, lower.drain_seconds)
        self._load = Load(load.lag_records, memory, drain)
        self.breaker.check_and_degrade(
            load.lag_records,
            memory,
            drain_seconds=drain,
            below=lower._replace(drain_seconds=below) if level > _NORMAL else None,
        )

    def must_pause(self) -> bool:
        """Say whether reading pauses; see Ladder."""
        return self.breaker.should_pause_partitions()

    def is_short_of_memory(self) -> bool:
        """Say so from where memory would ask for a level by itself, and during a drill, which is to show it."""
        is_drill = self._floor > self.breaker.level
        return is_drill or self._load.memory_percent >= self.breaker.thresholds.soft_memory_percent

    def may_try_sink(self) -> bool:
        """Say whether a commit may be tried now; see Ladder."""
        return self.breaker.may_try_sink()

    def sink_failed(self) -> None:
        """Take the top level at once; see Ladder."""
        self.breaker.sink_failed()
        self._take_level()

    def sink_succeeded(self) -> None:
        """Take note that the sink works; see Ladder."""
        self.breaker.sink_succeeded()

    def deferred(self, table: str, records: int, *, lowest_priority: int) -> None:
        """Take note of what is deferred; see Ladder."""
        self._deferred[table] = records
        now = self._clock.monotonic()
        with self._lock:
            for priority in Priority:
                if priority >= lowest_priority:
                    self._deferred_since.setdefault((table, priority), now)
                else:
                    self._deferred_since.pop((table, priority), None)

    def _take_level(self) -> bool:
        """Take the higher of what the load and the drill ask for; say whether that is another level than before."""
        with self._lock:
            wanted = max(self.breaker.level, self._floor)
            if wanted == self._level:
                return False
            cause = Cause.DRILL if wanted > self.breaker.level else self.breaker.cause
            at_ns = self._clock.time_ns()
            changed = LevelChanged(self._level, wanted, cause, self._load, self._clock.monotonic(), at_ns)
            self._level, self._reason, self._since_ns = wanted, str(cause), at_ns
            self._announce_at = 0.0
            self._observe(changed)
        log.warning(
            "level_changed",
            from_level=changed.from_level.name,
            to_level=wanted.name,
            cause=str(cause),
            lag_records=round(self._load.lag_records),
            drain_seconds=round(min(self._load.drain_seconds, _DRAIN_SECONDS_MAX), 3),
            memory_percent=round(self._load.memory_percent, 1),
        )
        return True

    def _measured_now(self, now: float) -> LoadMeasured:
        with self._lock:
            since = dict(self._deferred_since)
        seconds = dict.fromkeys(Priority, 0.0)
        for (_, priority), began in since.items():
            seconds[priority] = max(seconds[priority], now - began)
        return LoadMeasured(self._load.lag_records, self._load.drain_seconds, seconds)

    def _announce(self, now: float) -> None:
        self._announce_at = now + self._settings.announce_seconds
        self._observe(self._measured_now(now))
        if self._announcer is None:
            return
        self._announcer.announce(
            LevelAnnouncement(
                worker=self._worker,
                level=self._level,
                reason=self._reason,
                since_ns=self._since_ns,
                at_ns=self._clock.time_ns(),
                lag_records=round(self._load.lag_records),
                drain_seconds=min(self._load.drain_seconds, _DRAIN_SECONDS_MAX),
                memory_percent=self._load.memory_percent,
                deferred_records=sum(self._deferred.values()),
                drill=self._floor > self.breaker.level,
            )
        )
