"""What the overload demonstration shows is what was heard, and it calls nothing proved that is not."""

from __future__ import annotations

import pytest
from rich.console import Console

from k2.cli.degradation_view import Freshness, Outcome, Scene, closing, closing_rows, live
from k2.common.announcing import LevelAnnouncement
from k2.common.degradation import DegradationLevel

TOTALS = {
    "messages": 100, "rows": 97, "duplicates": 2, "dead_letters": 1, "deferred": 0, "lost": 0, "doubled": 0,
}  # fmt: skip


def said(level: int, deferred: int = 0, drain_seconds: float = 1.5) -> LevelAnnouncement:
    return LevelAnnouncement("w-1", DegradationLevel(level), "lag", 0, 0, 1_234, drain_seconds, 40.0, deferred)


def shown(renderable: object) -> str:
    console = Console(width=80, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()


def outcome(*, is_sound: bool = True, back: float | None = 3.0, **totals: int) -> Outcome:
    return Outcome(TOTALS | totals, is_sound=is_sound, seconds_to_normal=back)


def test_each_change_of_level_is_kept_with_its_time() -> None:
    scene = Scene()

    for seconds, level in enumerate((0, 0, 4, 4, 3, 3, 4)):
        scene.hear(said(level), seconds)

    assert [(at, each.level) for at, each in scene.changes] == [(0, 0), (2, 4), (4, 3), (6, 4)]
    assert scene.visited == [0, 3, 4]


def test_the_most_that_was_deferred_is_remembered() -> None:
    scene = Scene()

    for deferred in (0, 500, 20):
        scene.hear(said(2, deferred), 0)

    assert scene.deferred_most == 500


def test_ages_count_for_records_of_the_overload_alone() -> None:
    scene = Scene(seconds=10)
    scene.saw("tier 1", Freshness(0.1, is_complete=True))  # before it began
    scene.overloaded_since = 8
    scene.saw("tier 1", Freshness(5.0, is_complete=True))  # of the market before
    scene.saw("tier 1", Freshness(0.5, 1.5, is_complete=True))
    scene.saw("tier 1", Freshness(None, is_complete=False))

    assert scene.ages == {"tier 1": [0.5]}
    assert scene.lateness == [1.5]


def test_the_display_says_level_load_and_freshness() -> None:
    scene = Scene(phase="overload")
    scene.hear(said(3, 77), 1)
    scene.saw("tier 1", Freshness(0.25, 3.75, is_complete=True))
    scene.saw("tier 2", Freshness(None, is_complete=False))

    text = shown(live(scene))

    for part in (
        "overload", "3 AGGRESSIVE", "1,234", "1.5 s", "77", "0.25 s", "3.75 s", "complete", "incomplete, says so",
    ):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(("scene", "part"), [(Scene(), "no worker heard"), (None, "no end")])
def test_what_is_unknown_or_endless_is_said(scene: Scene | None, part: str) -> None:
    if scene is None:
        scene = Scene()
        scene.hear(said(4, drain_seconds=1e9), 0)

    assert part in shown(live(scene))


@pytest.mark.parametrize(
    "wrong",
    [{"deferred": 1}, {"rows": 96}, {"is_sound": False}],
)
def test_nothing_is_proved_that_does_not_add_up(wrong: dict) -> None:
    assert outcome().is_proved
    assert "proved by k2 verify" in shown(closing(Scene(), outcome()))

    assert not outcome(**wrong).is_proved
    assert "NOT PROVED" in shown(closing(Scene(), outcome(**wrong)))


def test_the_closing_table_says_how_long_it_took_to_come_back_or_that_it_did_not() -> None:
    scene = Scene()

    assert closing_rows(scene, outcome())[-1][1] == "3.0 s"
    assert closing_rows(scene, outcome(back=None))[-1][1] == "not within the limit"


def test_the_closing_table_tells_the_age_in_the_log_from_the_lateness_of_the_feed() -> None:
    scene = Scene(ages={"tier 1": [0.1] * 99 + [2.0]}, lateness=[0.2] * 99 + [8.0])

    rows = closing_rows(scene, outcome())

    assert ("newest record, since the log had it, tier 1", "p50 0.10 s, p99 2.00 s") in rows
    assert ("the feed's own lateness before that", "p50 0.20 s, p99 8.00 s") in rows
