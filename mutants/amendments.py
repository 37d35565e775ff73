"""The mutants of cancelled and corrected trades."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_FINDING = "src/k2/query/amendments.py"
_RULE = "src/k2/schemas/amendments.py"
_ANSWERS = "tests/unit/query/test_amendments.py"
_PLAIN = "tests/simulation/test_amendments.py::test_an_answer_as_now_or_as_then_known_equals_a_plain_replay_of_the_log"

AMENDMENTS = (
    Mutant(
        "amendment-in-range-only",
        "an amendment whose own time is beyond the question's range is not looked for in the log",
        (
            Edit(
                _FINDING,
                'found.append(logged.filter(pl.col("action") != Action.NEW))',
                'found.append((logged if in_range is None else in_range).filter(pl.col("action") != Action.NEW))',
            ),
        ),
        (f"{_ANSWERS}::test_an_amendment_outside_of_the_range_counts_inside", _PLAIN),
    ),
    Mutant(
        "amendment-known-too-early",
        "what a token or a time did not know of amends its answer",
        (Edit(_FINDING, "found.append(prefix.rows(rows))", "found.append(rows)"),),
        (f"{_ANSWERS}::test_known_at_a_time_answers_as_then_known", _PLAIN),
    ),
    Mutant(
        "correction-undoes-cancel",
        "a CORRECT that comes after a CANCEL brings the trade back",
        (Edit(_RULE, "fate.correction = row", "fate.correction, fate.cancelled = row, False"),),
        ("tests/unit/schemas/test_amendments.py::test_a_cancel_ends_a_trade_whatever_comes_before_or_after", _PLAIN),
    ),
    Mutant(
        "unknown-original-complete",
        "an answer is complete although the original of one of its amendments never came",
        (Edit("src/k2/query/answering.py", "complete=not lacking and not shown.unknown,", "complete=not lacking,"),),
        (f"{_ANSWERS}::test_an_unknown_original_is_counted_and_makes_the_answer_incomplete",),
    ),
)
