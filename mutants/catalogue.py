"""The mutants: what each breaks, the edits that break it, and the tests of which at least one must fail."""

from __future__ import annotations

from mutants.amendments import AMENDMENTS
from mutants.api import API
from mutants.bars import BARS
from mutants.duplicates import DUPLICATES
from mutants.edits import Edit, Mutant
from mutants.feeds import FEEDS
from mutants.gaps import GAPS
from mutants.halts import HALTS
from mutants.overload import OVERLOAD
from mutants.repeatable import REPEATABLE
from mutants.streams import STREAMS

__all__ = ["MUTANTS", "Edit", "Mutant"]

_EXACTLY_ONCE = "tests/simulation/test_ingest_exactly_once.py"
_BEHAVIOUR = "tests/simulation/test_ingest_behaviour.py"
_WRITER = "tests/unit/storage/test_writer.py"
_HYBRID = "tests/unit/query/test_hybrid_engine.py"
_REPLAY = "test_a_hybrid_answer_equals_a_plain_replay_of_the_log"
_SNAPSHOTS = "src/k2/storage/snapshots.py"
_COMMIT = "src/k2/storage/writer.py"
_LANE = "src/k2/ingestion/table_lane.py"
_REPLACING = "src/k2/storage/replacing.py"
_ORPHANS = "src/k2/storage/upkeep/orphans.py"
_OFFSET_KILLS = "tests/simulation/test_offset_kills.py"
_REPLAYING = "tests/unit/ingestion/test_replaying.py"
_COMPACTION = "tests/unit/storage/test_compaction.py"

OWN_RETRY = """    with table.transaction() as transaction:
        if properties:
            transaction.set_properties(dict(properties))
        with transaction.update_snapshot(snapshot_properties=dict(summary)).fast_append() as update:
            for file in files:
                update.append_data_file(file)
    return table.current_snapshot().snapshot_id
"""

BY_AGE = """def _changed_ns(table: Table, name: str) -> int:
    from pathlib import Path

    return (Path(table.location().removeprefix("file://")) / name).stat().st_mtime_ns


"""

