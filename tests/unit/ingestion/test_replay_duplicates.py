"""A replayed dead letter that says what a row says already is settled without a second one, and the ledger adds up."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from k2.storage.dead_letter_events import Chosen
from k2.storage.seam import Counts
from k2.testing.faulty_catalog import Fault
from k2.testing.replay_world import AT, OLD, ROWS_LOGGED, ReplayWorld, message

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SAME = message(3)
"""What the messages at all bad offsets say."""
ONLY_3, ONLY_5 = (Chosen(first_offset=offset, last_offset=offset) for offset in (3, 5))
SETTLED = Counts(consumed=10, rows=9, duplicates=1)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[ReplayWorld]:
    world = ReplayWorld(tmp_path).create()
    yield world
    world.lake.close()


def replayed(world: ReplayWorld) -> list[int]:
    rows = world.lake.tables.load("trades").scan("written_by = 'replay'").to_arrow()
    return sorted(rows["log_offset"].to_pylist())


def test_of_two_in_one_replay_the_first_becomes_a_row(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5], value=SAME)

    report = world.replay()

    assert (report.stored, report.duplicates, report.marked) == (1, 1, 2)
    assert replayed(world) == [3]
    assert world.counts == SETTLED
    assert world.outstanding() == []
    assert world.events_of("replayed") == [3, 5]


@pytest.mark.parametrize(("first", "second", "row"), [(ONLY_3, ONLY_5, 3), (ONLY_5, ONLY_3, 5)])
def test_a_row_before_or_after_it_in_the_log_is_not_repeated(
    world: ReplayWorld, first: Chosen, second: Chosen, row: int
) -> None:
    world.ingest(0, 10, bad=[3, 5], value=SAME)
    world.replay(first)

    report = world.replay(second)

    assert (report.stored, report.duplicates, report.marked) == (0, 1, 1)
    assert replayed(world) == [row]
    assert world.counts == SETTLED
    assert world.outstanding() == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(("apart_ms", "stored"), [(0, 1), (1, 2)])
def test_a_day_of_log_time_apart_still_is_a_duplicate_and_more_is_not(
    world: ReplayWorld, apart_ms: int, stored: int, at_once: bool
) -> None:
    day_before = OLD - dt.timedelta(hours=24, milliseconds=apart_ms)
    same = message(3, ts_event_ns=int(day_before.timestamp()) * 10**9, trading_date=day_before.date())
    world.ingest(0, 10, bad=[3], value=same, logged=day_before)
    world.ingest(10, 20, bad=[12], value=same, logged=OLD)

    if not at_once:
        world.replay(ONLY_3)

    world.replay()

    assert world.counts == Counts(consumed=20, rows=18 + stored, duplicates=2 - stored)


def test_the_same_identity_with_other_content_is_kept(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3], value=SAME)
    world.ingest(10, 20, bad=[13], value=message(3, conditions=["XT"]))

    report = world.replay()

    assert (report.stored, report.duplicates) == (2, 0)


def test_a_lost_reply_settles_it_once(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5], value=SAME)
    world.lake.catalog.faults.append(Fault.LOSE_REPLY)

    report = world.replay()

    assert (report.stored, report.duplicates) == (1, 1)
    assert world.counts == SETTLED


def test_two_replays_at_once_settle_it_once(world: ReplayWorld, tmp_path: Path) -> None:
    world.ingest(0, 10, bad=[3, 5], value=SAME)
    world.replay(ONLY_3)
    left = [ReplayWorld(tmp_path)]
    world.lake.catalog.before_commit = lambda: left.pop().replay() if left else None

    world.replay()

    assert replayed(world) == [3]
    assert world.counts == SETTLED
    assert world.events_of("replayed") == [3, 5]


def test_of_two_replays_at_once_of_the_same_record_one_stores_it(world: ReplayWorld, tmp_path: Path) -> None:
    world.ingest(0, 10, bad=[3, 5], value=SAME)
    left = [ReplayWorld(tmp_path)]
    world.lake.catalog.before_commit = lambda: left.pop().replay(ONLY_5) if left else None

    world.replay(ONLY_3)

    assert replayed(world) == [5]
    assert world.counts == SETTLED
    assert world.outstanding() == []


def test_what_was_settled_before_its_event_was_written_is_not_counted_again(world: ReplayWorld, tmp_path: Path) -> None:
    world.ingest(0, 10, bad=[3, 5, 7], value=SAME)
    append, world.events.append = world.events.append, lambda events: 0 * events.height  # type: ignore[method-assign]  # as if killed before
    world.replay(Chosen(first_offset=3, last_offset=5))
    world.events.append = append  # type: ignore[method-assign]
    half_way = world.counts
    world.replay(Chosen(first_offset=7, last_offset=7))

    report = world.replay()

    assert half_way == Counts(consumed=10, rows=8, duplicates=1, dead_letters=1)
    assert (report.stored, report.marked) == (0, 2)
    assert world.counts == Counts(consumed=10, rows=8, duplicates=2)
    assert world.outstanding() == []


def test_the_offsets_kept_for_events_to_come_do_not_pile_up(world: ReplayWorld) -> None:
    world.ingest(0, 10, bad=[3, 5, 7], value=SAME)

    for offset in (3, 5, 7):
        world.replay(Chosen(first_offset=offset, last_offset=offset))

    assert world.lake.tables.head("trades").settled == {AT: frozenset({7})}


def test_the_day_is_a_part_of_the_contract_whatever_the_wait_before_a_replay(world: ReplayWorld) -> None:
    world.settings = world.settings.model_copy(update={"duplicate_window_hours": 0})
    world.ingest(0, 10, bad=[3, 5], value=SAME, logged=ROWS_LOGGED)

    assert world.replay().duplicates == 1
