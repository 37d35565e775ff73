"""A plan says exactly what moving a seam costs; applying it does that and no more, and the audit agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.errors import ConfigurationError, FencedError, LogIdentityError
from k2.ingestion.offset_plans import OffsetPlan, OffsetPlanner
from k2.ingestion.settings import IngestionSettings
from k2.query.audit import Auditor
from k2.query.scan import Scanner
from k2.storage.dead_letter_events import Chosen
from k2.storage.dead_letter_offsets import DeadLetterOffsets
from k2.storage.planning import Planner
from k2.storage.seam import Counts
from k2.storage.seam_moves import SeamMover
from k2.testing.fake_log import FakeAdmin, FakeLog, FakeReader
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import TOPIC
from k2.testing.manual_clock import ManualClock
from k2.testing.replay_world import AT, TOPIC_ID, ReplayWorld, message
from k2.testing.simulated_hybrid import SETTINGS, topic

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k2.query.audit_report import AuditReport

RECORDS = 30


class Scene:
    """A table at offset 20 of a log of 30 records, with the dead letters 3 and 15."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.world = ReplayWorld(directory).create()
        self.world.ingest(0, 10, bad=[3])
        self.world.ingest(10, 20, bad=[15])
        self.log = FakeLog(cluster_id="cluster-1")
        self.log.create_topic(TOPIC, 2)
        self.log.topics[TOPIC].topic_id = TOPIC_ID
        for offset in range(RECORDS):
            self.log.append(TOPIC, b"AAA", message(offset), partition=0)
        lake = self.world.lake
        self.planner = OffsetPlanner(
            lake.tables,
            FakeAdmin(self.log),
            SeamMover(lake.tables, lake.settings, lake.clock),
            DeadLetterOffsets(lake.tables),
            lambda: FakeReader(self.log),
            {TOPIC: "trades"},
            settings=IngestionSettings(),
            clock=lake.clock,
        )

    def audit(self) -> AuditReport:
        lake = self.world.lake
        return Auditor(
            [topic("sim", partitions=2)],
            planner=Planner(lake.tables, lake.settings),
            log_facts=FakeAdmin(self.log),
            open_reader=lambda: FakeReader(self.log),
            dead_letters=DeadLetterOffsets(lake.tables),
            scanner=Scanner([str(self.directory)], memory_limit_bytes=2**28, threads=1, seconds_max=30),
            settings=SETTINGS,
            clock=ManualClock(),
        ).verify()

    def seam(self) -> int | None:
        return self.world.lake.tables.head("trades").seam.next_offset(AT)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.world.lake.close()


def test_moving_forward_counts_what_is_given_up_and_the_audit_says_so(scene: Scene) -> None:
    plan = scene.planner.plan_move(TOPIC, "25", partition=0)

    scene.planner.apply(plan)

    assert "5 records of offsets 20 to 24 are GIVEN UP" in plan.lines()[0]
    assert scene.seam() == 25
    assert scene.world.counts == Counts(consumed=25, rows=18, dead_letters=2, lost=5)
    report = scene.audit()
    assert (report.is_sound, report.totals["lost"], report.totals["given_up"]) == (True, 0, 5)


def test_moving_back_takes_out_the_rows_above_in_the_same_commit(scene: Scene) -> None:
    plan = scene.planner.plan_move(TOPIC, "7", partition=0)

    scene.planner.apply(plan)

    assert "12 rows and 1 dead letters of offsets 7 to 19 are taken out" in plan.lines()[0]
    assert scene.seam() == 7
    assert [offset for _, _, offset in scene.world.lake.coordinates()] == [0, 1, 2, 4, 5, 6]
    assert scene.world.counts == Counts(consumed=7, rows=6, dead_letters=1)
    assert scene.world.events_of() == [3]
    assert scene.audit().is_sound
    scene.world.ingest(7, 30, bad=[15])
    assert scene.audit().is_sound


