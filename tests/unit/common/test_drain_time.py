"""The time to drain follows the measured rates, per partition, and leaves out what a level defers."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest

from k2.common.degradation import DegradationLevel
from k2.common.drain_time import DrainMeter, Progress

NORMAL, GRACEFUL, CIRCUIT_BREAK = DegradationLevel.NORMAL, DegradationLevel.GRACEFUL, DegradationLevel.CIRCUIT_BREAK


@pytest.fixture
def meter() -> DrainMeter:
    return DrainMeter(rate_seconds=1, look_ahead_seconds=0)


def run(
    meter: DrainMeter,
    *,
    seconds: int,
    arrival: int,
    service: int,
    backlog: int = 0,
    partition: int = 0,
    shares: tuple[float, ...] = (1, 0, 0, 0),
) -> None:
    """Observe a partition once a second; what is served was read at once."""
    for second in range(seconds + 1):
        end = backlog + arrival * second
        served = min(service * second, end)
        taken = [round(share * served) for share in shares]
        meter.observe(partition, Progress(end, served, taken, 0, served), at=float(second))


def test_what_waits_takes_as_long_as_the_measured_service_rate_says(meter: DrainMeter) -> None:
    run(meter, seconds=10, arrival=0, service=100, backlog=3_000)

    assert meter.load(NORMAL).drain_seconds == pytest.approx(20)
    assert meter.load(NORMAL).lag_records == 2_000


def test_what_waits_in_memory_waits_as_well(meter: DrainMeter) -> None:
    meter.observe(0, Progress(1_000, 1_000, [0, 0, 0, 0], 1_000, 0), at=0)
    meter.observe(0, Progress(1_000, 1_000, [0, 0, 0, 0], 900, 100), at=1)

    assert meter.load(NORMAL).drain_seconds == pytest.approx(9)


def test_the_worst_partition_decides(meter: DrainMeter) -> None:
    run(meter, seconds=10, arrival=100, service=1_000, partition=0)
    run(meter, seconds=10, arrival=0, service=10, backlog=200, partition=1)

    assert meter.load(NORMAL).drain_seconds == pytest.approx(10)
    assert meter.drain_seconds(0, NORMAL) == 0


def test_an_idle_reader_shows_no_limit_of_its_service(meter: DrainMeter) -> None:
    run(meter, seconds=5, arrival=100, service=1_000, backlog=5_000)
    busy = Progress(5_500, 5_000, [0] * 4, 0, 5_000)
    meter.observe(0, busy, at=6)
    for second in range(7, 60):
        done = 5_500 + second
        meter.observe(0, Progress(done, done, [0] * 4, 0, done), at=second)

    meter.observe(0, Progress(6_559, 5_559, [0] * 4, 0, 5_559), at=60)

    assert meter.load(NORMAL).drain_seconds < 4


def test_an_idle_reader_recovers_up_to_the_best_rate_that_it_had(meter: DrainMeter) -> None:
    served = 0
    for second, rate in enumerate([100] * 20 + [10] * 20):
        served += rate
        meter.observe(0, Progress(10_000, served, [served, 0, 0, 0], 0, served), at=second)
    slow = (10_000 - served) / meter.load(NORMAL).drain_seconds
    meter.observe(0, Progress(10_000, 10_000, [10_000, 0, 0, 0], 0, served), at=40)

    recovered = []
    for second in range(41, 80):
        meter.observe(0, Progress(10_000, 10_000, [10_000, 0, 0, 0], 0, served), at=second)
        recovered.append(1_000 / meter_after(meter, 11_000, served, second))

    assert slow == pytest.approx(10, rel=0.01)
    assert recovered[4] == pytest.approx(10 * 2**1.2, rel=0.1)
    assert recovered[-1] == pytest.approx(100, rel=0.01)


def meter_after(meter: DrainMeter, log_end: int, served: int, second: int) -> float:
    """Return the time to drain if so much were in the log now; the meter itself learns nothing."""
    asked = deepcopy(meter)
    asked.observe(0, Progress(log_end, 10_000, [10_000, 0, 0, 0], 0, served), at=second + 1e-9)
    return asked.load(NORMAL).drain_seconds


def test_what_a_level_defers_does_not_wait(meter: DrainMeter) -> None:
    run(meter, seconds=10, arrival=0, service=100, backlog=3_000, shares=(0.1, 0.2, 0.3, 0.4))

    drains = [meter.load(level).drain_seconds for level in DegradationLevel]

    assert drains == pytest.approx([20, 20, 12, 6, 2])


def test_a_service_that_stops_never_drains(meter: DrainMeter) -> None:
    for second in range(3):
        meter.observe(0, Progress(100 * second, 0, [0] * 4, 0, 0), at=second)

    assert meter.load(NORMAL).drain_seconds == math.inf


def serve(meter: DrainMeter, *, log_end: int, looks: list[tuple[float, int]]) -> list[float]:
    """Observe what was served by when; return the time to drain after each look."""
    found = []
    for at, served in looks:
        meter.observe(0, Progress(log_end, served, [served, 0, 0, 0], 0, served), at=at)
        found.append(meter.load(NORMAL).drain_seconds)
    return found


STEADY = [(float(second), 100 * second) for second in range(11)]


def test_a_stall_is_taken_to_last_as_long_again_and_not_for_ever(meter: DrainMeter) -> None:
    serve(meter, log_end=1_500, looks=STEADY)

    stalled = serve(meter, log_end=1_500, looks=[(10 + tenth / 10, 1_000) for tenth in range(1, 301)])

    assert stalled[19] == pytest.approx(2 + 5)
    assert stalled[99] == pytest.approx(10 + 5)
    assert stalled[299] == pytest.approx(30 + 5)


def test_a_short_pause_counts_by_the_rate_as_ever(meter: DrainMeter) -> None:
    serve(meter, log_end=1_050, looks=STEADY)

    assert serve(meter, log_end=1_050, looks=[(11, 1_000)]) == [pytest.approx(50 / 50)]


def test_the_first_records_after_a_stall_are_not_taken_for_the_rate(meter: DrainMeter) -> None:
    serve(meter, log_end=3_000, looks=[*STEADY, *((10 + second, 1_000) for second in range(1, 31))])

    looks = [(40 + tenth / 10, 1_000 + 10 * tenth) for tenth in range(1, 21)]
    first, *_, last = serve(meter, log_end=3_000, looks=looks)

    assert first == pytest.approx(30 + 19.9)
    assert last == pytest.approx(1_800 / 75, rel=0.05)


def test_a_sink_that_goes_on_slowly_is_no_stall(meter: DrainMeter) -> None:
    serve(meter, log_end=1_500, looks=STEADY)

    slow = serve(meter, log_end=1_500, looks=[(10 + second, 1_000 + second) for second in range(1, 21)])

    assert slow[-1] == pytest.approx(480, rel=0.01)


def test_a_look_that_comes_late_says_little_about_the_service(meter: DrainMeter) -> None:
    serve(meter, log_end=3_000, looks=STEADY)

    nothing, something, soon_after = serve(meter, log_end=3_000, looks=[(40, 1_000), (70, 1_001), (71, 1_101)])

    assert nothing == pytest.approx(2_000 / 50)
    assert something == pytest.approx(1_999 / 25, rel=0.01)
    assert soon_after == pytest.approx(1_899 / 62.5, rel=0.01)


def test_what_is_still_to_pile_up_counts_ahead() -> None:
    meter = DrainMeter(rate_seconds=0.001, look_ahead_seconds=2)

    run(meter, seconds=1, arrival=300, service=100)

    assert meter.load(NORMAL).drain_seconds == pytest.approx((200 + 2 * 200) / 100)


def test_a_partition_seen_once_is_not_judged(meter: DrainMeter) -> None:
    meter.observe(0, Progress(10**9, 0, [0] * 4, 0, 0), at=0)

    assert meter.load(NORMAL).drain_seconds == 0
    assert meter.load(NORMAL).lag_records == 10**9


def test_a_partition_given_away_is_forgotten(meter: DrainMeter) -> None:
    run(meter, seconds=3, arrival=100, service=10)

    meter.forget(0)

    assert meter.load(NORMAL) == (0, 0, 0)
    assert meter.drain_seconds(0, NORMAL) == 0


def test_counts_that_go_back_begin_anew(meter: DrainMeter) -> None:
    run(meter, seconds=10, arrival=0, service=100, backlog=3_000)

    meter.observe(0, Progress(3_000, 0, [0] * 4, 0, 0), at=11)

    assert meter.load(NORMAL) == (3_000, 0, 0)


def test_the_same_moment_twice_changes_nothing(meter: DrainMeter) -> None:
    run(meter, seconds=10, arrival=0, service=100, backlog=3_000)
    before = meter.load(NORMAL)

    meter.observe(0, Progress(9_000, 1_000, [0] * 4, 0, 1_000), at=10)

    assert meter.load(NORMAL) == before


def test_rates_follow_a_change_within_their_half_life(meter: DrainMeter) -> None:
    served = 0
    for second, rate in enumerate([100] * 10 + [10] * 4):
        served += rate if second else 0
        meter.observe(0, Progress(10_000, served, [served, 0, 0, 0], 0, served), at=second)

    per_second = (10_000 - served) / meter.load(CIRCUIT_BREAK).drain_seconds

    assert per_second == pytest.approx(10 + 90 / 16)


def test_memory_passes_through(meter: DrainMeter) -> None:
    assert meter.load(GRACEFUL, memory_percent=12).memory_percent == 12


def test_a_few_records_of_a_slow_feed_are_no_overload() -> None:
    meter = DrainMeter(rate_seconds=1, look_ahead_seconds=0, records_min=100)

    run(meter, seconds=10, arrival=0, service=1, backlog=109)
    few = meter.load(NORMAL)
    run(meter, seconds=10, arrival=0, service=1, backlog=110, partition=1)

    assert (few.drain_seconds, few.lag_records) == (0, 99)
    assert meter.load(NORMAL).drain_seconds == pytest.approx(100)
