"""The mutants of duplicates: of what decides them in ingestion, and of what finds them with Valkey's help."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_RULE = "src/k2/schemas/duplicates.py"
_TABLE = "src/k2/ingestion/duplicates/deduplicator.py"
_BY_ID = "src/k2/ingestion/bloom_deduplicator.py"
_GENERATIONS = "src/k2/ingestion/duplicates/bloom_generations.py"
_STORE = "src/k2/ingestion/duplicates/confirm_store.py"
_RULES = "tests/unit/schemas/test_duplicates.py"
_DECIDING = "tests/unit/ingestion/test_deduplicator.py"
_IDS = "tests/unit/ingestion/test_bloom_deduplicator.py"
_STORES = "tests/contract/test_confirm_store.py"
_WHATEVER = "tests/simulation/test_duplicates.py"

DUPLICATES = (
    Mutant(
        "content-not-compared",
        "a record is dropped for its identity, whatever it says",
        (Edit(_RULE, "group=pl.struct(SAME)", "group=pl.struct(IDENTITY)"),),
        (f"{_RULES}::test_other_content_is_a_conflict_and_both_are_kept",),
    ),
    Mutant(
        "later-winner",
        "a stored row at or after a record makes it a duplicate, its own row from before a crash among them",
        (Edit(_RULE, 'kept = kept.filter(pl.col("log_offset") < first).select(WINNER)', "kept = kept.select(WINNER)"),),
        (f"{_RULES}::test_a_stored_row_that_is_not_earlier_does_not_count",),
    ),
    Mutant(
        "remembered-before-commit",
        "what a batch holds is remembered when it is decided, not when it is in the table",
        (
            Edit(
                _TABLE,
                "                decisions[at] = self._decide(at, part, known[at], pinned)\n",
                "                decisions[at] = self._decide(at, part, known[at], pinned)\n"
                "                self._learn(self._memories[at], known[at].named)\n",
            ),
        ),
        (f"{_DECIDING}::test_a_batch_that_was_not_committed_is_not_remembered",),
    ),
    Mutant(
        "commit-not-remembered",
        "what a commit stored is not remembered",
        (
            Edit(
                _TABLE,
                "                self._learn(memory, decision.learned)\n            memory.next_offset",
                "                pass\n            memory.next_offset",
            ),
        ),
        (f"{_WHATEVER}::test_conflicts_are_kept_and_told",),
    ),
    Mutant(
        "table-not-read-back",
        "a memory that was lost, or that another worker has overtaken, is not made again from the table",
        (
            Edit(
                _TABLE,
                "        if blind:\n            log.warning",
                "        if not blind:\n            pass\n        elif blind:\n            log.warning",
            ),
        ),
        (
            f"{_WHATEVER}::test_a_restarted_worker_still_knows_what_was_stored",
            f"{_WHATEVER}::test_what_another_worker_stored_meanwhile_is_rolled_forward",
        ),
    ),
    Mutant(
        "generation-dropped-early",
        "the filters forget a generation before its last id is a window old",
        (
            Edit(
                _GENERATIONS,
                "if old <= number - GENERATIONS and self._drop(old)",
                "if old <= number - GENERATIONS + 1 and self._drop(old)",
            ),
        ),
        (f"{_IDS}::test_the_window_is_a_day_of_log_time_by_the_winners_time",),
    ),
    Mutant(
        "replay-is-duplicate",
        "an id that comes at the offset where it was accepted counts as a duplicate",
        (Edit(_BY_ID, "offsets is None or winner.offset != offsets[place]", "True"),),
        (f"{_IDS}::test_the_same_coordinate_again_is_a_replay",),
    ),
    Mutant(
        "filter-decides",
        "an id that the filters suspect counts as a duplicate while Valkey does not answer",
        (
            Edit(
                _BY_ID,
                "            self._warn(error)\n            return dict.fromkeys(places, (None, False))\n",
                "            self._warn(error)\n"
                "            return dict.fromkeys(places, (Sighting(self._clock.time_ns() // 10**6, None), True))\n",
            ),
        ),
        (f"{_IDS}::test_a_store_that_is_down_and_no_table_lets_duplicates_pass",),
    ),
    Mutant(
        "outage-is-new",
        "while Valkey does not answer every id counts as new, and no table is asked",
        (
            Edit(
                _BY_ID,
                "            self._warn(error)\n            return dict.fromkeys(places, (None, False))\n",
                "            self._warn(error)\n            return dict.fromkeys(places, (None, True))\n",
            ),
        ),
        (f"{_IDS}::test_a_store_that_is_down_drops_nothing_and_asks_the_table",),
    ),
    Mutant(
        "flush-unnoticed",
        "what Valkey does not hold counts as new although it was emptied meanwhile",
        (Edit(_BY_ID, "            if not self._store.is_attached():\n", "            if False:\n"),),
        (f"{_IDS}::test_a_store_that_was_emptied_is_noticed",),
    ),
    Mutant(
        "older-copy-unnoticed",
        "a Valkey that came back with an older copy counts as whole",
        (
            Edit(_STORE, " and int(writes or 0) >= self._writes\n", "\n"),
            Edit(_STORE, "        if writes <= self._writes:\n", "        if writes <= 0:\n"),
        ),
        (f"{_STORES}::test_a_store_that_came_back_with_an_older_copy_is_not_attached_until_it_is_marked_anew",),
    ),
    Mutant(
        "empty-store-trusted",
        "a process that begins on an emptied Valkey takes what the table holds for new",
        (Edit(_BY_ID, "self._untold = not (was_attached or self._is_told)", "self._untold = False"),),
        (f"{_IDS}::test_a_new_process_on_an_emptied_store_asks_the_table_about_every_id_for_a_window",),
    ),
)
