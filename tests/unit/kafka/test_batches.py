"""A batch can be cut without losing a message or the position."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.kafka.batches import LogBatch


def batch(offsets: list[int], next_offset: int) -> LogBatch:
    count = len(offsets)
    return LogBatch("t", 0, offsets, [1] * count, [b"k"] * count, [b"%d" % at for at in offsets], next_offset, 4)


def test_bytes_count_the_values_and_leave_tombstones_out() -> None:
    assert LogBatch("t", 0, [0, 1], [1, 1], [b"k"] * 2, [b"abc", None], 2).nbytes == 3


@given(st.lists(st.integers(0, 50), unique=True).map(sorted), st.integers(0, 9), st.integers(1, 60))
def test_chunks_cover_the_batch_without_gap_or_overlap(offsets, more, messages_max) -> None:
    whole = batch(offsets, (offsets[-1] + 1 if offsets else 0) + more)

    chunks = list(whole.chunks(messages_max))

    assert [at for chunk in chunks for at in chunk.offsets] == offsets
    assert all(len(chunk) <= messages_max for chunk in chunks)
    assert chunks[-1].next_offset == whole.next_offset
    for chunk, later in itertools.pairwise(chunks):
        assert chunk.offsets[-1] < chunk.next_offset <= later.offsets[0]


def test_a_batch_without_messages_still_moves_the_position() -> None:
    assert [chunk.next_offset for chunk in batch([], 7).chunks(3)] == [7]


@pytest.mark.parametrize(
    ("start", "stop", "offsets", "next_offset"), [(0, 2, [1, 4], 5), (1, 9, [4, 5], 8), (3, 3, [], 8)]
)
def test_a_slice_ends_where_the_next_one_begins(start, stop, offsets, next_offset) -> None:
    part = batch([1, 4, 5], 8).between(start, stop)

    assert (part.offsets, part.next_offset, part.leader_epoch) == (offsets, next_offset, 4)


def test_messages_can_be_chosen_and_the_position_stays() -> None:
    chosen = batch([1, 4, 5], 8).where([True, False, True])

    assert (chosen.offsets, chosen.values, chosen.next_offset) == ([1, 5], [b"1", b"5"], 8)


def test_headers_stay_with_their_messages() -> None:
    whole = LogBatch("t", 0, [1, 4], [1, 1], [b"k"] * 2, [b"1", b"4"], 5, headers=[{"x": b"1"}, {"x": b"4"}])

    assert whole.between(1, 2).headers == whole.where([False, True]).headers == [{"x": b"4"}]
