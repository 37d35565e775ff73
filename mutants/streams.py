"""The mutants of live streams."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_FOLLOWER = "src/k2/query/live/follower.py"
_HUB = "src/k2/api/streams/hub.py"
_SUBSCRIPTION = "src/k2/api/streams/subscription.py"
_READER = "src/k2/api/streams/reader.py"
_MERGING = "src/k2/query/merging.py"
_REPEATS = "tests/unit/query/test_follower.py::test_a_repeated_record_is_not_found_wherever_the_first_lies"
_OUTRUN = "tests/unit/query/test_follower.py::test_what_the_tail_has_dropped_shows_as_a_span_that_begins_too_late"
_UNAWAITED = "tests/unit/api/test_streams.py::test_a_page_that_nobody_waited_for_is_sent_all_the_same"
_AHEAD = "tests/unit/api/test_streams.py::test_a_stream_that_is_ahead_of_a_tail_that_has_just_begun_waits_for_it"
_SIMULATION = "tests/simulation/test_streams.py::test_a_stream_gives_every_row_of_the_log_since_it_began_once"

STREAMS = (
    Mutant(
        "stream-keeps-repeats",
        "a stream sends a record that repeats an earlier one",
        (
            Edit(
                _FOLLOWER,
                "return self._without_repeated(look, pinned, lows, rows), undecided",
                "return rows, undecided",
            ),
        ),
        (_REPEATS,),
    ),
    Mutant(
        "stream-skips-outrun",
        "what the tail has dropped before a stream has seen it is skipped in silence",
        (Edit(_FOLLOWER, "max(reached, view.start), view.end)", "reached, view.end)"),),
        (_OUTRUN,),
    ),
    Mutant(
        "stream-joins-behind",
        "a stream that is ahead of a tail that has just begun gets rows twice",
        (Edit(_HUB, "if position.is_ahead_of(ends):", "if False:"),),
        (_AHEAD,),
    ),
    Mutant(
        "stream-takes-any-span",
        "a stream takes what does not follow on what it has",
        (Edit(_SUBSCRIPTION, "if not self._follows(batch.spans) or", "if"),),
        (_SIMULATION,),
    ),
    Mutant(
        "stream-page-lost",
        "the rows of a page whose caller gave up are never sent",
        (
            Edit(
                _READER, "if self._ready is None:\n                self._ready", "if True:\n                self._ready"
            ),
        ),
        (_UNAWAITED,),
    ),
    Mutant(
        "stream-reads-again",
        "what a stream has sent already is read from the table again",
        (
            Edit(
                _MERGING,
                "return condition if request.since is None else condition & _not_read(request.since)",
                "return condition",
            ),
        ),
        (_SIMULATION,),
    ),
)
