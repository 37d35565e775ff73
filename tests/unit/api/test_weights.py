"""Which questions are light and which heavy."""

from __future__ import annotations

from typing import Any

import pytest

from k2.api.settings import ApiSettings
from k2.api.weights import Weight, weight_of
from k2.common.units import NS_PER_MINUTE
from k2.query.request import QueryRequest

NOW_NS = 1_700_000_000_000_000_000
HOUR_NS = 60 * NS_PER_MINUTE


@pytest.mark.parametrize(
    ("asked", "weight"),
    [
        ({"window_minutes": 15}, Weight.LIGHT),
        ({"window_minutes": 60, "anchor": "latest"}, Weight.LIGHT),
        ({"window_minutes": 61}, Weight.HEAVY),
        ({"start_ns": NOW_NS - HOUR_NS}, Weight.LIGHT),
        ({"start_ns": NOW_NS - HOUR_NS - 1}, Weight.HEAVY),
        ({"start_ns": 0, "end_ns": HOUR_NS}, Weight.LIGHT),
        ({"start_ns": 0, "end_ns": HOUR_NS + 1}, Weight.HEAVY),
        ({"start_ns": 0, "limit": 1}, Weight.HEAVY),
        ({"end_ns": NOW_NS}, Weight.HEAVY),
        ({}, Weight.HEAVY),
    ],
)
def test_the_length_of_the_range_decides(asked: dict[str, Any], weight: Weight) -> None:
    request = QueryRequest(data_type="trades", symbol="BHP", **asked)

    assert weight_of(request, ApiSettings(light_window_minutes=60), NOW_NS) == weight
