"""What the campaign prints and writes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from k2.testing.faults import report
from k2.testing.faults.campaign import summarize
from k2.testing.faults.oracle import Verdict
from k2.testing.faults.simulation import RunResult
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

GOOD = Verdict(10, 9, 1, 0, 0, 0, ())
LOSING = Verdict(10, 8, 1, 1, 0, 0, ("a complaint",))


def result(kind: str, verdict: Verdict, *recovery: float) -> RunResult:
    return RunResult(kind, 1, 3, verdict, 0, 2, recovery)


def test_runs_are_added_up_by_kind() -> None:
    kills, calm = summarize(
        [result("kill", GOOD, 1.0), result("kill", LOSING, 3.0), result("calm", GOOD)], {"kill": "1", "calm": ""}
    )

    assert (kills.runs, kills.injected, kills.acknowledged, kills.rows, kills.lost) == (2, 6, 20, 17, 1)
    assert (kills.recovery_seconds, kills.holds, calm.holds) == ((1.0, 3.0), False, True)
    assert kills.failures == ("seed 1: a complaint",)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 2.0), (0.99, 4.0), (0.25, 1.0)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: float) -> None:
    assert report.percentile([4.0, 1.0, 3.0, 2.0], share) == expected


def test_the_table_and_the_json_say_the_same(tmp_path: Path) -> None:
    summaries = summarize([result("kill", GOOD, 1.0, 2.0)], {"kill": "1-8"})

    path = report.write(tmp_path, "faults", ManualClock(), {"kinds": report.as_json(summaries)}, summaries)

    [kind] = json.loads(path.read_text())["kinds"]
    assert (kind["rows"], kind["recovery_seconds"]) == (9, {"p50": 1.0, "p99": 2.0, "max": 2.0})
    lines = path.with_suffix(".md").read_text().splitlines()
    assert "| kill | 1-8 | 1 | 3 | 10 | 9 | 1 | 0 | 0 | 0 | 2 | 1.0 s | 2.0 s | 2.0 s |" in lines


def test_a_kind_without_recoveries_shows_none() -> None:
    summaries = summarize([result("calm", GOOD)], {"calm": ""})

    assert report.as_markdown(summaries).splitlines()[2].endswith("| 2 |  |  |  |")
