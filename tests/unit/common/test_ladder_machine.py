"""The ladder does what a naive model does that remembers every check and works each answer out from all of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from k2.common.circuit_breaker import CircuitBreaker, DegradationLevel, DegradationThresholds
from k2.common.degradation import Priority
from k2.common.settings import DegradationSettings
from k2.testing.manual_clock import ManualClock

ENTER = {
    1: (100_000, 70, 1.0),
    2: (500_000, 80, 2.0),
    3: (1_000_000, 90, 3.0),
    4: (5_000_000, 95, 4.0),
}
LEAVE = {level: (lag / 2, memory * 0.9, drain / 2) for level, (lag, memory, drain) in ENTER.items()}
HISTORY_MAX = 10
lags = st.sampled_from([0, 0, 0, 49_999, 50_000, 99_999, 100_000, 250_000, 500_000, 2_000_000, 2_500_000, 5_000_000])
percents = st.sampled_from([0, 0, 0, 62, 63, 70, 71, 72, 80, 85.4, 85.6, 90, 94, 95, 99])
drains = st.sampled_from([0.0, 0.0, 0.0, 0.4, 0.5, 1.0, 1.4, 1.9, 2.0, 3.0, 4.0, float("inf")])


@dataclass
class Model:
    """Level and answers, worked out from all that happened since the last climb."""

    level: int = 0
    hold: float = 30
    now: float = 0
    changed_at: float = 0
    stepped_at: float | None = None
    seen: list[tuple[float, tuple[float, ...] | None]] = field(default_factory=list)
    """Of each check its time and load; None in place of the load where the sink did not work."""
    sink: str = "closed"
    try_at: float = 0
    pause: float = 1
    memory_out: bool = False

    def check(self, load: tuple[float, ...]) -> None:
        self.memory_out = load[1] >= (95 if not self.memory_out else 95 * 0.9)
        wanted = max((level for level in ENTER if reaches(load, ENTER[level])), default=0)
        if wanted > self.level:
            self.climb(wanted)
            return
        self.seen.append((self.now, load if self.sink == "closed" else None))
        if self.level and self.calm_for() >= self.hold and self.now - self.changed_at >= 3:
            self.level -= 1
            self.stepped_at = self.changed_at = self.now

    def calm_for(self) -> float:
        """Return how long ago the first of the last checks in a row was that stayed below what the level is left at."""
        began = None
        for at, load in reversed(self.seen):
            if load is None or reaches(load, LEAVE[self.level]):
                break
            began = at
        return -1 if began is None else self.now - began

    def climb(self, level: int) -> None:
        if self.stepped_at is not None:
            since = self.now - self.stepped_at
            if since <= 30:
                self.hold = min(2 * self.hold, 100)
            elif since > self.hold:
                self.hold = 30
        self.level, self.changed_at, self.seen = level, self.now, []

    def fail(self) -> None:
        if self.sink == "half_open":
            self.pause = min(2 * self.pause, 8)
        elif self.sink == "closed":
            self.pause = 1
        self.sink, self.try_at = "open", self.now + self.pause
        if self.level < 4:
            self.climb(4)
        self.seen.append((self.now, None))

    def may_try(self) -> bool:
        if self.sink == "closed":
            return True
        if self.now < self.try_at:
            return False
        self.sink, self.try_at = "half_open", self.now + 8
        return True


def reaches(load: tuple[float, ...], limits: tuple[float, ...]) -> bool:
    return any(value >= limit for value, limit in zip(load, limits, strict=True))


class Ladder(RuleBasedStateMachine):
    """Both are told the same, and must say the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.breaker = CircuitBreaker(
            DegradationThresholds(),
            settings=DegradationSettings(
                hold_seconds_max=100, sink_probe_seconds=1, sink_probe_seconds_max=8, history_max=HISTORY_MAX
            ),
            clock=self.clock,
            priority_of=lambda symbol, _kind: Priority[symbol],
        )
        self.model = Model()

    @rule(seconds=st.sampled_from([0.5, 1, 2, 5, 8, 11, 29, 30, 31, 60, 200]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.model.now += seconds

    @rule(lag=lags, percent=percents, drain=drains)
    def check(self, lag: int, percent: float, drain: float) -> None:
        self.breaker.check_and_degrade(lag, percent, drain_seconds=drain)
        self.model.check((lag, percent, drain))

    @rule(
        times=st.integers(1, 40),
        seconds=st.sampled_from([0.5, 1, 2, 5]),
        lag=st.sampled_from([0, 0, 0, 49_999, 50_000, 300_000]),
    )
    def be_calm(self, times: int, seconds: float, lag: int) -> None:
        for _ in range(times):
            self.let_time_pass(seconds)
            self.check(lag, 0, 0)
            self.they_agree()

    @rule()
    def the_sink_fails(self) -> None:
        self.breaker.sink_failed()
        self.model.fail()

    @rule()
    def the_sink_works(self) -> None:
        self.breaker.sink_succeeded()
        self.model.sink = "closed"

    @rule()
    def ask_for_a_try(self) -> None:
        assert self.breaker.may_try_sink() == self.model.may_try()

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        changed_at = self.model.now if self.model.level else self.model.changed_at
        self.model = Model(now=self.model.now, changed_at=changed_at, pause=self.model.pause)

    @invariant()
    def they_agree(self) -> None:
        assert self.breaker.level == self.model.level
        assert self.breaker.get_status()["hold_seconds"] == self.model.hold
        assert self.breaker.sink_state == self.model.sink
        assert self.breaker.should_pause_partitions() == (self.model.sink != "closed" or self.model.memory_out)

    @invariant()
    def the_first_tier_is_never_left_out_and_more_is_left_out_with_each_level(self) -> None:
        processed = [self.breaker.should_process_symbol(priority.name) for priority in Priority]

        assert processed == [True] * (4 - max(0, self.breaker.level - 1)) + [False] * max(0, self.breaker.level - 1)

    @invariant()
    def the_history_leads_to_the_level_and_is_bounded(self) -> None:
        history = self.breaker.history

        assert len(history) <= HISTORY_MAX
        assert (history[-1].to_level if history else DegradationLevel.NORMAL) == self.breaker.level
        assert all(one.to_level == next_.from_level for one, next_ in pairwise(history))


TestLadder = Ladder.TestCase
TestLadder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
