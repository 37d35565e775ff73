"""What every log does for its readers and writers: the fake and the real broker pass the same tests."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from k2.common.errors import ConfigurationError, LogIdentityError
from k2.kafka.ports import LogRange
from k2.kafka.producer import partition_for
from k2.kafka.topics import Topic

if TYPE_CHECKING:
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import Reader

POLLS_MAX = 200


def send(log, topic, *values, key=b"k"):
    log.producer.send(topic, [key] * len(values), list(values))
    log.producer.flush(10)
    return partition_for(key, 2)


def read(reader: Reader, messages: int, *, until: int | None = None, max_messages: int = 1000) -> list[LogBatch]:
    batches: list[LogBatch] = []
    for _ in range(POLLS_MAX):
        batches += reader.poll(max_messages, 0.1)
        if sum(map(len, batches)) >= messages and (until is None or batches[-1].next_offset >= until):
            return batches
    raise AssertionError(f"expected {messages} messages, found {batches}")


def values(batches):
    return list(itertools.chain.from_iterable(batch.values for batch in batches))


def test_what_was_sent_is_read_in_order_with_its_coordinate(log, topic) -> None:
    partition = send(log, topic, *(b"%d" % number for number in range(500)))

    batches = read(log.reader({(topic, partition): 0}), 500)

    assert values(batches) == [b"%d" % number for number in range(500)]
    assert list(itertools.chain.from_iterable(batch.offsets for batch in batches)) == list(range(500))
    assert {batch.topic for batch in batches} == {topic}
    assert {batch.partition for batch in batches} == {partition}
    assert batches[-1].next_offset == 500
    assert all(key == b"k" for batch in batches for key in batch.keys)
    assert all(ts > 1_000_000_000_000 for batch in batches for ts in batch.ts_log_ms)


def test_null_keys_and_values_arrive_as_none(log, create_topic) -> None:
    topic = create_topic(1)
    log.producer.send(topic, [None, b"k", b""], [b"v", None, b""])
    log.producer.flush(10)

    batches = read(log.reader({(topic, 0): 0}), 3)

    assert values(batches) == [b"v", None, b""]
    assert [key for batch in batches for key in batch.keys][:2] == [None, b"k"]


def test_keys_go_to_the_partition_that_partition_for_names(log, create_topic) -> None:
    topic = create_topic(7)
    keys = [f"SYM{number}".encode() for number in range(100)] + [b"", "é".encode(), b"x" * 64]
    log.producer.send(topic, keys, keys)
    log.producer.flush(10)

    batches = read(log.reader({(topic, number): 0 for number in range(7)}), len(keys))

    found = {value: batch.partition for batch in batches for value in batch.values}
    assert found == {key: partition_for(key, 7) for key in keys}


def test_poll_returns_no_more_than_asked_for(log, topic) -> None:
    partition = send(log, topic, *(b"%d" % number for number in range(50)))
    reader = log.reader({(topic, partition): 0})

    batches = []
    while sum(map(len, batches)) < 50:
        polled = reader.poll(7, 0.1)
        assert sum(map(len, polled)) <= 7
        batches += polled

    assert values(batches) == [b"%d" % number for number in range(50)]


def test_aborted_messages_and_control_records_are_not_read_but_move_the_position(log, topic) -> None:
    partition = send(log, topic, b"a")
    log.abort(topic, partition, [b"x", b"y"])
    send(log, topic, b"b")
    log.abort(topic, partition, [b"z"])
    end = log.admin.ranges(topic)[topic, partition].end

    reader = log.reader({(topic, partition): 0})
    batches = read(reader, 2, until=end)

    assert values(batches) == [b"a", b"b"]
    assert end == 7
    assert reader.position(topic, partition) == end
    assert [offset for batch in batches for offset in batch.offsets] == [0, 4]


def test_a_partition_of_nothing_but_control_records_yields_an_empty_batch(log, topic) -> None:
    log.abort(topic, 0, [b"x"])

    batches = read(log.reader({(topic, 0): 0}), 0, until=2)

    assert values(batches) == []
    assert batches[-1].next_offset == 2


def test_a_seek_back_reads_again_and_a_seek_forward_leaves_out(log, topic) -> None:
    partition = send(log, topic, *(b"%d" % number for number in range(100)))
    reader = log.reader({(topic, partition): 0})
    read(reader, 100)

    reader.seek(topic, partition, 10)
    again = read(reader, 90)
    reader.seek(topic, partition, 95)
    rest = read(reader, 5)

    assert values(again) == [b"%d" % number for number in range(10, 100)]
    assert values(rest) == [b"%d" % number for number in range(95, 100)]


def test_a_seek_while_messages_wait_in_the_queue_skips_none_and_repeats_none(log, topic) -> None:
    partition = send(log, topic, *(b"%d" % number for number in range(1000)))
    reader = log.reader({(topic, partition): 0})
    read(reader, 10, max_messages=10)

    reader.seek(topic, partition, 5)
    batches = read(reader, 995)

    assert values(batches) == [b"%d" % number for number in range(5, 1000)]


def test_a_paused_partition_is_silent_and_resumes_where_it_was(log, topic) -> None:
    partition = send(log, topic, *(b"%d" % number for number in range(10)))
    reader = log.reader({(topic, partition): 0})
    read(reader, 10)

    reader.pause([(topic, partition)])
    send(log, topic, b"more")
    silent = reader.poll(10, 0.3)
    reader.resume([(topic, partition)])
    batches = read(reader, 1)

    assert values(silent) == []
    assert values(batches) == [b"more"]


def test_a_seek_leaves_a_paused_partition_paused(log, topic) -> None:
    partition = send(log, topic, b"a", b"b")
    reader = log.reader({(topic, partition): 0})
    read(reader, 2)

    reader.pause([(topic, partition)])
    reader.seek(topic, partition, 0)
    silent = reader.poll(10, 0.3)
    reader.resume([(topic, partition)])

    assert values(silent) == []
    assert values(read(reader, 2)) == [b"a", b"b"]


def test_partitions_can_be_added_and_taken_away(log, topic, create_topic) -> None:
    send(log, topic, b"a", key=b"k")
    other = create_topic(1)
    log.producer.send(other, [b"k"], [b"b"])
    log.producer.flush(10)
    reader = log.reader({(topic, partition_for(b"k", 2)): 0})
    read(reader, 1)

    reader.assign({(other, 0): 0})
    added = read(reader, 1)
    reader.unassign([(other, 0)])

    assert values(added) == [b"b"]
    assert (other, 0) not in reader.positions()
    with pytest.raises(KeyError):
        reader.position(other, 0)


def test_a_position_above_the_end_is_refused_with_the_difference(log, topic) -> None:
    partition = send(log, topic, b"a", b"b")
    reader = log.reader({(topic, partition): 12})

    with pytest.raises(LogIdentityError, match=r"offset 12 .* \[0, 2\)"):
        read(reader, 1)


def test_a_position_below_the_start_is_refused_with_the_difference(log, topic) -> None:
    partition = send(log, topic, b"a", b"b", b"c")
    log.delete_before(topic, partition, 2)
    reader = log.reader({(topic, partition): 1})

    with pytest.raises(LogIdentityError, match=r"offset 1 .* \[2, 3\)"):
        read(reader, 1)


def test_ranges_tell_start_and_end(log, topic) -> None:
    partition = send(log, topic, b"a", b"b", b"c")
    log.delete_before(topic, partition, 1)

    ranges = log.admin.ranges([topic, "market.test.absent"])

    assert ranges == {(topic, partition): LogRange(1, 3), (topic, 1 - partition): LogRange(0, 0)}


def test_identities_tell_topics_apart_and_leave_absent_ones_out(log, topic, create_topic) -> None:
    other = create_topic(3)

    found = log.admin.identities([topic, other, "market.test.absent"])

    assert set(found) == {topic, other}
    assert found[topic].topic_id != found[other].topic_id
    assert found[topic].cluster_id == found[other].cluster_id != ""
    assert (found[topic].partitions, found[other].partitions) == (2, 3)


def test_topics_are_created_once(log, create_topic) -> None:
    name = create_topic(2)
    topic = Topic(name, "test", "trades", "x", 2, {})

    assert log.admin.create_topics([topic]) == []


def test_another_number_of_partitions_is_refused(log, topic) -> None:
    grown = Topic(topic, "test", "trades", "x", 3, {})

    with pytest.raises(ConfigurationError, match=r"expected 3 partitions .* found 2"):
        log.admin.create_topics([grown])
