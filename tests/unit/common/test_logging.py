"""Log lines: when, how grave, what and who come first."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import structlog

from k2.common import logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_of_json_begins_with_time_level_event_and_component(capsys: pytest.CaptureFixture[str]) -> None:
    logging.configure(component="worker", json=True)

    logging.get_logger("k2.x").info("batch_committed", rows=3, snapshot_id=7)

    line = json.loads(capsys.readouterr().err)
    assert list(line)[:4] == ["timestamp", "level", "event", "component"]
    assert {name: line[name] for name in ("event", "component", "rows", "snapshot_id", "logger_name")} == {
        "event": "batch_committed",
        "component": "worker",
        "rows": 3,
        "snapshot_id": 7,
        "logger_name": "k2.x",
    }
