"""In what order an ingest process is set up."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from k2 import bootstrap
from k2.cli import ingest
from k2.ingestion import memory
from k2.settings import load_settings

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


class IdleWorker:
    """A worker that ends at once."""

    table_names = ("trades",)

    def accept_new_logs(self, topics: frozenset[str]) -> None:
        assert not topics

    def silent_seconds(self) -> float:
        return 0.0

    def run(self, stop: threading.Event) -> None:
        stop.set()


def test_a_process_is_made_frugal_and_steps_back_once_everything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def make_worker(*_: object, **__: object) -> IdleWorker:
        steps.append("imported and made")
        return IdleWorker()

    monkeypatch.setattr(bootstrap, "ingest_worker", make_worker)
    monkeypatch.setattr(memory, "prepare_process", lambda: steps.append("prepared"))
    monkeypatch.setattr(os, "nice", lambda steps_back: steps.append(f"{steps_back} behind"))
    settings = load_settings(tmp_path, environ={"K2_INGESTION__NICENESS": "7"})

    ingest._run(settings, threading.Event(), port=0, accepted=frozenset())

    assert steps == ["imported and made", "prepared", "7 behind"]
