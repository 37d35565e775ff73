"""A tier map has one text and one name, follows traded volume, and a wrong one says what is wrong."""

from __future__ import annotations

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.common.degradation import Priority
from k2.common.errors import ConfigurationError
from k2.schemas.tier_maps import TierMap

symbols = st.sets(st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=8), max_size=8)


@given(symbols, symbols)
def test_a_map_is_the_same_after_its_trip_through_json(tier_1: set[str], tier_2: set[str]) -> None:
    tiers = TierMap.of(tier_1, tier_2 - tier_1)

    assert TierMap.from_json(tiers.to_json()) == tiers


def test_the_name_follows_from_the_symbols_and_not_from_their_order() -> None:
    one = TierMap.from_json('{"tier_2": ["RIO"], "tier_1": ["CBA", "BHP"]}')
    other = TierMap.of(["BHP", "CBA"], ["RIO"])

    assert one.map_id == other.map_id
    assert one.map_id != TierMap.of(["BHP"], ["CBA", "RIO"]).map_id


def test_the_name_of_a_map_never_changes() -> None:
    assert TierMap.of(["BHP", "CBA"], ["é"]).map_id == "b1ca8ded06cf9bf4"


def test_tiers_give_priorities() -> None:
    priority = TierMap.of(["BHP"], ["RIO"]).priorities()

    given_ = [priority(*each) for each in (("BHP", "quotes"), ("RIO", "quotes"), ("XYZ", "trades"), ("XYZ", "quotes"))]
    assert given_ == [Priority.CRITICAL, Priority.HIGH, Priority.NORMAL, Priority.LOW]


def test_tiers_follow_the_traded_volume_and_equal_volumes_the_alphabet() -> None:
    volumes = pl.DataFrame(
        {"symbol": ["A", "B", "C", "D", "A"], "volume": [Decimal(1), Decimal(5), Decimal(3), Decimal(3), Decimal(3)]}
    )

    tiers = TierMap.by_volume(volumes, tier_1_symbols=2, tier_2_symbols=1)

    assert tiers == TierMap.of(["B", "A"], ["C"])


def test_by_default_twenty_and_eighty_symbols_are_in_the_tiers() -> None:
    volumes = pl.DataFrame({"symbol": [f"S{number}" for number in range(300)], "volume": range(300)})

    tiers = TierMap.by_volume(volumes)

    assert (len(tiers.tier_1), len(tiers.tier_2)) == (20, 80)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{half", "as JSON"),
        ("[]", "tier_1"),
        ('{"tier_1": []}', "tier_2"),
        ('{"tier_1": [], "tier_2": [], "tier_3": []}', "found"),
        ('{"tier_1": "BHP", "tier_2": []}', "found"),
        ('{"tier_1": [1], "tier_2": []}', "found"),
        ('{"tier_1": ["BHP"], "tier_2": ["BHP"]}', "BHP in both"),
        ('{"tier_1": ["\\n"], "tier_2": []}', "without control characters"),
        ('{"tier_1": [""], "tier_2": []}', "a symbol of 1 to 64 bytes"),
    ],
)
def test_what_is_no_tier_map_is_refused(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        TierMap.from_json(text)