MUTANTS = (
    Mutant(
        "own-retry",
        "PyIceberg's transactions with their own commit retry do the append",
        (
            Edit(
                _SNAPSHOTS,
                "    swap_in(table, snapshot, properties)\n    return snapshot.snapshot_id\n",
                "    del snapshot\n" + OWN_RETRY,
            ),
            Edit(_SNAPSHOTS, '    if found != "0":', '    if found == "0":'),
            Edit("src/k2/storage/table_creation.py", 'RETRIES_PROPERTY: "0",', 'RETRIES_PROPERTY: "4",'),
        ),
        (f"{_WRITER}::test_the_same_partition_committed_in_between_fences",),
    ),
    Mutant(
        "retry-property",
        "a table on which PyIceberg would rebase a stale writer is written all the same",
        (Edit(_SNAPSHOTS, '    if found != "0":', "    if found is None:"),),
        (f"{_WRITER}::test_a_table_on_which_pyiceberg_would_rebase_is_refused",),
    ),
    Mutant(
        "greater-fence",
        "the fence lets a batch pass where the seam is at or above its start",
        (Edit(_COMMIT, "        if found > delta.start:\n", "        if found > delta.end:\n"),),
        (f"{_WRITER}::test_a_batch_that_overlaps_the_seam_is_fenced_too",),
    ),
    Mutant(
        "no-hole-check",
        "the fence lets a batch pass that begins above the seam",
        (Edit(_COMMIT, "        if found < delta.start:\n", "        if found < 0:\n"),),
        (f"{_WRITER}::test_a_batch_above_the_seam_would_leave_a_hole_and_is_refused_with_its_size",),
    ),
    Mutant(
        "seam-dropped",
        "a commit writes the seam of its own partitions and drops the others",
        (
            Edit(
                "src/k2/storage/seam.py",
                "        partitions = dict(self.partitions)\n        for key, delta in deltas.items():",
                "        partitions = {}\n        for key, delta in deltas.items():",
            ),
            Edit(
                "src/k2/storage/seam.py",
                "            before = partitions[key]\n",
                "            before = self.partitions[key]\n",
            ),
        ),
        ("tests/unit/storage/test_seam.py::test_a_commit_moves_the_partitions_that_it_covers_and_no_others",),
    ),
    Mutant(
        "compaction-drops-seam",
        "the snapshot of a compaction carries no seam",
        (Edit(_REPLACING, "    return {SUMMARY_KEY: summary[SUMMARY_KEY]}\n", "    return {}\n"),),
        (f"{_COMPACTION}::test_the_seam_is_carried_word_for_word",),
    ),
    Mutant(
        "compaction-blind",
        "a compaction is committed although a file that it replaces is no longer there",
        (Edit(_REPLACING, "        if missing:\n", "        if len(missing) > 10**6:\n"),),
        (f"{_COMPACTION}::test_of_two_compactions_of_the_same_files_one_gives_way",),
    ),
    Mutant(
        "compaction-unverified",
        "what a compaction wrote is not compared with what it read",
        (
            Edit(
                "src/k2/storage/upkeep/rewriting.py",
                "        if (before.rows, before.hashes) != (after.rows, after.hashes) or before.rows != job.rows:\n",
                "        if before.rows != job.rows:\n",
            ),
        ),
        ("tests/unit/storage/test_rewriting.py::test_a_rewrite_that_changes_rows_is_refused[change]",),
    ),
    Mutant(
        "sweep-by-age",
        "an orphaned file is deleted by its own age, not by the time since it was marked",
        (
            Edit(
                _ORPHANS,
                "            if name in marks.files and now - marks.files[name] >=",
                "            if now - _changed_ns(table, name) >=",
            ),
            Edit(_ORPHANS, "def read_marks(", BY_AGE + "def read_marks("),
        ),
        ("tests/unit/storage/test_orphans.py::test_the_age_of_a_file_counts_for_nothing",),
    ),
    Mutant(
        "side-tables-last",
        "the rows are committed before the dead letters",
        (
            Edit(_LANE, "        self._send_dead_letters(prepared)\n        self._sink", "        self._sink"),
            Edit(
                _LANE,
                "        commit = self._sink.told(lambda: self._writer.commit(prepared.batch))\n",
                "        commit = self._sink.told(lambda: self._writer.commit(prepared.batch))\n"
                "        self._send_dead_letters(prepared)\n",
            ),
        ),
        (f"{_BEHAVIOUR}::test_dead_letter_topic_down_holds_the_commit_back",),
    ),
    Mutant(
        "group-offsets",
        "reading starts where the consumer group has committed, not at the seam",
        (
            Edit(
                "src/k2/ingestion/intake.py",
                "        return {key: place.next_offset for key, place in self._place(partitions).items()}",
                "        placed = self._place(partitions)\n"
                "        stored = getattr(self._use_reader, 'committed', {})\n"
                "        return {key: stored.get(key, 0) for key in placed}",
            ),
        ),
        (f"{_EXACTLY_ONCE}::test_a_crash_at_any_point_loses_and_doubles_nothing[after_commit-0]",),
    ),
    Mutant(
        "dead-letters-swallowed",
        "an error of the dead-letter topic is swallowed",
        (
            Edit(
                "src/k2/ingestion/dead_letters/collector.py",
                "            self.close()\n            raise\n",
                "            self.close()\n",
            ),
        ),
        (f"{_BEHAVIOUR}::test_dead_letter_topic_down_holds_the_commit_back",),
    ),
    Mutant(
        "batch-not-looked-for",
        "after an unknown outcome the head is not searched for the batch's id",
        (Edit(_COMMIT, "        if landed is not None:\n", "        if landed == -1:\n"),),
        (f"{_WRITER}::test_a_lost_reply_is_no_second_commit",),
    ),
    Mutant(
        "no-accounts",
        "the ledger of a batch is not checked",
        (
            Edit(
                _LANE,
                "        check_ledger(self.table, prepared.deltas, "
                "rows_in_files=sum(file.rows for file in prepared.files or ()))\n",
                "",
            ),
            Edit(_COMMIT, "        check_accounts(batch)\n", ""),
        ),
        (f"{_WRITER}::test_records_unaccounted_for_stop_the_writer",),
    ),
    Mutant(
        "topic-not-checked",
        "a batch is committed without a look at whether its topic is still the same log",
        (Edit(_LANE, "        self._see_that_topics_are_unchanged(prepared)\n", ""),),
        (f"{_BEHAVIOUR}::test_a_topic_created_again_is_refused_and_the_others_go_on",),
    ),
    Mutant(
        "log-not-learned",
        "a lane reads its table's logs once, and never those registered later",
        (
            Edit(
                _LANE,
                "        if any(chunk.log.log_id not in self._logs for chunk in self._waiting):",
                "        if self._waiting and not self._logs:",
            ),
        ),
        (f"{_BEHAVIOUR}::test_a_bad_record_of_a_log_registered_later_is_sent_on",),
    ),
    Mutant(
        "hybrid-from-zero",
        "the log's side of an answer begins at offset 0, not at the seam",
        (
            Edit(
                "src/k2/query/log_side.py",
                "            seam = head.seam.next_offset(LogPartition(log.log_id, number)) or 0\n",
                "            seam = 0\n",
            ),
        ),
        (f"{_HYBRID}::test_rows_come_once_from_the_table_and_once_from_the_log",),
    ),
    Mutant(
        "tail-short",
        "an answer leaves out what the tail has not read yet",
        (
            Edit(
                "src/k2/query/log_side.py",
                "((item.seam, low), (max(high, item.seam), item.end))",
                "((item.seam, low),)",
            ),
        ),
        tuple(f"tests/simulation/test_hybrid_answers.py::{_REPLAY}[{seed}]" for seed in range(3)),
    ),
    Mutant(
        "replay-blind",
        "a replay stores a dead letter without looking for its row",
        (
            Edit(
                "src/k2/storage/replays.py",
                '.join(_held(table, replay), on="log_offset", how="anti", maintain_order="left")\n',
                "\n",
            ),
        ),
        (f"{_REPLAYING}::test_two_replays_at_once_store_each_once",),
    ),
    Mutant(
        "replay-repeats",
        "a replay stores a dead letter that says what a row of the table says",
        (
            Edit(
                "src/k2/storage/replays.py",
                "replay.settling.repeated(absent) if absent.height else _NOTHING\n",
                "_NOTHING\n",
            ),
        ),
        ("tests/unit/ingestion/test_replay_duplicates.py::test_of_two_in_one_replay_the_first_becomes_a_row",),
    ),
    Mutant(
        "letters-remembered",
        "a move of a seam that was killed leaves the dead letters above it when it is applied again",
        (
            Edit(
                "src/k2/ingestion/offset_plans.py",
                "        self._mover.forget_letters(\n",
                "        if not done:\n            return False\n        self._mover.forget_letters(\n",
            ),
        ),
        (
            f"{_OFFSET_KILLS}::test_a_move_back_that_ends_at_any_point_goes_on_when_it_is_applied_again[after_commit-True]",
        ),
    ),
    Mutant(
        "replay-early",
        "a dead letter is replayed within the window of duplicates",
        (Edit("src/k2/ingestion/dead_letters/replaying.py", "if times and not passed(times[-1]):", "if False:"),),
        (f"{_REPLAYING}::test_nothing_is_replayed_within_the_window_of_duplicates",),
    ),
    Mutant(
        "quarantine-wide",
        "a block that kills the process is never narrowed down to one message",
        (Edit("src/k2/ingestion/guarded_decoder.py", "suspects[number].deaths >= self._kills_max - 1", "False"),),
        ("tests/unit/ingestion/test_guarded_decoder.py::test_only_the_last_try_goes_message_by_message",),
    ),
    Mutant(
        "offsets-unfenced",
        "a plan is applied to whatever head the table has",
        (Edit("src/k2/storage/seam_moves.py", "if head.snapshot_id != snapshot_id:", "if False:"),),
        ("tests/unit/ingestion/test_offset_plans.py::test_a_plan_is_refused_once_something_was_committed",),
    ),
    *OVERLOAD,
    *API,
    *AMENDMENTS,
    *BARS,
    *REPEATABLE,
    *STREAMS,
    *DUPLICATES,
    *GAPS,
    *HALTS,
    *FEEDS,
)
