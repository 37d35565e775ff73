"""The commands that start K2's own processes."""

from __future__ import annotations

import pytest

from k2.common.metrics import Metrics
from k2.ingestion.status_server import StatusServer
from k2.local.component import Site, UnhealthyError
from k2.local.k2_component import api, simulator, upkeep, worker
from k2.local.layout import DataDirectory


def _words(component, root, port=9308):
    return component.command(Site(DataDirectory.at(root), {component.port_names[0]: port})).words


def _member_id(words):
    return words[words.index("--member-id") + 1]


def test_a_platforms_worker_has_the_same_member_id_at_every_start(tmp_path):
    first, again = _words(worker(), tmp_path / "a"), _words(worker(), tmp_path / "a", port=9400)

    assert _member_id(first) == _member_id(again)


def test_two_platforms_workers_have_different_member_ids(tmp_path):
    assert _member_id(_words(worker(), tmp_path / "a")) != _member_id(_words(worker(), tmp_path / "b"))


def test_only_the_worker_is_a_member_of_a_group(tmp_path):
    assert "--member-id" not in _words(api(), tmp_path)


@pytest.fixture
def served():
    """A process of K2 that lives, and what keeps it from its work."""
    reasons = []
    server = StatusServer(
        "127.0.0.1", 0, metrics=Metrics(), unready=lambda: reasons, silent_seconds=lambda: 0.0, silent_seconds_max=1.0
    )
    server.start()
    yield server.address[1], reasons
    server.stop()


def test_a_process_that_lives_and_cannot_do_its_work_says_why(tmp_path, served):
    port, reasons = served
    site = Site(DataDirectory.at(tmp_path), {"upkeep": port})
    before = upkeep().unready(site, timeout_seconds=5)
    reasons.append("upkeep: 3 rounds in a row with problems: disk full")

    upkeep().check(site, timeout_seconds=5)

    assert before == ()
    assert upkeep().unready(site, timeout_seconds=5) == tuple(reasons)


def test_a_process_without_a_port_is_not_asked(tmp_path):
    assert simulator().unready(Site(DataDirectory.at(tmp_path), {}), timeout_seconds=5) == ()


def test_no_answer_is_unhealthy(tmp_path):
    with pytest.raises(UnhealthyError, match="no answer from worker"):
        worker().unready(Site(DataDirectory.at(tmp_path), {"worker": 1}), timeout_seconds=1)
