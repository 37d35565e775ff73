"""Numbers stay exact: from a venue's text and from whole units."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k2.feeds.decimals import decimal_from_text, decimal_from_units

UNITS = st.integers(min_value=-(2**63), max_value=2**63 - 1)


def read(*texts: str) -> list[Decimal | None]:
    column = decimal_from_text(pl.col("text"), precision=28, scale=12)
    return pl.DataFrame({"text": texts}).select(column).to_series().to_list()


@settings(deadline=None)  # the machine may be busy
@given(st.from_regex(r"-?[0-9]{1,16}(\.[0-9]{1,12})?", fullmatch=True).filter(str.isascii))
def test_a_text_is_read_exactly(text: str) -> None:
    assert read(text) == [Decimal(text)]


@settings(deadline=None)  # the machine may be busy
@given(st.integers(1, 15).flatmap(lambda n: st.from_regex(rf"[0-9]{{1,16}}\.[0-9]{{12}}[0-9]{{{n}}}", fullmatch=True)))
def test_a_text_that_does_not_fit_is_refused_and_never_rounded(text: str) -> None:
    assert read(text)[0] in (None, Decimal(text))


@pytest.mark.parametrize(
    "text", ["", " ", "abc", "1e5", "1,5", "5.", ".5", "+1", "NaN", "inf", "1 ", " 1", "1\n", "0x1", "--1", "1.2.3"]
)
def test_what_is_no_plain_number_is_refused(text: str) -> None:
    assert read(text) == [None]


@pytest.mark.parametrize("text", ["12345678901234567", "1.1234567890123"])
def test_a_digit_too_many_is_refused(text: str) -> None:
    assert read(text) == [None]


@settings(deadline=None)  # the machine may be busy
@given(st.lists(UNITS, max_size=20))
def test_units_are_scaled_exactly(units: list[int]) -> None:
    column = decimal_from_units(np.array(units, dtype=np.int64), precision=28, scale=12)

    assert column.to_list() == [Decimal(value).scaleb(-12) for value in units]
