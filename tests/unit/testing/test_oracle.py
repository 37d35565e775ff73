"""The oracle finds each way in which a promise can be broken."""

from __future__ import annotations

from k2.storage.seam import Counts, LogPartition, PartitionSeam, Seam
from k2.testing.faults.oracle import StoredRow, check_progress, check_seam, judge

GOOD = {"a": "1", "b": "2"}
ROWS = [StoredRow("a", 0, "1"), StoredRow("b", 1, "2")]
KEY = LogPartition(0, 0)


def seam(next_offset: int, *, sequence: int = 1, **counts: int) -> Seam:
    return Seam(sequence, {KEY: PartitionSeam(next_offset, counts=Counts(**counts))})


def test_what_was_acknowledged_and_is_stored_once_holds() -> None:
    verdict = judge(GOOD, {"x"}, rows=ROWS, dead_letters=["x"])

    assert verdict.holds
    assert (verdict.acknowledged, verdict.rows, verdict.dead_letters) == (3, 2, 1)


def test_a_row_that_is_missing_is_lost() -> None:
    verdict = judge(GOOD, (), rows=ROWS[:1], dead_letters=[])

    assert (verdict.lost, verdict.holds) == (1, False)


def test_a_dead_letter_that_is_missing_is_lost() -> None:
    assert judge(GOOD, {"x"}, rows=ROWS, dead_letters=[]).lost == 1


def test_a_declared_duplicate_is_not_lost() -> None:
    assert judge(GOOD, (), rows=ROWS[:1], dead_letters=[], duplicates=1).holds


def test_a_record_stored_twice_is_doubled() -> None:
    assert judge(GOOD, (), rows=[*ROWS, StoredRow("a", 9, "1")], dead_letters=[]).doubled == 1


def test_a_coordinate_stored_twice_is_doubled() -> None:
    assert judge(GOOD, (), rows=[ROWS[0], StoredRow("b", 0, "2")], dead_letters=[]).doubled == 1


def test_a_dead_letter_stored_twice_is_doubled() -> None:
    assert judge(GOOD, {"x"}, rows=ROWS, dead_letters=["x", "x"]).doubled == 1


def test_content_that_changed_is_altered() -> None:
    verdict = judge(GOOD, (), rows=[ROWS[0], StoredRow("b", 1, "other")], dead_letters=[])

    assert (verdict.altered, verdict.holds) == (1, False)


def test_a_row_that_nobody_sent_is_named() -> None:
    verdict = judge(GOOD, (), rows=[*ROWS, StoredRow("ghost", 5, "")], dead_letters=[])

    assert "1 rows that nobody sent, ghost" in verdict.complaints[0]


def test_a_sound_record_among_the_dead_letters_is_named() -> None:
    assert "sound records, a" in judge(GOOD, (), rows=ROWS, dead_letters=["a"]).complaints[0]


def test_a_record_whose_acknowledgement_was_lost_may_be_stored_or_not() -> None:
    stored = judge(GOOD, (), rows=[*ROWS, StoredRow("c", 2, "3")], dead_letters=[], unacknowledged={"c"})
    absent = judge(GOOD, (), rows=ROWS, dead_letters=[], unacknowledged={"c"})

    assert stored.holds
    assert absent.holds


def test_a_ledger_that_does_not_add_up_is_named() -> None:
    [text] = check_seam("trades", seam(5, consumed=5, rows=4), {(0, 0): 4})

    assert "1 records unaccounted for" in text


def test_a_ledger_that_counts_other_rows_than_the_table_has_is_named() -> None:
    [text] = check_seam("trades", seam(5, consumed=5, rows=5), {(0, 0): 4})

    assert "counts 5 rows, the table has 4" in text


def test_a_seam_that_goes_back_or_disappears_is_named() -> None:
    before = seam(5, sequence=3, consumed=5, rows=5)

    back = check_progress("trades", before, seam(4, sequence=2, consumed=4, rows=4))
    gone = check_progress("trades", before, Seam(4, {}))

    assert len(back) == 2
    assert "went back from 5 to nothing" in gone[0]
