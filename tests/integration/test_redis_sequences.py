"""The tracker on a real Valkey that stalls, forgets, or is shared."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import valkey
from structlog.testing import capture_logs

from k2.ingestion.redis_sequence_tracker import TTL_SECONDS, RedisSequenceTracker
from k2.ingestion.sequences.rules import SequenceKind
from k2.ingestion.sequences.tracker import MemorySequenceTracker
from k2.testing.manual_clock import ManualClock

pytestmark = pytest.mark.platform

AT = datetime(2026, 1, 5, 10, tzinfo=UTC)
KEY = "k2:seq:asx:BHP:trades:"
NUMBERS = (1, 2, 3, 7, 5, 5, 8, 9, 12, 4)


@pytest.fixture
def admin(valkey_url):
    client = valkey.Valkey.from_url(valkey_url)
    client.flushall()
    yield client
    client.client_unpause()
    client.close()


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def tracker(admin, valkey_url, clock):
    client = valkey.Valkey.from_url(valkey_url, socket_timeout=0.05)
    yield RedisSequenceTracker(client, clock=clock, retry_seconds=2)
    client.close()


def checks(*numbers):
    return [("asx", "BHP", number, AT) for number in numbers]


def test_a_stalled_server_means_a_warning_and_the_same_events(admin, tracker, clock):
    expected = MemorySequenceTracker().check_sequence_batch(checks(*NUMBERS))
    found = tracker.check_sequence_batch(checks(*NUMBERS[:3]))

    admin.client_pause(60_000, all=False)
    with capture_logs() as logs:
        found += tracker.check_sequence_batch(checks(*NUMBERS[3:5]))
        found += tracker.check_sequence_batch(checks(*NUMBERS[5:6]))
        degraded = tracker.get_stats().degraded
    admin.client_unpause()
    clock.sleep(3)
    found += tracker.check_sequence_batch(checks(*NUMBERS[6:]))

    assert found == expected
    assert degraded
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["sequence_state_unreachable"]
    assert not tracker.get_stats().degraded


def test_what_was_decided_alone_is_on_the_server_afterwards(admin, tracker, clock, valkey_url):
    tracker.check_sequence_batch(checks(1, 2))
    admin.client_pause(60_000, all=False)
    tracker.check_sequence_batch(checks(3, 9))
    admin.client_unpause()
    admin.flushall()
    clock.sleep(3)
    tracker.check_sequence("asx", "CBA", 1, AT)

    successor = RedisSequenceTracker(valkey.Valkey.from_url(valkey_url), clock=clock)

    assert successor.check_sequence("asx", "BHP", 10, AT).kind is SequenceKind.NORMAL
    assert successor.check_sequence("asx", "BHP", 5, AT).kind is SequenceKind.OUT_OF_ORDER


def test_while_the_server_is_gone_it_is_asked_only_now_and_then(admin, tracker, clock, monkeypatch):
    admin.client_pause(60_000, all=False)
    tracker.check_sequence("asx", "BHP", 1, AT)
    asked = []
    monkeypatch.setattr(tracker, "_script", lambda **_: asked.append(1) or (_ for _ in ()).throw(OSError("gone")))

    for number in range(2, 50):
        tracker.check_sequence("asx", "BHP", number, AT)
    clock.sleep(2)
    tracker.check_sequence("asx", "BHP", 50, AT)

    assert asked == [1]


def test_a_flushed_server_does_not_make_a_stream_begin_anew(admin, tracker):
    tracker.check_sequence_batch(checks(1, 2, 5))

    admin.flushall()

    assert [event.kind for event in tracker.check_sequence_batch(checks(4, 8))] == [
        SequenceKind.OUT_OF_ORDER,
        SequenceKind.GAP,
    ]


@pytest.mark.parametrize("coordinate", [{}, {"partition": 0}])
def test_a_server_that_came_back_with_an_older_copy_does_not_turn_the_stream_back(admin, tracker, coordinate):
    def check(number):
        at = AT + timedelta(milliseconds=0 if coordinate else number)
        offset = {"offset": number} if coordinate else {}
        return tracker.check_sequence("asx", "BHP", number, at, **coordinate, **offset)

    check(1)
    saved = admin.dump(KEY)
    for number in (2, 3, 5):
        check(number)

    admin.delete(KEY)
    admin.restore(KEY, 0, saved)
    events = [check(6), check(4)] if not coordinate else [check(6)]

    assert [event.kind for event in events] == [SequenceKind.NORMAL, SequenceKind.OUT_OF_ORDER][: len(events)]


def test_the_time_to_live_is_a_week_and_each_batch_renews_it(admin, tracker):
    tracker.check_sequence_batch(checks(1, 2))
    first = admin.ttl(KEY)
    admin.expire(KEY, 100)

    tracker.check_sequence_batch(checks(3))

    assert first == TTL_SECONDS
    assert admin.ttl(KEY) == TTL_SECONDS


def test_processes_share_what_they_remember(tracker, clock, valkey_url):
    other = RedisSequenceTracker(valkey.Valkey.from_url(valkey_url), clock=clock)
    tracker.check_sequence_batch(checks(1, 2, 5))

    found = other.check_sequence_batch(checks(3, 6))
    back = tracker.check_sequence_batch(checks(7, 4))

    assert [event.kind for event in found] == [SequenceKind.OUT_OF_ORDER, SequenceKind.NORMAL]
    assert [event.kind for event in back] == [SequenceKind.NORMAL, SequenceKind.OUT_OF_ORDER]


def test_a_batch_is_one_call(admin, tracker):
    tracker.check_sequence_batch(checks(1))
    before = admin.info("commandstats")["cmdstat_evalsha"]["calls"]

    tracker.check_sequence_batch([("asx", f"S{number % 50}", number // 50, AT) for number in range(1_000)])

    assert admin.info("commandstats")["cmdstat_evalsha"]["calls"] == before + 1
    assert len(list(admin.scan_iter("k2:seq:*"))) == 51


def test_names_with_colons_and_stars_stay_apart(tracker):
    tracker.check_sequence("asx", "A", 1, AT, data_type="b:c")
    tracker.check_sequence("asx", "A:b", 1, AT, data_type="c")
    tracker.clear_symbol("asx", "*")

    assert tracker.check_sequence("asx", "A:b", 3, AT, data_type="c").kind is SequenceKind.GAP
