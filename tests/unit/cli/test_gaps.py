"""`k2 gaps` on real tables, with no broker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from k2.cli.main import app
from k2.settings import load_settings
from k2.storage.catalog import open_catalog
from k2.storage.gaps import GapWriter
from k2.storage.tables import MarketTables
from k2.testing.gap_events import gap_event, gap_events
from k2.testing.manual_clock import ManualClock


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    settings = load_settings(tmp_path).catalog
    tables = MarketTables(settings, ManualClock(), catalog=open_catalog(settings))
    tables.ensure()
    event = gap_event(from_ns=10**18, to_ns=2 * 10**18)
    GapWriter(tables, settings, ManualClock()).append(gap_events(event))
    tables.close()
    return tmp_path


def gaps(lake: Path, *words: str) -> list[dict]:
    result = CliRunner().invoke(app, ["gaps", "--data-dir", str(lake), "--format", "json", *words])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)["data"]


def test_a_gap_says_what_is_missing_and_its_state(lake: Path) -> None:
    found = gaps(lake, "--symbol", "BHP")

    assert [(gap["gap_first"], gap["gap_last"], gap["missing"], gap["state"]) for gap in found] == [(10, 14, 5, "open")]


@pytest.mark.parametrize("words", [["--symbol", "CBA"], ["--exchange", "sim"], ["--since", "2040-01-01"]])
def test_other_gaps_are_left_out(lake: Path, words: list[str]) -> None:
    assert gaps(lake, *words) == []
