"""Reading deferred ranges: in parts, only what was deferred, nothing skipped and nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.units import NS_PER_MS
from k2.ingestion.backfill.reading import RangeReader
from k2.ingestion.backfill.retention import RetentionWatch
from k2.ingestion.backfill.settings import BackfillSettings
from k2.kafka.ports import LogRange
from k2.testing.fake_log import FakeLog, FakeReader
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from k2.kafka.batches import LogBatch

TOPIC = "market.equities.trades.asx"
HOUR_MS = 3_600_000


def log_of(*keys: bytes) -> FakeLog:
    log = FakeLog()
    log.create_topic(TOPIC)
    for number, key in enumerate(keys):
        log.append(TOPIC, key, str(number).encode(), partition=0)
    return log


def reader_of(log: FakeLog, **settings: int) -> RangeReader:
    return RangeReader(lambda: FakeReader(log), BackfillSettings(poll_seconds=0, **settings))


def low(batch: LogBatch) -> list[bool]:
    return [key == b"low" for key in batch.keys]


def test_only_what_was_deferred_is_kept() -> None:
    reader = reader_of(log_of(b"low", b"top", b"low", b"low"))
    reader.place((TOPIC, 0), 0)

    assert reader.step(3, low)

    assert reader.part().batch.offsets == [0, 2]
    assert (reader.part().start, reader.part().end) == (0, 3)


def test_a_range_comes_in_parts_of_bounded_size() -> None:
    reader = reader_of(log_of(*[b"low"] * 10), records_max=4, poll_messages_max=2)
    parts = []
    reader.place((TOPIC, 0), 0)

    while not parts or parts[-1].end < 10:
        while not reader.step(10, low):
            pass
        parts.append(reader.part())
        reader.taken()
        reader.place((TOPIC, 0), parts[-1].end)

    assert [(part.start, part.end) for part in parts] == [(0, 4), (4, 8), (8, 10)]
    assert [offset for part in parts for offset in part.batch.offsets] == list(range(10))


def test_a_range_that_grew_is_read_on_from_where_it_ended() -> None:
    reader = reader_of(log_of(*[b"low"] * 6))
    reader.place((TOPIC, 0), 0)
    reader.step(2, low)

    reader.place((TOPIC, 0), 0)
    ready = reader.step(5, low)

    assert ready
    assert reader.part().batch.offsets == [0, 1, 2, 3, 4]


def test_offsets_without_records_are_passed() -> None:
    log = log_of(b"low")
    log.append_control(TOPIC, 0)
    reader = reader_of(log)
    reader.place((TOPIC, 0), 0)

    assert reader.step(2, low)

    assert reader.part().batch.offsets == [0]
    assert reader.part().end == 2


def test_a_stretch_with_nothing_deferred_is_a_part_as_well() -> None:
    reader = reader_of(log_of(b"top", b"top"))
    reader.place((TOPIC, 0), 0)

    assert reader.step(2, low)

    assert len(reader.part().batch) == 0
    assert reader.part().end == 2


def test_another_place_is_read_from_its_own_start() -> None:
    reader = reader_of(log_of(*[b"low"] * 4))
    reader.place((TOPIC, 0), 0)
    reader.step(2, low)

    reader.place((TOPIC, 0), 3)
    reader.step(4, low)

    assert reader.part().batch.offsets == [3]


def test_the_log_time_of_a_record_is_looked_up_without_reading_on() -> None:
    log = log_of(*[b"low"] * 3)
    reader = reader_of(log)

    logged_ms = reader.logged_ms((TOPIC, 0), 1)
    reader.place((TOPIC, 0), 0)
    reader.step(3, low)

    assert logged_ms == log.now_ms
    assert reader.part().batch.offsets == [0, 1, 2]


def test_a_record_that_does_not_come_has_no_log_time() -> None:
    assert reader_of(log_of(b"low")).logged_ms((TOPIC, 0), 1) is None


def test_retention_is_near_by_the_hours_or_by_the_share_that_are_left() -> None:
    clock = ManualClock()
    now_ms = clock.time_ns() // NS_PER_MS
    watch = RetentionWatch({TOPIC: 168 * HOUR_MS}, settings=BackfillSettings(), clock=clock)
    young, old = now_ms - HOUR_MS, now_ms - 160 * HOUR_MS
    whole, cut = LogRange(0, 1_000), LogRange(500, 1_500)

    assert not watch.left(TOPIC, 0, young, whole).is_near
    assert watch.left(TOPIC, 0, old, whole).is_near
    assert watch.left(TOPIC, 0, old, whole).hours == 8
    assert watch.left(TOPIC, 550, young, cut).is_near
    assert not watch.left(TOPIC, 900, young, cut).is_near
    assert not watch.left("kept for good", 0, old, whole).is_near
