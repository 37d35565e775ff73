"""A plan says exactly what moving a seam costs; applying it does that and no more, and the audit agrees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.errors import ConfigurationError, FencedError, LogIdentityError
from k2.ingestion.offset_plans import OffsetPlan
from k2.storage.dead_letter_events import Chosen
from k2.storage.seam import Counts
from k2.testing.faulty_catalog import Fault
from k2.testing.local_lake import TOPIC
from k2.testing.offset_world import OffsetWorld
from k2.testing.replay_world import message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[OffsetWorld]:
    scene = OffsetWorld(tmp_path).create()
    yield scene
    scene.close()


def test_moving_forward_counts_what_is_given_up_and_the_audit_says_so(scene: OffsetWorld) -> None:
    plan = scene.planner.plan_move(TOPIC, "25", partition=0)

    scene.planner.apply(plan)

    assert "5 records of offsets 20 to 24 are GIVEN UP" in plan.lines()[0]
    assert scene.seam() == 25
    assert scene.world.counts == Counts(consumed=25, rows=18, dead_letters=2, lost=5)
    report = scene.audit()
    assert (report.is_sound, report.totals["lost"], report.totals["given_up"]) == (True, 0, 5)


def test_moving_back_takes_out_the_rows_above_in_the_same_commit(scene: OffsetWorld) -> None:
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


def test_what_was_given_up_can_be_read_after_all(scene: OffsetWorld) -> None:
    scene.planner.apply(scene.planner.plan_move(TOPIC, "end", partition=0))
    back = scene.planner.plan_move(TOPIC, "18", partition=0)

    scene.planner.apply(back)

    assert scene.world.counts == Counts(consumed=18, rows=16, dead_letters=2)
    assert scene.world.lake.tables.head("trades").given_up == ()
    assert scene.audit().is_sound


def test_records_that_the_log_has_deleted_are_given_up_too(scene: OffsetWorld) -> None:
    scene.log.delete_before(TOPIC, 0, 24)

    scene.planner.apply(scene.planner.plan_move(TOPIC, "start", partition=0))

    assert scene.seam() == 24
    assert scene.world.counts.lost == 4
    assert scene.audit().totals["lost"] == 0


def test_a_plan_is_refused_once_something_was_committed(scene: OffsetWorld) -> None:
    plan = scene.planner.plan_move(TOPIC, "7", partition=0)
    scene.world.ingest(20, 22, bad=[])

    with pytest.raises(FencedError, match="planned 20, now 22"):
        scene.planner.apply(plan)

    assert len(scene.world.lake.coordinates()) == 20


def test_a_plan_read_from_its_file_and_applied_twice_is_applied_once(scene: OffsetWorld) -> None:
    plan = OffsetPlan.from_json(scene.planner.plan_move(TOPIC, "7", partition=0).to_json())

    answers = scene.planner.apply(plan), scene.planner.apply(plan)

    assert answers == (True, False)
    assert scene.world.counts == Counts(consumed=7, rows=6, dead_letters=1)


def test_a_lost_reply_is_found_out_by_applying_again(scene: OffsetWorld) -> None:
    plan = scene.planner.plan_move(TOPIC, "7", partition=0)
    scene.world.lake.catalog.faults.append(Fault.LOSE_REPLY)
    with pytest.raises(Exception, match="apply the same plan again"):
        scene.planner.apply(plan)

    scene.planner.apply(plan)

    assert scene.world.counts == Counts(consumed=7, rows=6, dead_letters=1)
    assert scene.world.events_of() == [3]


@pytest.mark.parametrize("to", ["31", "-1", "soon"])
def test_an_offset_that_the_log_has_not_is_refused(scene: OffsetWorld, to: str) -> None:
    with pytest.raises(ConfigurationError, match="expected an offset"):
        scene.planner.plan_move(TOPIC, to, partition=0)


def test_a_topic_created_again_becomes_a_new_log_and_nothing_else(scene: OffsetWorld) -> None:
    scene.log.create_topic(TOPIC, 2)
    with pytest.raises(LogIdentityError, match="--new-log"):
        scene.planner.plan_move(TOPIC, "end")

    plan = scene.planner.plan_new_log(TOPIC)
    answers = scene.planner.apply(plan), scene.planner.apply(plan)

    head = scene.world.lake.tables.head("trades")
    assert answers == (True, False)
    assert [log.log_id for log in head.logs] == [0, 1]
    assert scene.seam() == 20


def test_what_does_not_fit_is_shown(scene: OffsetWorld) -> None:
    scene.log.delete_before(TOPIC, 0, 24)

    shown = scene.planner.show()

    assert shown[0]["state"] == "the log begins 4 offsets above the seam"
    assert (shown[0]["seam"], shown[0]["log_start"], shown[0]["log_end"]) == (20, 24, 30)


def test_moving_back_takes_back_what_a_replay_had_settled_as_a_duplicate(scene: OffsetWorld) -> None:
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
