"""The mutants of the degradation ladder and of what it defers."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_BREAKER = "src/k2/common/circuit_breaker.py"
_LADDER = "tests/unit/common/test_circuit_breaker.py"
_SHEDDER = "tests/unit/common/test_load_shedder.py"
_DEFERRAL = "src/k2/storage/deferral.py"
_LIST = "tests/unit/storage/test_deferral.py"
_BACKFILL = "tests/simulation/test_backfill.py"
_BACKFILLER = "src/k2/ingestion/backfill/backfiller.py"
_READING = "src/k2/ingestion/backfill/reading.py"
_DEFERRED = "tests/unit/query/test_deferred.py"
_LANE = "src/k2/ingestion/table_lane.py"
_PENDING = "src/k2/ingestion/pending.py"
_SHEDDING = "src/k2/ingestion/overload/shedding.py"
_WORKER_LADDER = "src/k2/ingestion/overload/ladder.py"
_LEDGER = "src/k2/ingestion/sequences/ledger.py"
_SORTING = "tests/unit/ingestion/test_shedding.py"
_CLIMBING = "tests/unit/ingestion/test_worker_ladder.py"
_LATER = "tests/unit/ingestion/test_deferred_gaps.py"
_COMMITS = "tests/unit/storage/test_deferring_commit.py"
_OTHERS = "tests/simulation/test_lists_of_others.py"
_GIVES_WAY = "tests/simulation/test_backfill_gives_way.py"
_OLD_LOGS = "tests/simulation/test_deferred_of_old_logs.py"
_EXAMPLES = "tests/simulation/test_shedding_behaviour.py"

OVERLOAD = (
    Mutant(
        "no-hysteresis",
        "a level is left as soon as the load is below where it begins",
        (
            Edit(
                "src/k2/common/settings.py",
                "        return self.limits().scaled(\n            lag=self",
                "        return self.limits() or self.limits().scaled(\n            lag=self",
            ),
        ),
        (f"{_LADDER}::test_just_below_the_threshold_is_not_calm",),
    ),
    Mutant(
        "no-cooldown",
        "a level is left at the first calm moment",
        (Edit(_BREAKER, "now - calm_since >= self._hold_seconds", "now - calm_since >= 0"),),
        (f"{_LADDER}::test_it_stays_until_it_has_been_calm_for_half_a_minute",),
    ),
    Mutant(
        "calm-not-restarted",
        "a spike does not restart the calm spell",
        (Edit(_BREAKER, "                self._calm_since[level] = None\n", "                continue\n"),),
        (f"{_LADDER}::test_a_spike_restarts_the_calm_spell",),
    ),
    Mutant(
        "no-doubling",
        "a ladder that flaps goes on flapping",
        (Edit(_BREAKER, "min(2 * self._hold_seconds,", "min(self._hold_seconds,"),),
        (f"{_LADDER}::test_coming_down_too_early_doubles_the_calm_that_is_asked_for",),
    ),
    Mutant(
        "lag-pauses",
        "reading pauses at the top level, whatever the cause",
        (
            Edit(
                _BREAKER,
                "        return self._memory_out or self._sink.state is not SinkState.CLOSED\n",
                "        return self._level is _TOP\n",
            ),
        ),
        (f"{_LADDER}::test_a_high_lag_alone_never_pauses_reading",),
    ),
    Mutant(
        "first-tier-deferred",
        "the top level defers the first tier as well",
        (Edit("src/k2/common/degradation.py", "= (4, 4, 3, 2, 1)", "= (4, 4, 3, 2, 0)"),),
        (f"{_SHEDDER}::test_critical_keys_are_kept_at_every_level",),
    ),
    Mutant(
        "two-tables",
        "a batch is sorted by another rule than its keys one by one",
        (
            Edit(
                "src/k2/common/load_shedder.py",
                "Division(priorities < deferred_from,",
                "Division(priorities <= deferred_from,",
            ),
        ),
        (f"{_SHEDDER}::test_breaker_and_shedder_never_disagree",),
    ),
    Mutant(
        "deferral-not-sticky",
        "records pass that a deferred list holds back, and overtake earlier ones of their symbol",
        (
            Edit(
                _DEFERRAL,
                "        if not self.entries:\n            return wanted\n",
                "        if True:\n            return wanted\n",
            ),
            Edit(_DEFERRAL, "        elif held.entries:\n", "        elif False:\n"),
        ),
        (f"{_LIST}::test_the_list_says_what_the_next_batch_defers",),
    ),
    Mutant(
        "deferral-narrows",
        "what the level defers now takes the place of what the list holds back",
        (
            Edit(_DEFERRAL, "min(held.deferred_from, wanted.deferred_from)", "wanted.deferred_from"),
            Edit(_DEFERRAL, "        if self.in_force(predicate) != predicate:\n", "        if predicate is None:\n"),
        ),
        (f"{_LIST}::test_what_the_list_matches_may_not_pass[predicate1]",),
    ),
    Mutant(
        "backfill-unfenced",
        "a backfill is committed although its range was written meanwhile",
        (Edit(_DEFERRAL, "            or entry.start != backfill.start\n", ""),),
        (f"{_LIST}::test_only_the_beginning_of_the_first_entry_may_be_written[begun later]",),
    ),
    Mutant(
        "deferred-uncounted",
        "a deferred range is forgotten whether or not its records were found",
        (Edit(_DEFERRAL, " or (whole and left) or", " or"),),
        (f"{_LIST}::test_a_range_read_to_its_end_must_have_held_as_many_records_as_were_deferred[3]",),
    ),
    Mutant(
        "losses-by-guess",
        "records count as lost that the log still holds",
        (Edit(_DEFERRAL, "backfill.log_start <= entry.start", "backfill.log_start < 0"),),
        (f"{_LIST}::test_nothing_is_lost_that_the_log_still_holds",),
    ),
    Mutant(
        "batch-not-cut",
        "a batch goes on where its level begins to defer more",
        (Edit(_PENDING, "        if part.predicate == predicate:\n", "        if True:\n"),),
        (f"{_EXAMPLES}::test_a_batch_is_cut_where_a_level_defers_more",),
    ),
    Mutant(
        "lists-not-asked",
        "the worker defers what its level says, whatever the lists hold back",
        (
            Edit(
                _SHEDDING,
                "        return self._held(log, parts).in_force(self._wanted())\n",
                "        return self._wanted()\n",
            ),
        ),
        (f"{_SORTING}::test_a_list_holds_back_what_it_matches_at_normal_too",),
    ),
    Mutant(
        "own-batches-forgotten",
        "what a batch on its way has deferred does not hold back what comes after it",
        (Edit(_SHEDDING, "            held = _with(held, part)\n", "            held = held or part\n"),),
        (f"{_SORTING}::test_what_batches_on_their_way_have_deferred_is_held_back_as_well",),
    ),
    Mutant(
        "list-by-the-map-of-now",
        "what a list holds back is told by the tier map in use, not by the list's own",
        (
            Edit(
                _SHEDDING,
                "self._shedder(predicate.tier_map_id).divide",
                "self._shedder(next(iter(self._texts))).divide",
            ),
        ),
        (f"{_SORTING}::test_a_list_of_an_older_tier_map_goes_on_by_that_map",),
    ),
    Mutant(
        "deferred-is-lost",
        "the commit moves the seam and leaves the deferred lists as they were",
        (
            Edit(
                _DEFERRAL,
                "            return seam_after_batch(seam, deltas, self.predicates, self.halts)\n",
                "            return seam.advanced(deltas)\n",
            ),
        ),
        (f"{_COMMITS}::test_what_is_deferred_and_the_map_that_says_so_go_in_by_one_commit",),
    ),
    Mutant(
        "map-not-kept",
        "the tier map of what is deferred is not written into the table",
        (
            Edit(
                "src/k2/storage/writer.py",
                "    return new_schema_properties(head, batch.new_schemas) | tiers\n",
                "    return new_schema_properties(head, batch.new_schemas)\n",
            ),
        ),
        (f"{_COMMITS}::test_what_is_deferred_and_the_map_that_says_so_go_in_by_one_commit",),
    ),
    Mutant(
        "deferred-are-gaps",
        "what is missing in a deferred range is a gap at once",
        (Edit(_LEDGER, 'if part.left_out_since and self._scopes[part.topic] != "symbol":', "if False:"),),
        (f"{_LATER}::test_what_is_deferred_is_no_gap_before_or_after_it_is_written[channel]",),
    ),
    Mutant(
        "gaps-of-deferred-forgotten",
        "what was missing in a deferred range is never decided",
        (Edit(_LEDGER, "if not is_held(change.stream)) if is_told", "if False) if is_told"),),
        (f"{_LATER}::test_a_gap_in_a_channel_that_a_deferred_range_hid_is_found_once_it_is_written[False]",),
    ),
    Mutant(
        "bursts-climb",
        "a burst that is served within a second takes the top level",
        (Edit(_WORKER_LADDER, "min(drain for _, drain, _ in self.seen)", "drain"),),
        (f"{_CLIMBING}::test_a_burst_that_is_served_within_a_second_is_no_overload",),
    ),
    Mutant(
        "drills-do-nothing",
        "the level is what the load asks for, whatever a drill does",
        (Edit(_WORKER_LADDER, "max(self.breaker.level, self._floor)", "self.breaker.level"),),
        (f"{_CLIMBING}::test_a_drill_is_a_floor_that_is_gone_with_it",),
    ),
    Mutant(
        "sink-not-spared",
        "a lane tries a failing sink whenever it likes",
        (Edit("src/k2/ingestion/overload/sink_watch.py", "self._is_trying or self._ladder.may_try_sink()", "True"),),
        (f"{_CLIMBING}::test_a_sink_that_fails_takes_the_top_level_and_is_tried_by_one_at_a_time",),
    ),
    Mutant(
        "backfills-unseen",
        "what others have written below the seam is not read before the next batch is decided",
        (
            Edit(
                "src/k2/ingestion/duplicates/deduplicator.py",
                "            self._memories[at].written_elsewhere(told[at])\n",
                "            pass\n",
            ),
        ),
        (
            "tests/unit/ingestion/test_deduplicator.py::test_what_others_wrote_below_the_seam_is_read_before_the_next_batch",
        ),
    ),
    Mutant(
        "lists-of-others-unseen",
        "a partition that comes back is sorted by the list that it had when it was lost",
        (Edit(_LANE, "if not self._shedding.reaches(chunk.log, held, chunk.start):", "if False:"),),
        (f"{_OTHERS}::test_a_list_that_is_written_while_a_returning_worker_commits_hides_no_duplicate",),
    ),
    Mutant(
        "predecessor-decided-all",
        "a successor that defers believes that all before it was decided",
        (Edit(_LEDGER, "part.start if is_first and is_told else None", "part.start"),),
        (f"{_LATER}::test_a_successor_that_goes_on_deferring_tells_what_its_predecessor_deferred[channel]",),
    ),
    Mutant(
        "markers-wait-for-deferred",
        "while something is deferred, markers of what is kept do not count",
        (Edit(_LEDGER, "part.held_at(low), us, seen", "bool, us, seen"),),
        (f"{_LATER}::test_a_marker_of_a_symbol_that_is_kept_counts_as_it_would_without_the_others[False]",),
    ),
    Mutant(
        "narrower-is-wider",
        "a list that is narrower than the one before it is taken for the same one",
        (Edit("src/k2/storage/deferral.py", " and self.deferred_from <= other.deferred_from", ""),),
        (f"{_LATER}::test_a_list_that_is_narrower_than_the_one_before_it_lets_symbols_pass_that_were_written_since",),
    ),
    Mutant(
        "backfill-fence-dropped",
        "a backfill is committed whatever the list of the head begins with",
        (Edit(_DEFERRAL, "        entry = self.fence(backfill)\n", "        entry = self.entries[0]\n"),),
        (f"{_LIST}::test_only_the_beginning_of_the_first_entry_may_be_written[the second entry]",),
    ),
    Mutant(
        "backfill-out-of-order",
        "the last range of a partition's list is written first",
        (
            Edit(
                "src/k2/ingestion/backfill/choosing.py",
                "(*of.held.entries, *ready)",
                "(*of.held.entries[::-1], *ready)",
            ),
        ),
        (f"{_BACKFILL}::test_ranges_are_written_the_first_one_first[1]",),
    ),
    Mutant(
        "backfill-count-kept",
        "records that a backfill has written stay counted as deferred",
        (Edit(_DEFERRAL, "        deferred=-backfill.records,\n", "        deferred=0,\n"),),
        (f"{_LIST}::test_a_backfill_of_a_whole_entry_takes_it_from_the_list",),
    ),
    Mutant(
        "backfill-skips",
        "a range that grows while it is read loses what the last poll had read beyond its end",
        (Edit(_READING, "            self._go_on_at_position()\n", ""),),
        ("tests/unit/ingestion/test_backfill_reading.py::test_a_range_that_grew_is_read_on_from_where_it_ended",),
    ),
    Mutant(
        "backfill-early",
        "deferred records are written while the level still defers such records",
        (Edit(_BACKFILLER, "DEFERRED_FROM[self._level()] >= len(Priority)", "True"),),
        (f"{_BACKFILL}::test_nothing_is_written_while_the_level_would_defer_it_again[1]",),
    ),
    Mutant(
        "backfill-number-low",
        "backfilled rows carry the number of an earlier commit, so that older tokens show them",
        (
            Edit(
                "src/k2/storage/backfills.py",
                "pl.lit(seam.commit_sequence, pl.Int64)",
                "pl.lit(seam.commit_sequence - 1, pl.Int64)",
            ),
        ),
        ("tests/unit/storage/test_backfills.py::test_a_commit_in_between_gives_the_rows_a_higher_number",),
    ),
    Mutant(
        "token-without-deferred",
        "a token forgets what was deferred when it was made",
        (Edit("src/k2/query/answering.py", "ends, deferred, at_ns, known_at_ns\n", "ends, (), at_ns, known_at_ns\n"),),
        (f"{_DEFERRED}::test_a_token_gives_the_same_rows_before_and_after_the_backfill",),
    ),
    Mutant(
        "stall-without-end",
        "ten seconds of silence are told as a time to drain of years",
        (Edit("src/k2/common/drain_time.py", "if stall is None or stall.service <= 0:", "if True:"),),
        ("tests/unit/common/test_drain_time.py::test_a_stall_is_taken_to_last_as_long_again_and_not_for_ever",),
    ),
    Mutant(
        "backfill-holds-on",
        "partitions that are taken away wait for a backfill that waits for the sink",
        (Edit(_BACKFILLER, "if self._must_give_way():  # a partition", "if False:  # a partition"),),
        (f"{_GIVES_WAY}::test_having_given_way_it_is_tried_again_with_as_much_time_as_before",),
    ),
    Mutant(
        "old-log-forgotten",
        "what was deferred in a topic that was created again stays deferred for good",
        (Edit("src/k2/ingestion/backfill/choosing.py", "if key.log_id < read.get(topic, 0):", "if False:"),),
        (f"{_OLD_LOGS}::test_they_are_counted_as_lost_once_the_new_log_is_accepted_at_whatever_level[2]",),
    ),
    Mutant(
        "old-log-read",
        "what was deferred in a log that is gone is read from the topic of its name",
        (Edit("src/k2/query/hybrid_engine.py", "if newest[item.topic] == item.log_id and (", "if True and ("),),
        (f"{_DEFERRED}::test_what_was_deferred_in_a_log_that_is_gone_is_never_read_from_the_topic_of_its_name",),
    ),
    Mutant(
        "deferred-unmarked",
        "an answer that lacks deferred records is called complete",
        (Edit("src/k2/query/answering.py", "        if not item.read\n", "        if item.read\n"),),
        (f"{_DEFERRED}::test_an_answer_that_lacks_deferred_records_is_marked_with_their_ranges",),
    ),
)
