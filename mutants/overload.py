"""The mutants of the degradation ladder and of what it defers."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_BREAKER = "src/k2/common/circuit_breaker.py"
_LADDER = "tests/unit/common/test_circuit_breaker.py"
_SHEDDER = "tests/unit/common/test_load_shedder.py"

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
)
