"""`k2 lines`: what the worker counted, as a table and as JSON."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from k2.cli import lines
from k2.cli.main import app
from k2.common.errors import ConfigurationError
from k2.common.metrics import Metrics
from k2.ingestion import events
from k2.ingestion.events import LineCounts
from k2.ingestion.metrics import IngestMetrics
from k2.testing.manual_clock import ManualClock


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> IngestMetrics:
    """A worker's metrics, which the command reads."""
    metrics = Metrics()
    monkeypatch.setattr(lines, "_worker_address", lambda _: "http://127.0.0.1:1")
    monkeypatch.setattr(lines, "_metrics_text", lambda _: metrics.render().decode())
    monkeypatch.setenv("COLUMNS", "160")
    return IngestMetrics(metrics, clock=ManualClock())


def test_lines_show_what_the_worker_counted(worker: IngestMetrics) -> None:
    for _ in range(2):
        worker(events.LinesCompared("trades", "asx", {"a": LineCounts(60, 15, 25, 1, 40, 0.5), "b": LineCounts(40)}))

    shown = CliRunner().invoke(app, ["lines"], catch_exceptions=False).stdout
    found = json.loads(CliRunner().invoke(app, ["lines", "--json"], catch_exceptions=False).stdout)

    assert [line.split() for line in shown.splitlines()[1:]] == [
        ["asx", "trades", "a", "120", "30", "50", "25.000%", "2", "12.5", "ms"],
        ["asx", "trades", "b", "80", "0", "0", "0.000%", "0", "0.0", "ms"],
    ]
    assert found[0] == {
        "table": "trades", "exchange": "asx", "line": "a", "first": 120, "second": 30, "lost": 50, "late": 2,
        "led": 80, "lead_seconds": 1.0, "lost_ratio": 0.25, "lead_mean_seconds": 0.0125,
    }  # fmt: skip


def test_a_worker_without_lines_says_how_to_have_some(worker: IngestMetrics) -> None:
    result = CliRunner().invoke(app, ["lines"], catch_exceptions=False)

    assert "topics.yaml" in result.stderr


def test_lines_without_a_platform_say_so(tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="k2 up"):
        CliRunner().invoke(app, ["lines", "--data-dir", str(tmp_path)], catch_exceptions=False)
