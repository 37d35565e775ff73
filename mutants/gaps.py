"""The mutants of the gap ledger."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_LANE = "src/k2/ingestion/table_lane.py"
_LEDGER = "src/k2/ingestion/sequences/ledger.py"
_MARKERS = "src/k2/ingestion/sequences/markers.py"
_WHATEVER = "tests/simulation/test_gap_ledger.py::test_the_ledger_is_what_a_sorted_set_says_whatever_happens"
_TOLD_AGAIN = (
    "tests/unit/ingestion/test_deferred_gaps.py::test_what_was_not_decided_yet_is_told_by_the_batch_that_is_begun_again"
)
_ANSWERS = "tests/unit/query/test_gap_aware.py"
_MARKED = "tests/unit/ingestion/test_sequence_markers.py"
_MEMORY = "tests/unit/ingestion/test_gap_ledger.py"
_STATUS = "tests/unit/ingestion/test_status_log.py"
_STATES = "tests/unit/storage/test_gaps.py"
_QUIET = "tests/unit/ingestion/test_quiet_partitions.py"
_DEFERRED = "tests/unit/ingestion/test_deferred_gaps.py"

GAPS = (
    Mutant(
        "gaps-after-commit",
        "the events of gaps are written after the rows are committed",
        (
            Edit(
                _LANE,
                "        self._sink.told(lambda: self._gap_ledger.record(watched))\n"
                '        crash_points.reached("after_side_tables")\n',
                '        crash_points.reached("after_side_tables")\n',
            ),
            Edit(
                _LANE,
                "        self._gap_ledger.committed(watched, commit.seam.commit_sequence)\n",
                "        self._gap_ledger.record(watched)\n"
                "        self._gap_ledger.committed(watched, commit.seam.commit_sequence)\n",
            ),
        ),
        (_WHATEVER,),
    ),
    Mutant(
        "checkpoint-without-deferred",
        "a checkpoint is kept of a memory that lacks what is deferred",
        (Edit(_LEDGER, "if not is_partial and not self._halted.get(key):", "if not self._halted.get(key):"),),
        (_TOLD_AGAIN,),
    ),
    Mutant(
        "ledger-before-duplicates",
        "the ledger is fed the records of a batch before its duplicates are dropped",
        (
            Edit(
                "src/k2/ingestion/pending.py",
                "decisions[log].kept,\n                left_out",
                "part.frames,\n                left_out",
            ),
        ),
        (_WHATEVER,),
    ),
    Mutant(
        "partial-rolled-forward",
        "memory from while something was left out is rolled forward over what was written of it since",
        (Edit(_LEDGER, "if known and known.is_partial:", "if None:"),),
        (f"{_DEFERRED}::test_who_comes_back_to_a_list_that_began_anew_takes_no_record_of_the_one_before_for_missing",),
    ),
    Mutant(
        "gaps-of-later",
        "an answer tells of gaps that were decided above its seam",
        (Edit("src/k2/query/gap_aware.py", '            pl.col("decided_offset") < pl.col("seam"),\n', ""),),
        (
            f"{_ANSWERS}::test_a_token_knows_the_gaps_that_it_knew",
            f"{_ANSWERS}::test_a_gap_counts_where_it_overlaps_what_was_asked_and_known",
        ),
    ),
    Mutant(
        "marked-twice",
        "what a marker showed to be missing is opened again by the next message",
        (Edit(_MARKERS, "    state.last, state.sub_index = marker.last, _ABOVE_ALL_PARTS\n", ""),),
        (f"{_MARKED}::test_the_rows_that_follow_do_not_open_it_a_second_time",),
    ),
    Mutant(
        "marked-in-any-session",
        "a marker counts for whatever session its stream is in",
        (Edit(_MARKERS, " or marker.day != state.day", ""),),
        (f"{_MARKED}::test_a_marker_of_another_session_or_of_a_stream_that_never_came_says_nothing",),
    ),
    Mutant(
        "filled-before-its-commit",
        "an answer from before a replay tells the gap that it filled as filled",
        (Edit("src/k2/query/gap_aware.py", "fill_null(0) <= _commits(certificate)", "fill_null(0) >= 0"),),
        (f"{_ANSWERS}::test_a_token_from_before_a_replay_knows_the_gap_that_it_filled",),
    ),
    Mutant(
        "quiet-too-early",
        "a missing end is told although the log holds records that the table does not",
        (Edit(_LEDGER, "seam is not None and seam >= ends[topic, number].end", "seam is not None"),),
        (f"{_QUIET}::test_while_the_log_holds_more_than_the_table_nothing_is_said",),
    ),
    Mutant(
        "ledger-ahead",
        "a memory of commits that the table has no more is believed",
        (
            Edit(
                _LEDGER,
                "(known.next_offset > start or known.commit_sequence > table.head.seam.commit_sequence)",
                "known.next_offset > start",
            ),
        ),
        (f"{_MEMORY}::test_a_memory_of_commits_that_the_table_has_no_more_is_not_believed",),
    ),
    Mutant(
        "markers-one-step",
        "a batch is decided with the markers of one poll, not with all that were written",
        (
            Edit(
                "src/k2/ingestion/sequences/status_log.py",
                "        while any(reader.position(*place) < end",
                "        if any(reader.position(*place) < end",
            ),
        ),
        (f"{_STATUS}::test_markers_are_read_to_the_end_however_many_polls_that_takes",),
    ),
    Mutant(
        "state-counts-twice",
        "a number that came twice fills two numbers of its gap",
        (
            Edit(
                "src/k2/storage/gaps.py",
                '    events = events.unique([*GAP, "event", "first_missing"], maintain_order=True)\n',
                "",
            ),
        ),
        (f"{_STATES}::test_a_number_that_comes_twice_fills_once",),
    ),
)
