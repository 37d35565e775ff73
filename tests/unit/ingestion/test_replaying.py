"""A replay stores what is a record now, once and at its own coordinate, and leaves everything else as it was."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import UnavailableError
from k2.ingestion.settings import IngestionSettings
from k2.storage.dead_letter_events import Chosen
from k2.storage.seam import BATCH_KEY, SUMMARY_KEY, Counts, DeferredRange
from k2.storage.snapshots import append
from k2.testing.faulty_catalog import Fault
from k2.testing.replay_world import AT, OLD, ROWS_LOGGED, SCHEMA_ID, ReplayWorld

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReplayWorld]:
    world = ReplayWorld(tmp_path).create()
    yield world
    world.lake.close()


def rows_of(world: ReplayWorld, written_by: str) -> list[dict[str, object]]:
    rows = world.lake.tables.load("trades").scan(f"written_by = '{written_by}'").to_arrow().to_pylist()
    return sorted(rows, key=lambda row: row["log_offset"])


def test_a_replayed_record_is_one_row_at_its_own_coordinate(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5])
    before = world.lake.tables.head("trades")

    report = world.replay()

    after = world.lake.tables.head("trades")
    assert (report.chosen, report.stored, report.marked) == (2, 2, 2)
    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(10)]
    replayed = rows_of(world, "replay")
    assert [row["log_offset"] for row in replayed] == [3, 5]
    assert {row["commit_sequence"] for row in replayed} == {before.seam.commit_sequence + 1}
    assert after.seam.next_offset(AT) == before.seam.next_offset(AT)
    assert world.counts == Counts(consumed=10, rows=10)
    assert world.outstanding() == []
    assert world.events_of("replayed") == [3, 5]


def test_the_schema_that_made_it_readable_is_recorded_with_the_table(world: ReplayWorld) -> None:
    world.ingest(0, 2, bad=[1])

    world.replay()

    assert SCHEMA_ID in world.lake.tables.head("trades").schemas


def test_replaying_again_adds_nothing(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3])
    world.replay()
    before = world.lake.tables.head("trades")

    report = world.replay()

    assert report.chosen == 0
    assert world.lake.tables.head("trades") == before


def test_a_record_that_is_still_bad_stays_a_dead_letter_and_says_why(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3], value=b"\x00\x00\x00\x00\x09")
    world.ingest(10, 20, bad=[12])

    report = world.replay()

    assert report.stored == 1
    assert [(item.offsets, item.reason[:10]) for item in report.still_bad] == [((3,), "Undecodabl")]
    assert world.outstanding() == [3]
    assert world.counts == Counts(consumed=20, rows=19, dead_letters=1)


def test_nothing_is_replayed_within_the_window_of_duplicates(world: ReplayWorld) -> None:
    late = OLD + dt.timedelta(milliseconds=1)
    world.ingest(0, 10, bad=[3], logged=late)
    world.ingest(10, 20, bad=[12], logged=OLD)

    report = world.replay()

    assert [item.offsets for item in report.not_yet] == [(3,)]
    assert (late + dt.timedelta(hours=24)).isoformat() in report.not_yet[0].reason
    assert world.outstanding() == [3]


def test_a_later_dead_letter_shows_too_how_far_the_log_has_come(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3], logged=ROWS_LOGGED)
    world.ingest(10, 20, bad=[12], logged=ROWS_LOGGED + dt.timedelta(hours=24))

    report = world.replay()

    assert (report.stored, [item.offsets for item in report.not_yet]) == (1, [(12,)])


def test_the_window_is_a_setting(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3], logged=ROWS_LOGGED)
    world.settings = IngestionSettings(duplicate_window_hours=0)

    assert world.replay().stored == 1


def test_a_dead_letter_at_or_above_the_seam_waits_for_its_commit(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[])
    world.record([10])

    report = world.replay()

    assert report.stored == 0
    assert "not committed yet: the seam is 10" in report.not_yet[0].reason


def test_a_deferred_range_around_it_is_written_first(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 7])
    table = world.lake.tables.load("trades")
    seam = world.lake.tables.head("trades").seam
    deferred = DeferredRange(0, 0, 2, 6, "tiers", 3, 0)
    append(table, summary={SUMMARY_KEY: replace(seam, deferred=(deferred,)).to_json(), BATCH_KEY: "defer"})

    report = world.replay()

    assert [item.offsets for item in report.not_yet] == [(3,)]
    assert report.stored == 1
    assert world.outstanding() == [3]


def test_only_what_is_chosen_is_replayed(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5, 7])

    report = world.replay(Chosen(first_offset=4, last_offset=6))

    assert report.chosen == 1
    assert world.outstanding() == [3, 7]


def test_many_are_replayed_some_at_a_time(world: ReplayWorld) -> None:
    world.ingest(0, 30, bad=range(7))
    world.settings = IngestionSettings(replay_records_max=3)
    before = world.lake.tables.head("trades").seam.commit_sequence

    report = world.replay()

    assert report.stored == 7
    assert world.lake.tables.head("trades").seam.commit_sequence == before + 3
    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(30)]


def test_a_lost_reply_stores_each_once(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5])
    world.lake.catalog.faults.append(Fault.LOSE_REPLY)

    report = world.replay()

    assert report.stored == 2
    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(10)]
    assert world.counts.rows == 10


def test_an_ingest_commit_in_between_leaves_the_rows_above_its_sequence(world: ReplayWorld, tmp_path: Path) -> None:
    world.ingest(0, 10, bad=[3])
    other = ReplayWorld(tmp_path)
    left = [(10, 20)]
    world.lake.catalog.before_commit = lambda: other.ingest(*left.pop(), bad=[]) if left else None

    world.replay()

    sequence = world.lake.tables.head("trades").seam.commit_sequence
    assert [row["commit_sequence"] for row in rows_of(world, "replay")] == [sequence]
    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(20)]
    assert world.counts == Counts(consumed=20, rows=20)


def test_two_replays_at_once_store_each_once(world: ReplayWorld, tmp_path: Path) -> None:
    world.ingest(0, 10, bad=[3, 5])
    other = ReplayWorld(tmp_path)
    left = [other]
    world.lake.catalog.before_commit = lambda: left.pop().replay() if left else None

    world.replay()

    assert world.lake.coordinates() == [(0, 0, offset) for offset in range(10)]
    assert world.events_of("replayed") == [3, 5]
    assert world.counts == Counts(consumed=10, rows=10)


def test_a_registry_that_is_down_changes_nothing(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3])
    world.registry.is_up = False
    before = world.lake.tables.head("trades")

    with pytest.raises(UnavailableError):
        world.replay()

    assert world.lake.tables.head("trades") == before
    assert world.outstanding() == [3]