def test_what_was_given_up_can_be_read_after_all(scene: Scene) -> None:
    scene.planner.apply(scene.planner.plan_move(TOPIC, "end", partition=0))
    back = scene.planner.plan_move(TOPIC, "18", partition=0)

    scene.planner.apply(back)

    assert scene.world.counts == Counts(consumed=18, rows=16, dead_letters=2)
    assert scene.world.lake.tables.head("trades").given_up == ()
    assert scene.audit().is_sound


def test_records_that_the_log_has_deleted_are_given_up_too(scene: Scene) -> None:
    scene.log.delete_before(TOPIC, 0, 24)

    scene.planner.apply(scene.planner.plan_move(TOPIC, "start", partition=0))

    assert scene.seam() == 24
    assert scene.world.counts.lost == 4
    assert scene.audit().totals["lost"] == 0


def test_a_plan_is_refused_once_something_was_committed(scene: Scene) -> None:
    plan = scene.planner.plan_move(TOPIC, "7", partition=0)
    scene.world.ingest(20, 22, bad=[])

    with pytest.raises(FencedError, match="planned 20, now 22"):
        scene.planner.apply(plan)

    assert len(scene.world.lake.coordinates()) == 20


def test_a_plan_read_from_its_file_and_applied_twice_is_applied_once(scene: Scene) -> None:
    plan = OffsetPlan.from_json(scene.planner.plan_move(TOPIC, "7", partition=0).to_json())

    answers = scene.planner.apply(plan), scene.planner.apply(plan)

    assert answers == (True, False)
    assert scene.world.counts == Counts(consumed=7, rows=6, dead_letters=1)


def test_a_lost_reply_is_found_out_by_applying_again(scene: Scene) -> None:
    plan = scene.planner.plan_move(TOPIC, "7", partition=0)
    scene.world.lake.catalog.faults.append(Fault.LOSE_REPLY)
    with pytest.raises(Exception, match="apply the same plan again"):
        scene.planner.apply(plan)

    scene.planner.apply(plan)

    assert scene.world.counts == Counts(consumed=7, rows=6, dead_letters=1)
    assert scene.world.events_of() == [3]


@pytest.mark.parametrize("to", ["31", "-1", "soon"])
def test_an_offset_that_the_log_has_not_is_refused(scene: Scene, to: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an offset"):
        scene.planner.plan_move(TOPIC, to, partition=0)


def test_a_topic_created_again_becomes_a_new_log_and_nothing_else(scene: Scene) -> None:
    scene.log.create_topic(TOPIC, 2)
    with pytest.raises(LogIdentityError, match="--new-log"):
        scene.planner.plan_move(TOPIC, "end")

    plan = scene.planner.plan_new_log(TOPIC)
    answers = scene.planner.apply(plan), scene.planner.apply(plan)

    head = scene.world.lake.tables.head("trades")
    assert answers == (True, False)
    assert [log.log_id for log in head.logs] == [0, 1]
    assert scene.seam() == 20


def test_what_does_not_fit_is_shown(scene: Scene) -> None:
    scene.log.delete_before(TOPIC, 0, 24)

    shown = scene.planner.show()

    assert shown[0]["state"] == "the log begins 4 offsets above the seam"
    assert (shown[0]["seam"], shown[0]["log_start"], shown[0]["log_end"]) == (20, 24, 30)


def test_moving_back_takes_back_what_a_replay_had_settled_as_a_duplicate(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    bad, same = [22, 25], message(22)
    scene.world.ingest(20, 30, bad=bad, value=same)
    scene.world.replay(Chosen(first_offset=20))
    settled = scene.audit()

    scene.planner.apply(scene.planner.plan_move(TOPIC, "21", partition=0))
    taken_back = scene.world.counts
    scene.world.ingest(21, 30, bad=bad, value=same)
    scene.world.replay(Chosen(first_offset=20))

    assert (settled.is_sound, settled.totals["duplicates"]) == (True, 1)
    assert taken_back == Counts(consumed=21, rows=19, dead_letters=2)
    assert scene.world.counts == Counts(consumed=30, rows=27, duplicates=1, dead_letters=2)
    assert scene.audit().is_sound
    scene.world.lake.close()
