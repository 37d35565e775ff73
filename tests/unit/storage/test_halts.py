"""Halted streams beside what overload defers: whose a record is, what a batch adds, which is written first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from k2.common.degradation import Priority
from k2.common.errors import AccountingError, FencedError
from k2.storage.deferral import (
    Backfill,
    DeferredList,
    Predicate,
    check_lists,
    complete_through,
    predicate_of,
    seam_after_backfill,
    seam_after_batch,
)
from k2.storage.halts import NOBODY, HaltedPart, owners, pieces
from k2.storage.seam import Counts, HaltedStream, LogPartition, PartitionDelta, PartitionSeam, Seam

KEY = LogPartition(0, 0)
LOW = Predicate("map", Priority.LOW)
A, B = HaltedStream("A", ("A",), 5, 1_000), HaltedStream("7", ("B", "C"), 12, 2_000)
EMPTY = Seam(0, {KEY: PartitionSeam(0)})


def ingest(seam: Seam, *parts: tuple[HaltedStream, int], low: int = 0, predicate: Predicate | None = None) -> Seam:
    """Return the seam after the next batch of 10 records, of which so many are halted, or deferred by priority."""
    start = seam.partitions[KEY].next_offset
    deferred = low + sum(records for _, records in parts)
    delta = PartitionDelta(start, start + 10, Counts(consumed=10, rows=10 - deferred, deferred=deferred))
    halts = {KEY: tuple(HaltedPart(halted, records) for halted, records in parts)}
    return seam_after_batch(seam, {KEY: delta}, {} if predicate is None else {KEY: predicate}, halts)


def halted(seam: Seam) -> list[tuple[str, int, int, int]]:
    return [
        (entry.halted.stream, entry.start, entry.end, entry.records)
        for entry in DeferredList.of(seam, KEY).halts
        if entry.halted
    ]


def written(seam: Seam, stream: HaltedStream, start: int, end: int, rows: int) -> Seam:
    predicate = Predicate("", len(Priority), stream)
    return seam_after_backfill(seam, KEY, Backfill(start, end, predicate, Counts(rows=rows)))


def test_a_stream_is_halted_from_the_message_on_that_showed_its_gap() -> None:
    seam = ingest(EMPTY, (A, 3))

    check_lists(seam)
    assert halted(seam) == [("A", 5, 10, 3)]
    assert complete_through(seam, KEY) == 5
    assert Seam.from_json(seam.to_json()) == seam


def test_what_follows_of_it_joins_its_range_and_another_stream_has_its_own() -> None:
    seam = ingest(ingest(EMPTY, (A, 3)), (A, 2), (B, 4))

    check_lists(seam)
    assert halted(seam) == [("A", 5, 20, 5), ("7", 12, 20, 4)]


@pytest.mark.parametrize("parts", [[], [(B, 4)]])
def test_a_batch_that_lets_a_halted_stream_pass_is_fenced(parts: list[tuple[HaltedStream, int]]) -> None:
    seam = ingest(EMPTY, (A, 3))

    with pytest.raises(FencedError, match="sort again"):
        ingest(seam, *parts)


def test_a_batch_may_not_halt_again_what_goes_on_by_now() -> None:
    seam = written(ingest(EMPTY, (A, 3)), A, 5, 10, 3)

    with pytest.raises(FencedError, match="goes on by now"):
        ingest(seam, (A, 2))
    assert halted(ingest(seam, (A, 0))) == []


def test_a_symbol_belongs_to_one_halted_stream() -> None:
    seam = ingest(EMPTY, (A, 3))

    with pytest.raises(FencedError, match="halted otherwise"):
        ingest(seam, (A, 0), (HaltedStream("8", ("A", "D"), 15, 0), 2))


def test_records_that_are_nobodys_are_refused() -> None:
    delta = PartitionDelta(0, 10, Counts(consumed=10, rows=6, deferred=4))

    with pytest.raises(AccountingError, match="found 1"):
        seam_after_batch(EMPTY, {KEY: delta}, {}, {KEY: (HaltedPart(A, 3),)})


def test_overload_is_counted_beside_a_halted_stream_and_written_without_it() -> None:
    seam = ingest(ingest(EMPTY, (A, 3)), (A, 2), low=4, predicate=LOW)

    after = seam_after_backfill(seam, KEY, Backfill(10, 20, LOW, Counts(rows=4)))

    check_lists(seam)
    check_lists(after)
    assert DeferredList.of(after, KEY).entries == ()
    assert halted(after) == [("A", 5, 20, 5)]
    assert after.partitions[KEY].counts == Counts(consumed=20, rows=15, deferred=5)


def test_a_halted_stream_is_written_after_what_overload_deferred() -> None:
    seam = ingest(ingest(EMPTY, low=4, predicate=LOW), (replace(A, since=15), 2), predicate=LOW)

    with pytest.raises(FencedError, match="at the beginning"):
        written(seam, replace(A, since=15), 15, 20, 2)


def test_streams_are_written_in_any_order_and_part_by_part() -> None:
    seam = ingest(ingest(EMPTY, (A, 3)), (A, 2), (B, 4))

    seam = written(seam, B, 12, 20, 4)
    seam = written(seam, A, 5, 8, 2)

    check_lists(seam)
    assert halted(seam) == [("A", 8, 20, 3)]
    assert halted(ingest(seam, (A, 1))) == [("A", 8, 30, 4)]
    assert written(seam, A, 8, 20, 3).deferred == ()


def test_all_of_a_stream_is_to_be_found() -> None:
    with pytest.raises(AccountingError, match="expected 3 deferred records"):
        written(ingest(EMPTY, (A, 3)), A, 5, 10, 2)


def test_the_predicate_of_a_halted_range_names_the_stream_and_no_priority() -> None:
    (entry,) = ingest(EMPTY, (A, 3)).deferred

    predicate = predicate_of(entry)

    assert predicate.halted == A
    assert not any(predicate.matches(priority) for priority in Priority)


def test_a_record_is_a_streams_from_its_message_on() -> None:
    found = owners([b"A", b"A", b"B", b"C", None, b"X", b"C"], [4, 5, 11, 12, 13, 14, 15], [A, B])

    assert found.tolist() == [NOBODY, 0, NOBODY, 1, NOBODY, NOBODY, 1]


def test_without_keys_or_streams_nothing_is_owned() -> None:
    assert owners([], [], [A]).tolist() == []
    assert owners([b"A"], [9], []).tolist() == [NOBODY]


def test_a_range_is_cut_where_streams_are_halted() -> None:
    found = list(pieces(2, 20, [A, B]))

    assert found == [(2, 5, frozenset()), (5, 12, {"A"}), (12, 20, {"A", "B", "C"})]


def test_lists_that_hold_a_stream_twice_or_out_of_place_are_told() -> None:
    seam = ingest(EMPTY, (A, 3))
    (entry,) = seam.deferred
    twice = replace(seam, deferred=(entry, replace(entry, halted=replace(A, since=4))))

    with pytest.raises(AccountingError, match="halted twice"):
        check_lists(twice)
    with pytest.raises(AccountingError, match="out of place"):
        check_lists(replace(seam, deferred=(replace(entry, start=3),)))


def test_a_seam_with_a_halted_stream_is_of_a_version_that_older_code_refuses() -> None:
    assert '"v":3' in ingest(EMPTY, (A, 3)).to_json()
    assert '"v":1' in written(ingest(EMPTY, (A, 3)), A, 5, 10, 3).to_json()
