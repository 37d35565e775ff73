"""The mutants of the degradation ladder and of what it defers."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_BREAKER = "src/k2/common/circuit_breaker.py"
_LADDER = "tests/unit/common/test_circuit_breaker.py"
_SHEDDER = "tests/unit/common/test_load_shedder.py"
_DEFERRAL = "src/k2/storage/deferral.py"
_LIST = "tests/unit/storage/test_deferral.py"

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
)
