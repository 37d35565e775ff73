"""A stated share of the fault campaign: 100 seeded runs of all kinds; `make faults` runs as many as you like."""

from __future__ import annotations

import pytest

from k2.storage import writer
from k2.testing import simulated_tables
from k2.testing.faults.campaign import run_simulations, summarize
from k2.testing.faults.plans import PLANS, plan_named
from k2.testing.faults.simulation import simulate

SEED, RUNS = 20_260_101, 100


def test_a_hundred_seeded_runs_of_all_kinds_lose_and_double_nothing() -> None:
    results, asked = run_simulations(SEED, RUNS, processes=2)

    summaries = summarize(results)
    print(f"seeds from {SEED}")  # noqa: T201 shown when the test fails
    assert [failure for summary in summaries for failure in summary.failures] == []
    assert all(summary.holds for summary in summaries)
    assert {summary.kind for summary in summaries} == {plan.name for plan in PLANS}
    assert all(summary.injected > 0 for summary in summaries)
    assert [answer.difference for answer in asked if answer.difference] == []
    assert len(results) + len(asked) == RUNS


def test_a_seed_replays_exactly() -> None:
    plan = plan_named("everything at once")

    assert simulate(plan, 7) == simulate(plan, 7)
    assert simulate(plan, 7) != simulate(plan, 8)


@pytest.mark.parametrize("kind", ["zombie inside a commit", "overlapping writers", "commit reply lost"])
def test_the_oracle_notices_a_writer_without_a_fence(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_tables, "check_fence", lambda _head, _batch: None)

    results = [simulate(plan_named(kind), seed) for seed in range(3)]

    assert sum(result.verdict.doubled for result in results) > 0
    assert sum(result.stale_commits for result in results) > 0


def test_the_fence_of_the_simulation_is_the_product_s_own() -> None:
    assert simulated_tables.check_fence is writer.check_fence
    assert simulated_tables.check_accounts is writer.check_accounts
