"""`k2 drill` as a person types it: what is asked for, who is told to have asked, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from k2 import bootstrap
from k2.bootstrap import announcing
from k2.cli import feeds
from k2.cli.main import app
from k2.common.degradation import DegradationLevel
from k2.common.errors import ConfigurationError, UnavailableError
from k2.common.units import NS_PER_SECOND
from k2.testing.fake_drills import FakeDrills
from k2.testing.manual_clock import ManualClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    clock = ManualClock()
    monkeypatch.setattr(bootstrap, "system_clock", lambda: clock)
    return clock


@pytest.fixture
def drills(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> FakeDrills:
    drills = FakeDrills(clock)

    @contextmanager
    def book(_settings: object) -> Iterator[FakeDrills]:
        yield drills

    monkeypatch.setattr(announcing, "drill_book", book)
    return drills


def k2(tmp_path: Path, *words: str, said: str | None = None) -> Result:
    return CliRunner().invoke(app, [*words, "--data-dir", str(tmp_path)], input=said, catch_exceptions=False)


@pytest.mark.parametrize(("word", "level"), [("3", 3), ("AGGRESSIVE", 3), ("soft", 1)])
def test_a_level_is_asked_for_by_number_or_name(drills, clock, tmp_path: Path, word: str, level: int) -> None:
    result = k2(tmp_path, "drill", "level", word, "--for", "5m", "--yes")

    (request,) = drills.requests
    assert result.exit_code == 0
    assert request.level == level
    assert request.until_ns - clock.time_ns() == 300 * NS_PER_SECOND
    assert re.fullmatch(r".+@.+", request.requested_by)


def test_it_asks_before_it_does_anything(drills, clock, tmp_path: Path) -> None:
    refused = k2(tmp_path, "drill", "level", "4", said="n\n")
    assert refused.exit_code != 0
    assert drills.requests == []

    agreed = k2(tmp_path, "drill", "level", "4", said="y\n")

    assert "every worker takes at least CIRCUIT_BREAK for 60s; go on?" in agreed.stdout
    assert len(drills.requests) == 1


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("level", "9"), "a level among"),
        (("level", "1", "--for", "2h"), "at most 3600 s"),
        (("level", "1", "--for", "0s"), "above 0"),
        (("level", "1", "--for", "soon"), "found 'soon'"),
        (("level", "1", "--sink-delay", "31"), "at most 30 s"),
        (("overload", "--for", "2h"), "at most 3600 s"),
    ],
)
def test_a_drill_beyond_its_limits_is_refused(drills, tmp_path: Path, words: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigurationError, match=expected):
        k2(tmp_path, "drill", *words, "--yes")

    assert drills.requests == []


def test_stop_ends_the_drill_that_runs(drills: FakeDrills, clock, tmp_path: Path) -> None:
    k2(tmp_path, "drill", "level", "2", "--yes")
    assert drills.wanted() is not None

    result = k2(tmp_path, "drill", "stop")

    assert drills.wanted() is None
    assert "stopped GRACEFUL" in result.stdout
    assert "no drill runs" in k2(tmp_path, "drill", "stop").stdout
    assert len(drills.requests) == 2


def test_the_list_says_who_asked_for_what_and_what_became_of_it(drills, clock: ManualClock, tmp_path: Path) -> None:
    assert "no drills" in k2(tmp_path, "drill", "list").stdout
    k2(tmp_path, "drill", "level", "2", "--for", "60s", "--yes")
    clock.advance(10)
    k2(tmp_path, "drill", "level", "3", "--for", "60s", "--sink-delay", "0.5", "--yes")

    shown = json.loads(k2(tmp_path, "drill", "list", "--json").stdout)["drills"]

    first, second = shown
    assert (first["level"], first["running"], first["until"]) == ("GRACEFUL", False, second["requested_at"])
    assert (second["level"], second["running"], second["sink_delay_seconds"]) == ("AGGRESSIVE", True, 0.5)
    assert re.search(r"AGGRESSIVE +waits 0\.5 s .* running", k2(tmp_path, "drill", "list").stdout)


def test_overload_streams_a_market_that_nothing_holds_back_while_the_sink_is_slow(
    drills: FakeDrills, clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = []

    def stream(_data_dir, run, duration, rates, *, is_held_back):
        streamed.append((run.rate, duration, rates.any, is_held_back))
        assert drills.wanted() is not None
        raise UnavailableError("the broker is down", dependency="kafka")

    monkeypatch.setattr(feeds, "stream_market", stream)
    with pytest.raises(UnavailableError):
        k2(tmp_path, "drill", "overload", "--times", "5", "--rate", "300", "--for", "20s", "--yes")

    asked, over = drills.requests
    assert streamed == [(1500, 20, False, False)]
    assert (asked.level, asked.sink_rows_per_second) == (DegradationLevel.NORMAL, 600)
    assert "1,500 records a second" in asked.note
    assert over.until_ns <= clock.time_ns()
    assert drills.wanted() is None
