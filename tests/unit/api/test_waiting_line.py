"""The line in front of the turns: who is next, and who goes when it is full."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from k2.api.waiting_line import WaitingLine
from k2.api.weights import Weight


def test_light_ones_are_called_first_and_each_weight_in_the_order_in_which_it_came() -> None:
    line: WaitingLine[str] = WaitingLine(4)
    for name, weight in (("a", Weight.HEAVY), ("b", Weight.LIGHT), ("c", Weight.HEAVY), ("d", Weight.LIGHT)):
        line.join(name, weight)

    called = [line.call(Weight.HEAVY, Weight.LIGHT) for _ in range(5)]

    assert called == ["b", "d", "a", "c", None]


def test_only_the_weights_that_may_run_are_called() -> None:
    line: WaitingLine[str] = WaitingLine(4)
    line.join("scan", Weight.HEAVY)

    assert line.call(Weight.LIGHT) is None
    assert line.call() is None
    assert line.call(Weight.HEAVY) == "scan"


def test_a_full_line_of_light_ones_takes_nobody() -> None:
    line: WaitingLine[str] = WaitingLine(1)
    line.join("first", Weight.LIGHT)

    assert line.join("light", Weight.LIGHT) == "light"
    assert line.join("heavy", Weight.HEAVY) == "heavy"
    assert len(line) == 1


def test_whoever_has_left_is_not_called() -> None:
    line: WaitingLine[str] = WaitingLine(2)
    line.join("leaves", Weight.LIGHT)

    assert line.leave("leaves")
    assert not line.leave("leaves")
    assert line.call(*Weight) is None


@given(st.lists(st.sampled_from([*Weight, None]), max_size=60), st.integers(0, 5))
def test_nobody_is_forgotten_and_the_line_is_never_longer_than_it_may_be(
    steps: list[Weight | None], places_max: int
) -> None:
    line: WaitingLine[int] = WaitingLine(places_max)
    inside: set[int] = set()
    for number, step in enumerate(steps):
        if step is None:
            called = line.call(*Weight)
            assert (called is None) == (not inside)
            inside.discard(-1 if called is None else called)
        else:
            gone = line.join(number, step)
            inside.add(number)
            inside.discard(-1 if gone is None else gone)
        assert len(line) == len(inside) <= places_max
