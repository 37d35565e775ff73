"""The seam says where the table ends, and survives its trip through a snapshot's summary."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k2.storage.seam import (
    SUMMARY_KEY,
    Counts,
    DeferredRange,
    LogPartition,
    PartitionDelta,
    PartitionSeam,
    Seam,
    SeamError,
)

numbers = st.integers(min_value=0, max_value=2**62)
counts = st.builds(Counts, numbers, numbers, numbers, numbers, numbers, numbers)
seams = st.builds(
    Seam,
    commit_sequence=numbers,
    partitions=st.dictionaries(
        st.builds(LogPartition, st.integers(0, 9), st.integers(0, 99)),
        st.builds(PartitionSeam, numbers, st.integers(-1, 100), counts),
        max_size=8,
    ),
    deferred=st.lists(
        st.builds(
            DeferredRange,
            st.integers(0, 9),
            st.integers(0, 9),
            numbers,
            numbers,
            st.text(max_size=5),
            st.integers(0, 3),
            numbers,
        ),
        max_size=3,
    ).map(tuple),
)


@given(seams)
def test_a_seam_is_the_same_after_its_trip_through_json(seam: Seam) -> None:
    assert Seam.from_json(seam.to_json()) == seam


def test_a_commit_moves_the_partitions_that_it_covers_and_no_others() -> None:
    first, second = LogPartition(0, 0), LogPartition(0, 1)
    before = Seam(4, {first: PartitionSeam(10, 1, Counts(10, 10)), second: PartitionSeam(7)})

    after = before.advanced({first: PartitionDelta(10, 15, Counts(consumed=4, rows=3, dead_letters=1), 2)})

    assert after.commit_sequence == 5
    assert after.partitions[first] == PartitionSeam(15, 2, Counts(14, 13, 0, 1))
    assert after.partitions[second] == before.partitions[second]


def test_a_leader_epoch_never_goes_back() -> None:
    partition = LogPartition(0, 0)
    before = Seam(0, {partition: PartitionSeam(0, 5)})

    after = before.advanced({partition: PartitionDelta(0, 1, Counts(1, 1), -1)})

    assert after.partitions[partition].leader_epoch == 5


def test_registering_a_log_leaves_known_partitions_where_they_are() -> None:
    known = LogPartition(0, 0)
    before = Seam(1, {known: PartitionSeam(10)})

    after = before.with_log(0, {0: 0, 1: 3})

    assert after.next_offset(known) == 10
    assert after.next_offset(LogPartition(0, 1)) == 3
    assert after.commit_sequence == 2


def test_a_partition_that_is_not_registered_has_no_next_offset() -> None:
    assert Seam().next_offset(LogPartition(0, 0)) is None


def test_totals_add_up_the_partitions_asked_for() -> None:
    one, two = LogPartition(0, 0), LogPartition(0, 1)
    seam = Seam(1, {one: PartitionSeam(1, 0, Counts(1, 1)), two: PartitionSeam(2, 0, Counts(2, 1, 0, 1))})

    assert seam.totals() == Counts(3, 2, 0, 1)
    assert seam.totals([two]) == Counts(2, 1, 0, 1)


def test_unaccounted_is_what_has_no_fate() -> None:
    assert Counts(consumed=10, rows=5, duplicates=1, dead_letters=1, deferred=1, lost=1).unaccounted == 1


@pytest.mark.parametrize(
    "text",
    ["", "nonsense", "[]", "{}", '{"v": 1}', '{"v": 4, "commit_sequence": 1, "logs": {}, "deferred": []}'],
)
def test_what_is_no_seam_is_refused(text: str) -> None:
    with pytest.raises(SeamError):
        Seam.from_json(text)


def test_a_snapshot_without_a_seam_is_refused() -> None:
    with pytest.raises(SeamError, match=SUMMARY_KEY):
        Seam.from_summary({"operation": "append"})


def test_the_json_states_its_version() -> None:
    assert json.loads(Seam().to_json())["v"] == 1
