"""A topic whose messages open too many gaps is doubted, said once, and trusted again once they do not."""

from __future__ import annotations

from k2.ingestion import events
from k2.ingestion.sequences.gap_share import GapShare
from k2.ingestion.sequences.settings import SequenceSettings

DOUBTED = events.NumbersDoubted("trades", "t", 10, 3)


def noted(*counts: tuple[str, int, int]) -> list[events.Event]:
    told: list[events.Event] = []
    share = GapShare("trades", SequenceSettings(doubt_messages=10, doubt_gaps_ratio=0.2), told.append)
    for topic, messages, gaps in counts:
        share.note(topic, messages=messages, gaps=gaps)
    return told


def test_a_share_at_the_limit_is_no_doubt_and_one_above_it_is():
    assert noted(("t", 10, 2)) == []
    assert noted(("t", 10, 3)) == [DOUBTED]


def test_small_batches_are_judged_together():
    assert noted(("t", 5, 3)) == []
    assert noted(("t", 5, 3), ("t", 5, 0)) == [DOUBTED]


def test_it_is_told_once_until_the_numbers_are_trusted_again():
    flood, fine = ("t", 10, 3), ("t", 10, 0)

    told = noted(flood, flood, fine, fine, flood)

    assert told == [DOUBTED, events.NumbersTrusted("trades", "t"), DOUBTED]


def test_topics_are_judged_each_by_itself():
    assert noted(("quiet", 90, 0), ("t", 10, 3)) == [DOUBTED]
