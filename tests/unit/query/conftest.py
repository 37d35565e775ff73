"""Fixtures of the query tests: an engine over a simulated market."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.testing.simulated_hybrid import ASX, QUOTES, SIM, SimulatedHybrid, simulated_hybrid
from k2.testing.simulated_market import SimulatedMarket

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def hybrid(tmp_path: Path) -> Iterator[SimulatedHybrid]:
    """Three topics of two partitions, registered, with nothing in them."""
    market = SimulatedMarket(tmp_path, [ASX, SIM, QUOTES])
    for item in (ASX, SIM, QUOTES):
        market.register(item.name)
    made = simulated_hybrid(market, tmp_path)
    yield made
    made.close()
