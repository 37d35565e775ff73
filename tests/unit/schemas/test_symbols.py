"""One rule says what a symbol may be; ingestion, reference data and questions share it."""

from __future__ import annotations

import polars as pl
import pytest

from k2.common.errors import QueryError
from k2.query.answering import check
from k2.query.request import QueryRequest
from k2.query.settings import QuerySettings
from k2.schemas.symbols import CONTROL_CHARACTERS, SYMBOL_BYTES_MAX, is_symbol


@pytest.mark.parametrize("text", ["BHP", "BRK\u00a0A", "it's", "\u202eX", "A" * SYMBOL_BYTES_MAX, "\u00df" * 32])
def test_a_symbol_that_can_be_stored_can_be_asked_for(text: str) -> None:
    check(QueryRequest(data_type="trades", symbol=text), QuerySettings(), now_ns=0)

    assert is_symbol(text)


@pytest.mark.parametrize("text", ["A\0", "\n", "A\x7f", "\x85", "A" * (SYMBOL_BYTES_MAX + 1), "\u00df" * 33])
def test_what_cannot_be_stored_is_refused_in_a_question(text: str) -> None:
    with pytest.raises(QueryError, match="expected a symbol of 1 to 64 bytes without control characters"):
        check(QueryRequest(data_type="trades", symbol=text), QuerySettings(), now_ns=0)


def test_both_forms_of_the_rule_name_the_same_characters() -> None:
    characters = [chr(number) for number in range(0x3000) if not 0xD800 <= number < 0xE000]

    found = pl.Series(characters).str.contains(CONTROL_CHARACTERS).to_list()

    assert [is_symbol(character) for character in characters] == [not control for control in found]
