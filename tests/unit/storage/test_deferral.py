"""What is deferred is held back whole, written first entry first, and counted to the last record."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2.common.degradation import DegradationLevel
from k2.common.errors import AccountingError, FencedError
from k2.storage.deferral import (
    Backfill,
    DeferredList,
    Predicate,
    check_lists,
    predicate_of,
    seam_after_backfill,
    seam_after_batch,
)
from k2.storage.seam import Counts, LogPartition, PartitionDelta, PartitionSeam, Seam

KEY = LogPartition(0, 0)
OTHER = LogPartition(0, 1)
LOW, NORMAL, HIGH = (Predicate("map", number) for number in (3, 2, 1))
EMPTY = Seam(0, {KEY: PartitionSeam(0), OTHER: PartitionSeam(0)})


def ingest(seam: Seam, deferred: int, predicate: Predicate | None, *, of: int = 10, key: LogPartition = KEY) -> Seam:
    """Return the seam after the next batch of so many records, of which some are deferred."""
    start = seam.partitions[key].next_offset
    delta = PartitionDelta(start, start + of, Counts(consumed=of, rows=of - deferred, deferred=deferred))
    return seam_after_batch(seam, {key: delta}, {} if predicate is None else {key: predicate})


def entries(seam: Seam, key: LogPartition = KEY) -> list[tuple[int, int, int, int]]:
    return [
        (entry.start, entry.end, entry.lowest_deferred_priority, entry.records)
        for entry in DeferredList.of(seam, key).entries
    ]


@pytest.mark.parametrize(("level", "matched"), [(0, []), (1, []), (2, [3]), (3, [2, 3]), (4, [1, 2, 3])], ids=str)
def test_a_level_defers_what_its_table_says(level: int, matched: list[int]) -> None:
    predicate = Predicate.at(DegradationLevel(level), "map")

    assert [number for number in range(4) if predicate is not None and predicate.matches(number)] == matched


def test_a_predicate_never_takes_in_the_first_tier() -> None:
    with pytest.raises(ValueError, match="below CRITICAL"):
        Predicate("map", 0)


def test_what_a_batch_defers_joins_the_list_and_the_counters() -> None:
    seam = ingest(EMPTY, 4, LOW)

    assert entries(seam) == [(0, 10, 3, 4)]
    assert seam.partitions[KEY].counts == Counts(consumed=10, rows=6, deferred=4)
    assert (seam.next_offset(KEY), seam.commit_sequence) == (10, 1)
    assert Seam.from_json(seam.to_json()) == seam


def test_equal_predicates_are_merged_over_batches_that_had_nothing_to_defer() -> None:
    seam = ingest(ingest(ingest(EMPTY, 4, LOW), 0, LOW), 2, LOW)

    assert entries(seam) == [(0, 30, 3, 6)]


def test_a_batch_with_nothing_to_defer_begins_no_entry() -> None:
    assert entries(ingest(EMPTY, 0, HIGH)) == []


def test_a_wider_predicate_is_an_entry_of_its_own() -> None:
    seam = ingest(ingest(EMPTY, 4, LOW), 5, HIGH)

    assert entries(seam) == [(0, 10, 3, 4), (10, 20, 1, 5)]


@pytest.mark.parametrize("predicate", [None, LOW, Predicate("another map", 2)])
def test_what_the_list_matches_may_not_pass(predicate: Predicate | None) -> None:
    seam = ingest(EMPTY, 4, NORMAL)

    with pytest.raises(FencedError, match="sort again"):
        ingest(seam, 0, predicate)


def test_the_list_says_what_the_next_batch_defers() -> None:
    held = DeferredList.of(ingest(EMPTY, 4, NORMAL), KEY)

    assert held.in_force(None) == NORMAL
    assert held.in_force(LOW) == NORMAL
    assert held.in_force(HIGH) == HIGH
    assert held.in_force(Predicate("another map", 1)) == HIGH


def test_an_empty_list_lets_a_new_tier_map_in() -> None:
    another = Predicate("another map", 3)

    assert DeferredList(KEY).in_force(another) == another
    assert DeferredList(KEY).in_force(None) is None


def test_records_deferred_by_no_predicate_are_refused() -> None:
    with pytest.raises(AccountingError, match="found 3"):
        ingest(EMPTY, 3, None)


def test_partitions_have_lists_of_their_own() -> None:
    seam = ingest(ingest(EMPTY, 4, LOW, key=OTHER), 1, HIGH)

    seam = ingest(seam, 2, LOW, key=OTHER)

    assert (entries(seam), entries(seam, OTHER)) == ([(0, 10, 1, 1)], [(0, 20, 3, 6)])


def test_a_backfill_of_a_whole_entry_takes_it_from_the_list() -> None:
    seam = ingest(ingest(EMPTY, 4, LOW), 5, HIGH)

    after = seam_after_backfill(seam, KEY, Backfill(0, 10, LOW, Counts(rows=2, duplicates=1, dead_letters=1)))

    assert entries(after) == [(10, 20, 1, 5)]
    assert after.partitions[KEY].counts == Counts(consumed=20, rows=13, duplicates=1, dead_letters=1, deferred=5)
    assert (after.next_offset(KEY), after.commit_sequence) == (20, 3)


def test_a_backfill_of_a_part_shortens_the_entry() -> None:
    seam = ingest(EMPTY, 4, LOW)

    after = seam_after_backfill(seam, KEY, Backfill(0, 6, LOW, Counts(rows=3)))

    assert entries(after) == [(6, 10, 3, 1)]


def test_an_entry_that_grew_meanwhile_keeps_what_was_added() -> None:
    seam = ingest(ingest(EMPTY, 4, LOW), 2, LOW)

    after = seam_after_backfill(seam, KEY, Backfill(0, 10, LOW, Counts(rows=4)))

    assert entries(after) == [(10, 20, 3, 2)]


@pytest.mark.parametrize(
    "backfill",
    [
        Backfill(10, 20, HIGH, Counts(rows=5)),
        Backfill(0, 10, HIGH, Counts(rows=4)),
        Backfill(0, 10, Predicate("another map", 3), Counts(rows=4)),
        Backfill(0, 11, LOW, Counts(rows=4)),
        Backfill(0, 0, LOW, Counts()),
        Backfill(1, 10, LOW, Counts(rows=4)),
    ],
    ids=["the second entry", "wider", "another map", "too far", "nothing", "begun later"],
)
def test_only_the_beginning_of_the_first_entry_may_be_written(backfill: Backfill) -> None:
    seam = ingest(ingest(EMPTY, 4, LOW), 5, HIGH)

    with pytest.raises(FencedError, match="at the beginning"):
        seam_after_backfill(seam, KEY, backfill)


def test_two_backfills_of_the_same_range_store_it_once() -> None:
    backfill = Backfill(0, 10, LOW, Counts(rows=4))
    seam = seam_after_backfill(ingest(EMPTY, 4, LOW), KEY, backfill)

    with pytest.raises(FencedError, match="somebody else wrote it"):
        seam_after_backfill(seam, KEY, backfill)


@pytest.mark.parametrize("rows", [3, 5])
def test_a_range_read_to_its_end_must_have_held_as_many_records_as_were_deferred(rows: int) -> None:
    with pytest.raises(AccountingError, match="expected 4 deferred records"):
        seam_after_backfill(ingest(EMPTY, 4, LOW), KEY, Backfill(0, 10, LOW, Counts(rows=rows)))


def test_a_part_may_not_hold_more_records_than_the_whole() -> None:
    with pytest.raises(AccountingError, match="expected 4 deferred records"):
        seam_after_backfill(ingest(EMPTY, 4, LOW), KEY, Backfill(0, 6, LOW, Counts(rows=5)))


def test_what_retention_has_eaten_is_lost_and_the_entry_leaves_the_list() -> None:
    seam = ingest(EMPTY, 4, LOW)

    after = seam_after_backfill(seam, KEY, Backfill(0, 10, LOW, Counts(rows=1), log_start=7, lost=3))

    assert entries(after) == []
    assert after.partitions[KEY].counts == Counts(consumed=10, rows=7, lost=3)


def test_nothing_is_lost_that_the_log_still_holds() -> None:
    with pytest.raises(AccountingError, match="the log still begins at 0"):
        seam_after_backfill(ingest(EMPTY, 4, LOW), KEY, Backfill(0, 10, LOW, Counts(rows=1), lost=3))


def test_what_the_log_has_lost_may_leave_before_the_rest_is_written() -> None:
    seam = ingest(EMPTY, 4, LOW)

    after = seam_after_backfill(seam, KEY, Backfill(0, 7, LOW, Counts(), log_start=7, lost=3))

    assert entries(after) == [(7, 10, 3, 1)]
    assert after.partitions[KEY].counts == Counts(consumed=10, rows=6, deferred=1, lost=3)


def test_losses_are_only_told_of_what_the_log_has_lost_or_of_an_entry_read_to_its_end() -> None:
    with pytest.raises(AccountingError, match="3 lost"):
        seam_after_backfill(ingest(EMPTY, 4, LOW), KEY, Backfill(0, 6, LOW, Counts(rows=1), log_start=5, lost=3))


def test_lists_that_do_not_fit_the_counters_or_each_other_are_named() -> None:
    sound = ingest(ingest(EMPTY, 4, LOW), 5, HIGH)
    first, second = sound.deferred
    check_lists(sound)

    for wrong in (
        (replace(first, records=3), second),
        (first, replace(second, start=5)),
        (replace(first, end=0), second),
        (first, replace(second, end=21)),
        (first, replace(second, lowest_deferred_priority=3)),
        (first, replace(second, tier_map_id="another map")),
    ):
        with pytest.raises(AccountingError, match="does not fit"):
            check_lists(replace(sound, deferred=wrong))


def test_an_entry_remembers_by_what_it_was_deferred() -> None:
    assert predicate_of(ingest(EMPTY, 4, NORMAL).deferred[0]) == NORMAL
