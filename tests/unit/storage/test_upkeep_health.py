"""Rounds of upkeep in a row that have problems are an alert, and one sound round ends it."""

from __future__ import annotations

from k2.storage.upkeep.health import UpkeepHealth

SOUND = {"problems": [], "tables": [{"problems": []}]}
DAMAGED = {"problems": [], "tables": [{"problems": ["a data file is damaged"]}]}
DOWN = {"problems": ["trades: the catalog does not answer"], "tables": []}


def heard(*reports: dict[str, object] | None) -> list[str]:
    health = UpkeepHealth(alert_after_failures=3)
    for report in reports:
        if report is None:
            health.failed()
        else:
            health.record(report)
    return health.reasons()


def test_three_rounds_with_problems_in_a_row_are_told_with_the_last_one() -> None:
    assert heard(DOWN, None, DAMAGED) == ["upkeep: 3 rounds in a row with problems: a data file is damaged"]


def test_fewer_are_not_and_a_sound_round_begins_the_count_anew() -> None:
    assert heard(DOWN, DAMAGED) == []
    assert heard(DOWN, DAMAGED, SOUND, DOWN, DAMAGED) == []
    assert heard(DOWN, DAMAGED, DOWN, SOUND) == []


def test_a_round_without_a_report_points_to_its_log() -> None:
    assert "k2 logs upkeep" in heard(None, None, None)[0]
