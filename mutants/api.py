"""The mutants of the API's own protection, and of what an answer says of its age."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_TURNS = "src/k2/api/turns.py"
_IN_TURN = "tests/unit/api/test_turns.py"
_DEGRADED = "tests/unit/api/test_degradation.py"
_STALENESS = "tests/unit/query/test_staleness.py"

API = (
    Mutant(
        "heavy-in-every-turn",
        "long scans may take every turn",
        (Edit(_TURNS, "self._running[Weight.HEAVY] >= max(1, limit // 2)", "self._running[Weight.HEAVY] >= limit"),),
        (f"{_IN_TURN}::test_heavy_questions_take_half_of_the_turns_and_leave_the_rest_to_light_ones",),
    ),
    Mutant(
        "first-come",
        "a light question waits behind the heavy ones that came first",
        (Edit("src/k2/api/waiting_line.py", "in sorted(weights):", "in sorted(weights, reverse=True):"),),
        (f"{_IN_TURN}::test_light_questions_go_before_heavy_ones_that_came_first",),
    ),
    Mutant(
        "turn-lost",
        "a turn given to a question whose client leaves is nobody's any more",
        (Edit(_TURNS, "        if ticket.has_turn:\n", "        if not ticket.called.done():\n"),),
        (f"{_IN_TURN}::test_a_turn_given_in_the_moment_in_which_its_client_leaves_goes_to_the_next_one",),
    ),
    Mutant(
        "no-gradient",
        "as many run at once as may, however slow they get",
        (
            Edit(
                "src/k2/common/gradient_limit.py",
                "gradient * limit + math.sqrt(limit)",
                "limit + 0 * gradient + math.sqrt(limit)",
            ),
        ),
        ("tests/unit/common/test_gradient_limit.py::test_it_settles_where_the_cores_are_busy_and_no_higher",),
    ),
    Mutant(
        "heavy-at-circuit-break",
        "heavy work is let in at every level",
        (Edit("src/k2/api/levels.py", "told.level < DegradationLevel.CIRCUIT_BREAK or", "told.level >= 0 or"),),
        (f"{_DEGRADED}::test_at_circuit_break_heavy_work_is_refused_with_the_reason_and_when_to_ask_again",),
    ),
    Mutant(
        "young-by-the-answer",
        "what is known of the log's end counts from when the answer came",
        (
            Edit(
                "src/k2/query/known_log.py",
                "        self._remember(found, asked_at)\n",
                "        self._remember(found, max(asked_at, self._clock.monotonic()))\n",
            ),
        ),
        (f"{_STALENESS}::test_what_is_known_of_an_end_is_from_before_the_question_was_sent",),
    ),
    Mutant(
        "unknown-is-fresh",
        "an answer whose age nothing tells passes for young enough",
        (Edit("src/k2/query/hybrid_engine.py", "(behind is None or behind > accepted)", "(behind or 0) > accepted"),),
        (f"{_STALENESS}::test_what_cannot_be_told_is_refused_where_a_staleness_is_asked_for",),
    ),
)
