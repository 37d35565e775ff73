"""A stated share of the fault campaign on real processes: five faults; `make faults REAL_RUNS=50` runs all kinds."""

from __future__ import annotations

import pytest

from k2.testing.faults.processes.arena import Arena
from k2.testing.faults.processes.campaign import run_scenario
from k2.testing.faults.processes.scenarios import QUICK, SCENARIOS

pytestmark = pytest.mark.platform


@pytest.fixture(scope="module")
def arena(tmp_path_factory):
    with Arena(tmp_path_factory.mktemp("faults")).open() as opened:
        yield opened


@pytest.mark.parametrize("name", QUICK)
def test_a_fault_of_real_processes_loses_and_doubles_nothing(arena, name):
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    number = QUICK.index(name)

    result = run_scenario(arena, scenario, number, seed=number)

    assert result.verdict.complaints == ()
    assert (result.verdict.lost, result.verdict.doubled, result.verdict.altered) == (0, 0, 0)
    assert result.verdict.rows > 100
    assert result.injected > 0
    if name == "overlapping writers":
        assert result.fenced > 0
