"""The mutants of bars."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_STATEMENT = "src/k2/query/bars/statement.py"
_READER = "src/k2/query/bars/reader.py"
_FINISHING = "src/k2/query/bars/finishing.py"
_BARS = "tests/unit/query/test_bars.py"

BARS = (
    Mutant(
        "bars-of-all-prints",
        "special and off-session prints count in bars although only regular ones were asked for",
        (Edit(_STATEMENT, "regular AND shown AS kept", "shown AS kept"),),
        (f"{_BARS}::test_special_and_off_session_prints_are_left_out_unless_all_are_asked_for",),
    ),
    Mutant(
        "bars-amended-twice",
        "a trade that an amendment concerns counts in its bar once as amended and once as stored",
        (
            Edit(
                _READER,
                'found.condition & Condition(f"NOT ({stored_part.sql})", stored_part.values)',
                "found.condition",
            ),
        ),
        (f"{_BARS}::test_amendments_change_their_bars_which_say_so",),
    ),
    Mutant(
        "bars-of-now-by-token",
        "a token gives bars the state that they have by now",
        (
            Edit(
                _STATEMENT, '    if token is None:\n        return Condition("false")', '    return Condition("false")'
            ),
            Edit(_FINISHING, "    if asked.as_of is not None:", "    if asked.as_of == '':"),
        ),
        (f"{_BARS}::test_the_same_token_gives_the_same_bars_after_late_trades_and_commits",),
    ),
    Mutant(
        "bars-cut-unmarked",
        "a bar that the end of the range cuts is called complete",
        (Edit(_FINISHING, "    if horizon.cut_ns is not None:", "    if horizon.cut_ns == -1:"),),
        (f"{_BARS}::test_a_range_begins_with_a_whole_bar_and_says_which_bar_it_cuts",),
    ),
    Mutant(
        "bars-vwap-cut",
        "the last digit of a VWAP is cut off, not rounded",
        (Edit(_FINISHING, "    whole += 2 * rest > quantity or", "    whole += 2 * rest > 9 * quantity or"),),
        (f"{_BARS}::test_a_vwap_is_exact_and_rounded_once",),
    ),
)
