"""The audit takes a replayed record for a row, whether the table of dead letters says so yet or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.query.audit import Auditor
from k2.query.scan import Scanner
from k2.storage.dead_letter_offsets import DeadLetterOffsets
from k2.storage.planning import Planner
from k2.testing.fake_gaps import FakeGaps
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeReader
from k2.testing.local_lake import TOPIC
from k2.testing.manual_clock import ManualClock
from k2.testing.replay_world import TOPIC_ID, ReplayWorld, message
from k2.testing.simulated_hybrid import SETTINGS, topic

if TYPE_CHECKING:
    from pathlib import Path

    from k2.query.audit_report import AuditReport


def audit(world: ReplayWorld, directory: Path) -> AuditReport:
    log = FakeLog(cluster_id="cluster-1")
    log.create_topic(TOPIC, 2)
    log.topics[TOPIC].topic_id = TOPIC_ID
    for offset in range(10):
        log.append(TOPIC, b"AAA", message(offset), partition=0)
    auditor = Auditor(
        [topic("sim", partitions=2)],
        planner=Planner(world.lake.tables, world.lake.settings),
        log_facts=FakeAdmin(log),
        open_reader=lambda: FakeReader(log),
        dead_letters=DeadLetterOffsets(world.lake.tables),
        gaps=FakeGaps(),
        scanner=Scanner([str(directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30),
        settings=SETTINGS,
        clock=ManualClock(),
    )
    return auditor.verify()


@pytest.mark.parametrize("marked", [True, False])
def test_a_replayed_dead_letter_is_a_row_and_no_dead_letter(tmp_path: Path, marked: bool) -> None:
    world = ReplayWorld(tmp_path).create()
    world.ingest(0, 10, bad=[3, 5])
    if not marked:
        world.events.append = lambda events: 0 * events.height  # type: ignore[method-assign]  # as if killed before

    before = audit(world, tmp_path)
    stored = world.replay().stored
    after = audit(world, tmp_path)

    assert stored == 2
    assert before.is_sound
    assert after.is_sound, after.advice
    assert (before.totals["rows"], before.totals["dead_letters"]) == (8, 2)
    assert (after.totals["rows"], after.totals["dead_letters"]) == (10, 0)
    assert bool(world.events_of("replayed")) == marked
    world.lake.close()


@pytest.mark.parametrize("marked", [True, False])
def test_a_dead_letter_settled_as_a_duplicate_is_neither_lost_nor_a_dead_letter(tmp_path: Path, marked: bool) -> None:
    world = ReplayWorld(tmp_path).create()
    world.ingest(0, 10, bad=[3, 5], value=message(3))
    if not marked:
        world.events.append = lambda events: 0 * events.height  # type: ignore[method-assign]  # as if killed before
    world.replay()

    report = audit(world, tmp_path)

    assert report.is_sound, report.advice
    expected = {"rows": 9, "duplicates": 1, "dead_letters": 0, "lost": 0}
    assert {name: report.totals[name] for name in expected} == expected
    assert bool(world.events_of("replayed")) == marked
