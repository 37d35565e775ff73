"""What amendments come to, whatever their order."""

from __future__ import annotations

import itertools

import polars as pl
import pytest

from k2.schemas.amendments import Fate, Settled, settle
from k2.schemas.records import QUOTES, TRADES, Action, RecordType
from k2.testing.market_rows import market_rows

START = market_rows([0])["trading_date"][0]


def amendments(*said: tuple[str, str | None, str | None], days: tuple[int, ...] = ()) -> pl.DataFrame:
    """Return one record for each action, reference and own id."""
    dates = [START.replace(day=1 + day) for day in (*days, *[0] * (len(said) - len(days)))]
    return market_rows(range(len(said)), symbols=("AAA",)).with_columns(
        pl.Series("action", [action for action, _, _ in said]),
        pl.Series("ref_trade_id", [reference for _, reference, _ in said], pl.String),
        pl.Series("trade_id", [own for _, _, own in said], pl.String),
        pl.Series("trading_date", dates, pl.Date),
    )


def fate(settled: Settled, trade_id: str, day: int = 0) -> Fate | None:
    return settled.fates.get(("sim", START.replace(day=1 + day), trade_id))


def test_a_cancel_ends_the_trade_that_it_names() -> None:
    settled = settle(amendments((Action.CANCEL, "A", None)))

    assert fate(settled, "A") == Fate([("sim", START, "A")], cancelled=True)
    assert fate(settled, "B") is None


def test_an_amendment_without_a_reference_names_the_trade_by_its_own_id() -> None:
    found = fate(settle(amendments((Action.CANCEL, None, "A"))), "A")

    assert found is not None
    assert found.cancelled


def test_the_newest_correction_counts() -> None:
    found = fate(settle(amendments((Action.CORRECT, "A", None), (Action.CORRECT, "A", None))), "A")

    assert found is not None
    assert found.correction == 1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_cancel_ends_a_trade_whatever_comes_before_or_after(order: tuple[int, ...]) -> None:
    said = [(Action.CORRECT, "A", "B"), (Action.CANCEL, "B", None), (Action.CORRECT, "B", "C")]

    settled = settle(amendments(*(said[number] for number in order)))

    for name in "ABC":
        found = fate(settled, name)
        assert found is not None
        assert found.cancelled


def test_a_correction_with_an_id_of_its_own_is_another_name_of_the_trade() -> None:
    settled = settle(amendments((Action.CORRECT, "A", "B"), (Action.CORRECT, "B", "C"), (Action.CORRECT, "X", "Y")))

    assert fate(settled, "A") is fate(settled, "B") is fate(settled, "C")
    assert fate(settled, "X") is not fate(settled, "A")


def test_the_own_id_of_a_cancel_is_no_name_of_the_trade() -> None:
    assert fate(settle(amendments((Action.CANCEL, "A", "B"))), "B") is None


def test_corrections_in_a_circle_are_one_trade() -> None:
    settled = settle(amendments((Action.CORRECT, "A", "B"), (Action.CORRECT, "B", "A")))

    assert fate(settled, "A") is fate(settled, "B")


def test_the_same_id_on_another_trading_date_is_another_trade() -> None:
    settled = settle(amendments((Action.CANCEL, "A", None), days=(1,)))

    assert fate(settled, "A") is None
    assert fate(settled, "A", day=1) is not None


@pytest.mark.parametrize("record_type", [QUOTES, TRADES])
def test_an_amendment_without_any_id_names_nothing(record_type: RecordType) -> None:
    rows = market_rows([7], record_type=record_type).with_columns(action=pl.lit(Action.CANCEL))

    settled = settle(rows)

    assert settled.fates == {}
    assert [(found.row, found.name, found.fate) for found in settled.by_place.values()] == [(0, None, None)]
