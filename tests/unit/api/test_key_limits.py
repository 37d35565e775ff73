"""What one API key may take: a rate with a burst, and so many questions at once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import pytest

from k2.api.key_limits import KeyLimits
from k2.api.problems import HttpProblemError
from k2.api.settings import ApiSettings
from k2.testing.manual_clock import ManualClock


def limits_of(clock: ManualClock, **settings: Any) -> KeyLimits:
    return KeyLimits(ApiSettings(key_questions_per_second=2, key_burst_questions=3, **settings), clock)


def ask(limits: KeyLimits, key_id: str = "one") -> HttpProblemError | None:
    try:
        with limits.admitted(key_id):
            return None
    except HttpProblemError as refused:
        return refused


def test_a_key_may_ask_a_burst_and_then_at_its_rate() -> None:
    clock = ManualClock()
    limits = limits_of(clock)

    burst = [ask(limits) is None for _ in range(5)]
    clock.advance(1)
    after = [ask(limits) is None for _ in range(3)]

    assert burst == [True, True, True, False, False]
    assert after == [True, True, False]


def test_a_pause_gives_no_more_than_the_burst() -> None:
    clock = ManualClock()
    limits = limits_of(clock)
    ask(limits)
    clock.advance(3_600)

    assert [ask(limits) is None for _ in range(4)] == [True, True, True, False]


def test_a_refusal_says_when_to_ask_again_and_that_time_is_enough() -> None:
    clock = ManualClock()
    limits = limits_of(clock)
    while (refused := ask(limits)) is None:
        pass

    clock.advance(float(refused.headers["Retry-After"]))

    assert (refused.status, refused.reason) == (429, "key_rate")
    assert ask(limits) is None


def test_keys_do_not_take_from_each_other() -> None:
    limits = limits_of(ManualClock())
    while ask(limits, "greedy") is None:
        pass

    assert ask(limits, "modest") is None


def test_a_key_has_only_so_many_questions_under_way() -> None:
    limits = limits_of(ManualClock(), key_questions_at_once_max=2)
    with ExitStack() as under_way:
        for _ in range(2):
            under_way.enter_context(limits.admitted("one"))

        refused = ask(limits)

    assert refused is not None
    assert (refused.status, refused.reason) == (429, "key_concurrency")
    assert ask(limits) is None


def test_a_question_that_fails_is_not_under_way_any_more() -> None:
    limits = limits_of(ManualClock(), key_questions_at_once_max=1)
    with pytest.raises(RuntimeError), limits.admitted("one"):
        raise RuntimeError("failed")

    assert ask(limits) is None
