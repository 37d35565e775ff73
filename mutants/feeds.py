"""The mutants of spools, of feeds that are held back, and of what processes tell each other."""

from __future__ import annotations

from mutants.edits import Edit, Mutant

_SPOOL = "src/k2/feeds/spool.py"
_SENDING = "src/k2/feeds/spooling_producer.py"
_BOARD = "src/k2/kafka/level_board.py"
_SPOOL_TESTS = "tests/unit/feeds/test_spool.py"
_SENDING_TESTS = "tests/unit/feeds/test_spooling_producer.py"

FEEDS = (
    Mutant(
        "spool-blindly-sent",
        "what a killed feed left is sent without asking the log what it holds",
        (
            Edit(
                _SENDING,
                "            self._held = self._values_since(self._ends, ranges)",
                "            self._held = Counter()",
            ),
        ),
        (f"{_SENDING_TESTS}::test_what_the_log_took_before_the_process_was_killed_is_not_sent_again",),
    ),
    Mutant(
        "spool-asks-too-late",
        "the log is asked from the last delivery on, not from the last note",
        (Edit(_SENDING, "        self._ends = dict(", "        self._ends = self._ends or dict("),),
        (f"{_SENDING_TESTS}::test_every_message_is_in_the_log_once_and_in_order_whatever_fails",),
    ),
    Mutant(
        "spool-without-order",
        "a marker is sent while what it speaks of is on its way",
        (Edit(_SENDING, "        if block.is_after_all:\n            self._flush()\n", ""),),
        (f"{_SENDING_TESTS}::test_what_follows_a_flush_is_sent_once_all_before_it_is_acknowledged",),
    ),
    Mutant(
        "spool-without-end",
        "a spool takes more than it may",
        (Edit(_SPOOL, "if self.bytes_held + len(content) > self._settings.bytes_max:", "if False:"),),
        (f"{_SPOOL_TESTS}::test_a_full_spool_refuses_and_counts_and_keeps_what_it_has",),
    ),
    Mutant(
        "spool-half-blocks",
        "a block that was cut off counts as whole",
        (Edit(_SPOOL, "            self._ends[number] = whole\n", "            self._ends[number] = size\n"),),
        (f"{_SPOOL_TESTS}::test_of_a_block_that_was_not_finished_nothing_is_kept",),
    ),
    Mutant(
        "feeds-never-held",
        "a feed goes on whatever the level",
        (Edit("src/k2/feeds/channel.py", "        self._hold_back()\n", ""),),
        ("tests/unit/feeds/test_gate.py::test_a_channel_asks_before_it_sends_and_sends_nothing_meanwhile",),
    ),
    Mutant(
        "levels-for-ever",
        "a worker that is silent keeps its level",
        (Edit(_BOARD, "if each.at >= oldest]", "if oldest]"),),
        ("tests/contract/test_announcing.py::test_a_worker_that_is_silent_no_longer_counts",),
    ),
    Mutant(
        "drills-for-ever",
        "a drill runs as long as it says, whatever the limit",
        (
            Edit(
                "src/k2/common/announcing.py",
                "min(self.until_ns, self.requested_at_ns + int(seconds_max * NS_PER_SECOND))",
                "self.until_ns + 0 * int(seconds_max)",
            ),
        ),
        ("tests/contract/test_announcing.py::test_no_drill_takes_longer_than_is_allowed",),
    ),
)
