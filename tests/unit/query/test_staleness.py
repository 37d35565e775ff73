"""How far behind the log an answer is, what a caller accepts of it, and what is known of a log that is out of reach."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

import pytest

from k2.common.errors import LogIdentityError, QueryError, UnavailableError
from k2.kafka.ports import LogRange
from k2.query.known_log import KnownLog
from k2.testing.manual_clock import ManualClock
from k2.testing.simulated_hybrid import ASX, SimulatedHybrid, ask, home, times

KEY = ("t", 0)


def trade_and_commit(hybrid: SimulatedHybrid, time: int) -> None:
    hybrid.market.append(ASX.name, "BHP", time)
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))


def staleness(hybrid: SimulatedHybrid, **asked: Any) -> float | None:
    return ask(hybrid, **asked).certificate.staleness_seconds


def test_an_answer_up_to_the_last_message_is_not_stale(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.market.append(ASX.name, "BHP", 2)

    answer = ask(hybrid, max_staleness_seconds=0.001)

    assert times(answer) == [1, 2]
    assert (answer.certificate.stale, answer.certificate.staleness_seconds) == (False, 0.0)


def test_stale_gives_the_table_alone_while_the_log_is_down_and_says_how_old_that_is(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.tail.step()  # a look at the log, which ends where the table does
    hybrid.clock.advance(7)
    hybrid.market.log_is_up = False

    answer = ask(hybrid, on_degrade="stale")

    certificate = answer.certificate
    assert times(answer) == [1]
    assert (certificate.stale, certificate.staleness_seconds, certificate.complete) == (True, 7.0, False)
    assert (certificate.degradation_level, certificate.as_of) == ("TABLE_ONLY", None)
    assert "broker is down" in certificate.reasons[0]


def test_records_that_the_log_was_seen_to_hold_above_the_table_count_from_before_they_came(
    hybrid: SimulatedHybrid,
) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.tail.step()
    hybrid.clock.advance(5)
    hybrid.market.append(ASX.name, "BHP", 2)  # not committed
    hybrid.tail.step()
    hybrid.clock.advance(2)
    hybrid.market.log_is_up = False

    assert staleness(hybrid, on_degrade="stale") == 7.0


def test_a_commit_makes_a_stale_answer_younger(hybrid: SimulatedHybrid) -> None:
    hybrid.market.append(ASX.name, "BHP", 1)
    hybrid.tail.step()
    hybrid.clock.advance(3)
    hybrid.market.log_is_up = False
    before = staleness(hybrid, on_degrade="stale")

    hybrid.market.log_is_up = True
    hybrid.market.commit(ASX.name, home(hybrid, "BHP"))
    hybrid.market.log_is_up = False

    assert before is None, "no look at the log tells since when records are missing"
    assert staleness(hybrid, on_degrade="stale") == 3.0


@pytest.mark.parametrize(("accepted", "is_answered"), [(6.9, False), (7.0, True)])
@pytest.mark.parametrize("asked", [{"on_degrade": "stale"}, {"on_degrade": "partial"}, {"lake_only": True}])
def test_an_answer_further_behind_than_accepted_is_refused(
    hybrid: SimulatedHybrid, asked: dict[str, Any], accepted: float, is_answered: bool
) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.tail.step()
    hybrid.clock.advance(7)
    hybrid.market.log_is_up = False

    if is_answered:
        assert times(ask(hybrid, max_staleness_seconds=accepted, **asked)) == [1]
    else:
        with pytest.raises(UnavailableError, match=r"at most 6\.9 s behind the log .* up to 7\.0 s") as refused:
            ask(hybrid, max_staleness_seconds=accepted, **asked)
        assert refused.value.reason == "stale"


def test_what_cannot_be_told_is_refused_where_a_staleness_is_asked_for(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.market.log_is_up = False

    with pytest.raises(UnavailableError, match="nothing that tells"):
        ask(hybrid, on_degrade="stale", max_staleness_seconds=3600)


def test_the_prefix_of_a_token_is_as_old_as_it_is(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    token = ask(hybrid).certificate.as_of
    hybrid.clock.advance(60)
    trade_and_commit(hybrid, 2)

    answer = ask(hybrid, as_of=token, max_staleness_seconds=1)

    assert times(answer) == [1]
    assert answer.certificate.staleness_seconds == 60.0


def test_stale_does_not_answer_without_the_table(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.tail.step()
    hybrid.market.catalog_is_up = False

    with pytest.raises(UnavailableError):
        ask(hybrid, on_degrade="stale")


def test_stale_does_not_answer_from_a_log_that_is_another_one(hybrid: SimulatedHybrid) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.market.create(ASX.name, "id-2")
    hybrid.tail.step()

    with pytest.raises(LogIdentityError):
        ask(hybrid, on_degrade="stale")


def test_a_part_of_the_log_that_cannot_be_read_leaves_a_stale_answer_without_holes(
    hybrid: SimulatedHybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    trade_and_commit(hybrid, 1)
    hybrid.tail.step()
    for number in (2, 3):
        hybrid.market.append(ASX.name, "BHP", number)

    def fails(*_: object, **__: object) -> None:
        raise UnavailableError("the registry is down", dependency="registry")

    monkeypatch.setattr(hybrid.engine._log._on_demand, "read", fails)

    answer = ask(hybrid, on_degrade="stale")

    assert times(answer) == [1]
    assert [item.end - item.seam for item in answer.certificate.partitions] == [0] * len(answer.certificate.partitions)
    assert answer.certificate.stale


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_an_impossible_staleness_is_refused(hybrid: SimulatedHybrid, seconds: float) -> None:
    with pytest.raises(QueryError, match="max_staleness"):
        ask(hybrid, max_staleness_seconds=seconds)


class Log:
    """A log of one partition that ends where it is told, is down when told, and counts how often it was asked."""

    def __init__(self) -> None:
        self.end = 0
        self.is_up = True
        self.asked = 0
        self.before_answer = lambda: None

    def identities(self, topics: Iterable[str]) -> dict[str, Any]:
        return dict.fromkeys(topics)

    def ranges(self, topics: str | Iterable[str]) -> dict[tuple[str, int], LogRange]:
        self.asked += len([topics])
        end = self.end
        self.before_answer()
        if not self.is_up:
            raise UnavailableError("the broker is down", dependency="kafka", retry_after_seconds=3)
        return {KEY: LogRange(0, end)}


def failing(known: KnownLog) -> None:
    with pytest.raises(UnavailableError):
        known.ranges("t")


def known_log(log: Log, clock: ManualClock) -> KnownLog:
    return KnownLog(log, clock=clock, retry_seconds=1)


def test_what_is_known_of_an_end_is_from_before_the_question_was_sent() -> None:
    log, clock = Log(), ManualClock()
    known = known_log(log, clock)
    log.before_answer = lambda: clock.advance(4)

    known.ranges("t")

    assert known.seconds_behind(KEY, 0) == 4.0


def test_many_looks_forget_the_old_ones_and_never_say_less_than_is_true() -> None:
    log, clock = Log(), ManualClock()
    known = known_log(log, clock)
    for number in range(10_000):
        log.end = number
        known.ranges("t")
        clock.advance(0.1)

    assert known.seconds_behind(KEY, 9_999) == pytest.approx(0.1)
    behind = known.seconds_behind(KEY, 9_900)
    assert behind is not None
    assert 10.0 <= behind <= 10.5
    assert known.seconds_behind(KEY, 10) is None
    assert len(known._looks[KEY]) <= 512


def test_a_log_that_is_shorter_than_it_was_is_known_anew() -> None:
    log, clock = Log(), ManualClock()
    known = known_log(log, clock)
    log.end = 10
    known.ranges("t")
    clock.advance(1)
    log.end = 3

    known.ranges("t")

    assert known.seconds_behind(KEY, 10) == 0.0
    assert known.seconds_behind(KEY, 2) is None


def test_a_log_that_is_down_is_tried_by_one_at_a_time_and_the_others_hear_at_once() -> None:
    log, clock = Log(), ManualClock()
    known = known_log(log, clock)
    log.is_up = False
    for _ in range(5):
        with pytest.raises(UnavailableError, match="the broker is down") as refused:
            known.ranges("t")
    asked_at_first = log.asked
    clock.advance(1)
    waiting, answered = threading.Event(), threading.Event()

    def hold() -> None:
        waiting.set()
        answered.wait(5)

    log.before_answer = hold
    trying = threading.Thread(target=failing, args=[known])
    trying.start()
    assert waiting.wait(5)
    with pytest.raises(UnavailableError):
        known.ranges("t")
    asked_meanwhile = log.asked
    answered.set()
    trying.join(5)

    assert (asked_at_first, asked_meanwhile) == (1, 2)
    assert refused.value.retry_after_seconds == 3


def test_a_log_that_is_back_is_asked_by_all_again() -> None:
    log, clock = Log(), ManualClock()
    known = known_log(log, clock)
    log.is_up = False
    with pytest.raises(UnavailableError):
        known.ranges("t")
    log.is_up = True
    clock.advance(1)

    assert [known.ranges("t") for _ in range(3)] == [{KEY: LogRange(0, 0)}] * 3
