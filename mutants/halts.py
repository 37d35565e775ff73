"""The mutants of halted streams."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_LISTS = "src/k2/storage/halts.py"
_PARTS = "src/k2/ingestion/sequences/parts.py"
_FENCES = "tests/unit/storage/test_halts.py"
_GAPS = "tests/unit/ingestion/test_halting_gaps.py"
_SORTING = "tests/unit/ingestion/test_halting_shedding.py"
_DECIDED = f"{_GAPS}::test_a_stream_is_decided_by_the_time_of_records_that_are_left_out_before_it_is_halted"

HALTS = (
    Mutant(
        "halt-unfenced",
        "a batch is committed that lets records of a halted stream pass",
        (
            Edit(_LISTS, "    if passed:\n", "    if False:\n"),
            Edit(
                _LISTS,
                "entry.records + added[halted]) if added[halted] else entry",
                "entry.records + added[halted]) if added.get(halted) else entry",
            ),
        ),
        (f"{_FENCES}::test_a_batch_that_lets_a_halted_stream_pass_is_fenced[parts0]",),
    ),
    Mutant(
        "halt-taken-back",
        "a batch halts again a stream that goes on by now",
        (Edit(_LISTS, "        if not start <= halted.since < end or taken:\n", "        if False:\n"),),
        (f"{_FENCES}::test_a_batch_may_not_halt_again_what_goes_on_by_now",),
    ),
    Mutant(
        "halts-join-a-batch",
        "a batch goes on where other streams are halted than where it began",
        (Edit("src/k2/ingestion/pending.py", "part.halts.keys() != set(halts)", "False"),),
        (f"{_SORTING}::test_a_batch_without_halted_streams_takes_none",),
    ),
    Mutant(
        "left-out-time-unseen",
        "what a stream misses is decided by the log time of kept records alone, before it is left out as well",
        (Edit(_PARTS, "self.logged_us if self.left_out_since else 0", "0"),),
        (f"{_DECIDED}[ends0]",),
    ),
    Mutant(
        "halt-time-unseen",
        "what a stream misses is not decided by the time of the message from which on it is halted",
        (Edit(_PARTS, "(each.since, each.since_us)", "(each.since, 0)"),),
        (f"{_DECIDED}[ends1]",),
    ),
    Mutant(
        "partial-memory-kept",
        "while a stream is halted, memory is kept that was read before a deferred range was written",
        (Edit("src/k2/ingestion/sequences/ledger.py", "known and not known.is_partial and", "known and"),),
        (f"{_GAPS}::test_memory_that_a_dropped_batch_read_beside_a_deferred_range_is_read_anew_once_that_is_written",),
    ),
    Mutant(
        "checkpoint-without-halted",
        "a checkpoint is kept of a memory that lacks a halted stream",
        (Edit("src/k2/ingestion/sequences/ledger.py", " and not self._halted.get(key):", ":"),),
        (f"{_GAPS}::test_no_checkpoint_is_kept_of_a_memory_that_lacks_a_halted_stream",),
    ),
)
