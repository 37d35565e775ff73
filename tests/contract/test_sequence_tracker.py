"""What every sequence tracker does: the one in memory and the one on a real Valkey, by the same tests."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest
import valkey

from k2.ingestion.redis_sequence_tracker import RedisSequenceTracker
from k2.ingestion.sequences.rules import Message, SequenceKind, SequenceRules, StreamState
from k2.ingestion.sequences.tracker import MemorySequenceTracker, SequenceCheck
from k2.testing.manual_clock import ManualClock

NORMAL, GAP = SequenceKind.NORMAL, SequenceKind.GAP
OUT_OF_ORDER, DUPLICATE, RESET = SequenceKind.OUT_OF_ORDER, SequenceKind.DUPLICATE, SequenceKind.RESET
AT = datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.fixture(params=["memory", pytest.param("valkey", marks=pytest.mark.platform)])
def make(request):
    """Return what makes a tracker with an empty memory."""
    if request.param == "memory":
        yield MemorySequenceTracker
        return
    client = valkey.Valkey.from_url(request.getfixturevalue("valkey_url"), socket_timeout=5)
    client.flushall()

    def made(rules=None, **options):
        return RedisSequenceTracker(client, rules, clock=ManualClock(), **options)

    yield made
    client.close()


@pytest.fixture
def tracker(make):
    return make()


def kinds(tracker, *sequences, **options):
    return [tracker.check_sequence("asx", "BHP", sequence, AT, **options).kind for sequence in sequences]


def test_consecutive_numbers_are_normal(tracker):
    assert kinds(tracker, 7, 8, 9) == [NORMAL] * 3


def test_the_first_message_expects_nothing(tracker):
    event = tracker.check_sequence("asx", "BHP", 500, AT)

    assert (event.kind, event.expected, event.found, event.missing) == (NORMAL, None, 500, 0)


def test_a_gap_says_what_was_expected_and_what_was_found(tracker):
    kinds(tracker, 1, 2)

    event = tracker.check_sequence("asx", "BHP", 6, AT)

    assert (event.kind, event.expected, event.found, event.missing) == (GAP, 3, 6, 3)
    assert (event.exchange, event.symbol) == ("asx", "BHP")


def test_a_late_message_that_was_missing_is_out_of_order_and_only_once(tracker):
    assert kinds(tracker, 1, 5, 3, 3, 2, 4, 4) == [NORMAL, GAP, OUT_OF_ORDER, DUPLICATE, OUT_OF_ORDER, OUT_OF_ORDER,
                                                   DUPLICATE]  # fmt: skip


def test_a_number_seen_before_is_a_duplicate(tracker):
    kinds(tracker, 1, 2, 3)

    event = tracker.check_sequence("asx", "BHP", 2, AT)

    assert (event.kind, event.expected, event.found) == (DUPLICATE, 4, 2)


def test_a_number_below_the_first_one_is_late_and_no_duplicate(tracker):
    assert kinds(tracker, 50, 49) == [NORMAL, OUT_OF_ORDER]


def test_numbers_that_begin_anew_are_a_reset_and_go_on_from_there(tracker):
    kinds(tracker, *range(1, 301))

    assert kinds(tracker, 1, 2, 4) == [RESET, NORMAL, GAP]


def test_a_step_back_that_is_small_or_not_low_is_no_reset(tracker):
    kinds(tracker, *range(1, 301))

    assert kinds(tracker, 250, 11) == [DUPLICATE, DUPLICATE]


def test_a_new_trading_day_begins_anew_however_near_the_number(tracker):
    kinds(tracker, 1, 2, 3, trading_day=20_000)

    assert kinds(tracker, 2, 3, trading_day=20_001) == [RESET, NORMAL]


def test_a_numbering_that_goes_on_over_midnight_is_no_reset(tracker):
    kinds(tracker, 1, 2, 3, trading_day=20_000)

    assert kinds(tracker, 4, 6, trading_day=20_001) == [NORMAL, GAP]
    assert kinds(tracker, 3, trading_day=20_000) == [DUPLICATE]


def test_yesterdays_late_message_does_not_disturb_todays_numbering(tracker):
    kinds(tracker, 1, 2, 40, trading_day=20_000)
    kinds(tracker, 1, 2, trading_day=20_001)

    assert kinds(tracker, 30, 99, trading_day=20_000) == [OUT_OF_ORDER, OUT_OF_ORDER]
    assert kinds(tracker, 3, trading_day=20_001) == [NORMAL]


def test_messages_of_one_packet_share_a_number(tracker):
    checks = [SequenceCheck("asx", "BHP", 7, AT, sub_index=place) for place in (0, 1, 2, 1)]

    events = tracker.check_sequence_batch([*checks, SequenceCheck("asx", "BHP", 8, AT, sub_index=0), checks[2]])

    assert [event.kind for event in events] == [NORMAL, NORMAL, NORMAL, DUPLICATE, NORMAL, OUT_OF_ORDER]


def test_data_types_channels_and_sessions_have_numbers_of_their_own(tracker):
    kinds(tracker, 1, 2, 3)

    assert kinds(tracker, 9, data_type="quotes") == [NORMAL]
    assert kinds(tracker, 9, 10, channel="c1") == [NORMAL, NORMAL]
    assert kinds(tracker, 9, 11, session="s1") == [NORMAL, GAP]
    assert kinds(tracker, 4) == [NORMAL]


def test_a_coordinate_that_was_seen_changes_nothing(tracker):
    for sequence, offset in ((1, 100), (2, 101), (9, 105)):
        tracker.check_sequence("asx", "BHP", sequence, AT, partition=3, offset=offset)

    replayed = [tracker.check_sequence("asx", "BHP", 2, AT, partition=3, offset=offset) for offset in (101, 105)]
    elsewhere = tracker.check_sequence("asx", "BHP", 5, AT, partition=4, offset=7)

    assert [(event.kind, event.replayed) for event in replayed] == [(NORMAL, True)] * 2
    assert (elsewhere.kind, elsewhere.replayed) == (OUT_OF_ORDER, False)


def test_events_of_a_batch_see_each_other_and_resets_are_found_inside(tracker):
    sequences = [*range(1, 200), 210, 205, 1, 2, 2]

    events = tracker.check_sequence_batch([("asx", "BHP", sequence, AT) for sequence in sequences])

    assert [event.kind for event in events[199:]] == [GAP, OUT_OF_ORDER, RESET, NORMAL, DUPLICATE]
    assert {event.kind for event in events[:199]} == {NORMAL}


def test_numbers_of_nineteen_digits_are_exact(tracker):
    high = 2**63 - 10

    events = tracker.check_sequence_batch([("asx", "BHP", high + step, AT) for step in (0, 1, 4, 2, 1)])

    assert [event.kind for event in events] == [NORMAL, NORMAL, GAP, OUT_OF_ORDER, DUPLICATE]
    assert (events[2].expected, events[2].found) == (high + 2, high + 4)


def test_the_table_is_asked_for_a_stream_that_is_not_remembered(make):
    asked = []

    def load(key):
        asked.append(key.symbol)
        return StreamState(Message(41, 0)) if key.symbol == "BHP" else None

    tracker = make(load=load)

    found = kinds(tracker, 42, 44)
    other = tracker.check_sequence("asx", "CBA", 9, AT)

    assert (found, other.expected) == ([NORMAL, GAP], None)
    assert asked == ["BHP", "CBA"]


def test_a_stream_that_was_silent_for_longer_than_its_memory_begins_anew(make):
    tracker = make(SequenceRules(memory_us=1_000_000, lost_us=1_000_000))
    tracker.check_sequence("asx", "BHP", 1, AT)

    near = tracker.check_sequence("asx", "BHP", 3, AT + timedelta(seconds=1))
    far = tracker.check_sequence("asx", "BHP", 900, AT + timedelta(seconds=2, microseconds=1))

    assert (near.kind, far.kind, far.expected) == (GAP, NORMAL, None)


def test_a_low_number_that_was_declared_lost_long_ago_is_late_and_no_reset(make):
    tracker = make(SequenceRules(lost_us=1_000_000, memory_us=60_000_000))
    kinds(tracker, 1, *range(4, 301))
    later = AT + timedelta(seconds=2)

    late = [tracker.check_sequence("asx", "BHP", sequence, later).kind for sequence in (301, 2, 302)]

    assert late == [NORMAL, OUT_OF_ORDER, NORMAL]


def test_what_a_stream_misses_is_bounded(make):
    tracker = make(SequenceRules(holes_max=2))
    kinds(tracker, 1, 3, 5, 7)

    assert kinds(tracker, 2, 4, 6) == [DUPLICATE, OUT_OF_ORDER, OUT_OF_ORDER]


def test_a_cleared_symbol_begins_anew_and_others_do_not(tracker):
    kinds(tracker, 1, 2)
    kinds(tracker, 1, data_type="quotes")
    tracker.check_sequence("asx", "BHPX", 1, AT)

    tracker.clear_symbol("asx", "BHP")

    assert kinds(tracker, 9) == [NORMAL]
    assert kinds(tracker, 9, data_type="quotes") == [NORMAL]
    assert tracker.check_sequence("asx", "BHPX", 3, AT).kind is GAP


def test_everything_can_be_forgotten(tracker):
    kinds(tracker, 1, 2)

    tracker.clear_all()

    assert kinds(tracker, 9) == [NORMAL]


def test_statistics_count_kinds_missing_numbers_and_replays(tracker):
    for offset, sequence in enumerate([1, 2, 5, 3, 3]):
        tracker.check_sequence("asx", "BHP", sequence, AT, offset=offset)
    tracker.check_sequence("asx", "BHP", 3, AT, offset=1)

    stats = tracker.get_stats()

    assert (stats.checks, stats.missing, stats.replayed, stats.streams) == (6, 2, 1, 1)
    assert stats.by_kind == {NORMAL: 2, GAP: 1, OUT_OF_ORDER: 1, DUPLICATE: 1, RESET: 0}


@pytest.mark.parametrize("seed", range(12))
def test_every_tracker_says_the_same_of_a_disorderly_stream(make, seed):
    drawn = random.Random(seed)
    rules = SequenceRules(
        lost_us=500_000, memory_us=900_000, memory_offsets=400, holes_max=4, reset_number_max=3, reset_distance_min=8
    )
    checks, number, day, at = [], {"A": 5, "B": 2**60}, 20_000, AT
    for offset in range(400):
        symbol = drawn.choice("AB")
        number[symbol] += drawn.choice([1, 1, 1, 1, 2, 5, 0, -1, -3, -12])
        day += drawn.random() < 0.02
        at += timedelta(milliseconds=drawn.choice([1, 1, 20, 300, 1_000]))
        back = drawn.choice([0] * 9 + [1])
        sub = drawn.choice([None, None, 0, 1])
        checks.append(SequenceCheck("asx", symbol, number[symbol], at, trading_day=day - back, sub_index=sub,
                                    offset=offset - drawn.choice([0] * 9 + [3]) if offset > 3 else offset))  # fmt: skip
    reference = MemorySequenceTracker(rules)
    tracker = make(rules, checks_max=60) if make is not MemorySequenceTracker else make(rules)

    events = tracker.check_sequence_batch(checks)

    assert events == reference.check_sequence_batch(checks)
    assert {event.kind for event in events} >= {NORMAL, GAP, OUT_OF_ORDER, RESET}
