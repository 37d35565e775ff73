"""`k2 maintain`: lengths of time, the loop in the background, and dropping days only after a yes."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest
from typer.testing import CliRunner

from k2.cli.main import app
from k2.cli.maintain import seconds_of
from k2.cli.upkeep_loop import UpkeepLoop
from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError
from k2.settings import load_settings
from k2.storage.tables import MarketTables
from k2.storage.upkeep.retention import Retention
from k2.testing.local_lake import LocalLake

REPORT = {"tables": [], "dry_run": False, "problems": []}


class Heard:
    """Takes the place of the metrics, and stops the loop once it has heard enough."""

    def __init__(self, rounds: int) -> None:
        self.stop = threading.Event()
        self.said: list[object] = []
        self.rounds = rounds

    def record(self, report: object) -> None:
        self._say(report)

    def failed(self) -> None:
        self._say("failed")

    def _say(self, word: object) -> None:
        self.said.append(word)
        if len(self.said) == self.rounds:
            self.stop.set()


def loop(heard: Heard, code: str, **settings: float) -> UpkeepLoop:
    limits = {"interval_seconds": 0.01, "round_seconds_max": 60.0, **settings}
    return UpkeepLoop([sys.executable, "-S", "-c", code], observers=[heard], clock=SystemClock(), **limits)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("2h", 7_200), ("90d", 7_776_000), ("1.5h", 5_400)]
)
def test_a_length_of_time_has_a_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "d", "-1d", "0s", "nand", "infd", "5 weeks", "1e999d"])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="30s, 5m, 2h or 90d"):
        seconds_of(text)


def test_the_loop_records_what_each_round_reports() -> None:
    heard = Heard(2)

    loop(heard, f"print({json.dumps(json.dumps(REPORT))})").run(heard.stop)

    assert heard.said == [REPORT, REPORT]


def test_a_round_that_dies_is_a_failure_and_the_loop_goes_on() -> None:
    heard = Heard(2)

    loop(heard, "import os; os._exit(137)").run(heard.stop)

    assert heard.said == ["failed", "failed"]


def test_a_round_that_takes_too_long_is_ended() -> None:
    heard = Heard(1)

    loop(heard, "import time; time.sleep(600)", round_seconds_max=0.1).run(heard.stop)

    assert heard.said == ["failed"]


def test_a_stop_ends_the_round_at_hand(tmp_path: Path) -> None:
    heard, started = Heard(99), tmp_path / "started"
    running = threading.Thread(
        target=loop(heard, f"import time; open({str(started)!r}, 'w'); time.sleep(600)").run, args=(heard.stop,)
    )
    running.start()
    while not started.exists():
        heard.stop.wait(0.01)

    heard.stop.set()
    running.join(timeout=30)

    assert not running.is_alive()
    assert heard.said == []


@pytest.fixture
def platform(tmp_path: Path) -> Path:
    """Return a data directory whose tables hold thirty rows of the first day of 2026."""
    lake = LocalLake(tmp_path).create()
    for number in range(3):
        lake.commit(f"b{number}", number * 10, (number + 1) * 10)
    lake.close()
    return tmp_path


def rows_left(data_dir: Path) -> int:
    settings = load_settings(data_dir, environ={})
    tables = MarketTables(settings.catalog, SystemClock())
    try:
        days = Retention(tables, settings.catalog, SystemClock()).plan("trades", older_than_days=1)
        return sum(day.rows for day in days)
    finally:
        tables.close()


@pytest.mark.parametrize(
    ("arguments", "answer", "left"),
    [
        (["--dry-run"], "", 30),
        ([], "n\n", 30),
        ([], "y\n", 0),
        (["--yes"], "", 0),
        (["--table", "quotes", "--yes"], "", 30),
    ],
)
def test_days_are_dropped_only_after_a_yes(platform: Path, arguments: list[str], answer: str, left: int) -> None:
    command = ["maintain", "--data-dir", str(platform), "--older-than", "1d", *arguments]

    result = CliRunner().invoke(app, command, input=answer)

    assert rows_left(platform) == left
    if "quotes" not in arguments:
        assert "2026-01-01 sim: 30 rows, 3 files" in result.output


def test_a_round_by_hand_prints_what_it_did(platform: Path) -> None:
    result = CliRunner().invoke(app, ["maintain", "--data-dir", str(platform), "--json"])

    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [one["table"] for one in report["tables"]] == ["trades", "quotes", "dead_letters", "gaps"]
    assert report["tables"][0]["after"]["rows"] == 30


@pytest.mark.parametrize(
    "arguments",
    [["--once", "--every", "5m"], ["--every", "5m", "--dry-run"], ["--table", "nothing"], ["--every", "soon"]],
)
def test_what_does_not_go_together_is_refused(platform: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["maintain", "--data-dir", str(platform), *arguments])

    assert isinstance(result.exception, ConfigurationError)
