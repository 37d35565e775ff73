"""What every log does for the members of a group: the fake and the real broker pass the same tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from k2.common.errors import MemberFencedError
from k2.kafka.producer import partition_for

if TYPE_CHECKING:
    from k2.kafka.batches import LogBatch
    from k2.kafka.ports import Reader

POLLS_MAX = 200


def polled(reader: Reader, messages: int) -> list[LogBatch]:
    batches: list[LogBatch] = []
    for _ in range(POLLS_MAX):
        batches += reader.poll(1000, 0.1)
        if sum(map(len, batches)) >= messages:
            return batches
    raise AssertionError(f"expected {messages} messages, found {batches}")


def poll_until(reader: Reader, reached) -> None:
    for _ in range(POLLS_MAX):
        reader.poll(10, 0.05)
        if reached():
            return
    raise AssertionError("not reached")


def test_a_group_shares_the_partitions_and_each_starts_where_it_is_told(log, topic) -> None:
    log.producer.send(topic, [b"%d" % n for n in range(40)], [b"%d" % n for n in range(40)])
    log.producer.flush(10)
    ends = log.admin.ranges(topic)
    starts = {key: extent.end - 1 for key, extent in ends.items()}
    assigned: list = []

    def on_assign(partitions):
        assigned.extend(partitions)
        return {key: starts[key] for key in partitions}

    member = log.member(f"g-{topic}", [topic], on_assign, lambda _: None)
    batches = polled(member, 2)

    assert sorted(assigned) == [(topic, 0), (topic, 1)]
    assert sorted(offset for batch in batches for offset in batch.offsets) == sorted(starts.values())


def test_a_second_member_takes_over_a_share_and_the_first_is_told(log, topic) -> None:
    revoked: list = []
    gained: list = []
    first = log.member(f"g-{topic}", [topic], lambda keys: dict.fromkeys(keys, 0), revoked.extend)
    for _ in range(POLLS_MAX):
        first.poll(10, 0.05)
        if len(first.positions()) == 2:
            break

    second = log.member(
        f"g-{topic}", [topic], lambda keys: gained.extend(keys) or dict.fromkeys(keys, 0), lambda _: None
    )
    for _ in range(POLLS_MAX):
        first.poll(10, 0.05)
        second.poll(10, 0.05)
        if gained:
            break

    assert len(revoked) == len(gained) == 1
    assert revoked == gained
    assert set(first.positions()) | set(second.positions()) == {(topic, 0), (topic, 1)}


def test_a_partition_without_a_start_is_held_until_a_seek(log, topic) -> None:
    partition = partition_for(b"k", 2)
    log.producer.send(topic, [b"k", b"k"], [b"a", b"b"])
    log.producer.flush(10)
    assigned: list = []

    def on_assign(keys):
        assigned.extend(keys)
        return {}

    member = log.member(f"g-{topic}", [topic], on_assign, lambda _: None)
    for _ in range(POLLS_MAX):
        assert member.poll(10, 0.05) == []
        if assigned:
            break
    member.pause([(topic, partition)])
    member.resume([(topic, partition)])
    silent = member.poll(10, 0.3)

    member.seek(topic, partition, 1)

    assert silent == []
    assert [value for batch in polled(member, 1) for value in batch.values] == [b"b"]


def test_a_member_started_again_under_its_id_has_its_partitions_back_and_the_old_one_is_told(log, topic) -> None:
    again: list = []
    first = log.member(f"g-{topic}", [topic], lambda keys: dict.fromkeys(keys, 0), lambda _: None, member_id="w1")
    poll_until(first, lambda: len(first.positions()) == 2)

    second = log.member(
        f"g-{topic}", [topic], lambda keys: again.extend(keys) or dict.fromkeys(keys, 0), lambda _: None, member_id="w1"
    )
    poll_until(second, lambda: len(again) == 2)

    with pytest.raises(MemberFencedError, match="another"):
        poll_until(first, lambda: False)
    assert sorted(second.positions()) == [(topic, 0), (topic, 1)]
