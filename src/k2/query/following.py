"""Decides which topics can be followed, from which log and offset, and why others cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.kafka.ports import LogIdentity, LogRange, TopicPartition
    from k2.kafka.topics import Topic
    from k2.storage.tables import RegisteredLog, TableHead


@dataclass(frozen=True, slots=True)
class Followed:
    """A topic whose log is registered in its table, and the seam of each partition when this was decided."""

    topic: Topic
    log: RegisteredLog
    seams: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Refused:
    """A topic that cannot be followed. `reason` says what was expected, what was found, what to do."""

    topic: Topic
    reason: str
    unregistered: bool = False
    """No table knows the topic yet: harmless while its log is empty."""


def decide(
    topic: Topic, head: TableHead, identity: LogIdentity, ranges: Mapping[TopicPartition, LogRange]
) -> Followed | Refused:
    """Compare a topic as it is with what its table has registered."""
    log = _registered(topic, head, identity)
    if isinstance(log, Refused):
        return log
    seams: dict[int, int] = {}
    for partition in range(log.partitions):
        seam = head.seam.next_offset(LogPartition(log.log_id, partition))
        if seam is None:
            return Refused(topic, f"topic {topic.name} partition {partition}: the seam of {head.table_name} lacks it")
        extent = ranges.get((topic.name, partition))
        fault = None if extent is None else misfit(head.table_name, topic.name, partition, seam, extent)
        if fault:
            return Refused(topic, fault)
        seams[partition] = seam
    return Followed(topic, log, seams)


def _registered(topic: Topic, head: TableHead, identity: LogIdentity) -> RegisteredLog | Refused:
    """Return the registered log that the topic is, if it is the newest of its name."""
    newest = head.log_of(topic.name)
    if newest is None:
        return Refused(topic, _unregistered(topic, head), unregistered=True)
    if (newest.cluster_id, newest.topic_id) != (identity.cluster_id, identity.topic_id):
        return Refused(topic, _another_log(topic, head, newest, identity))
    if newest.partitions != identity.partitions:
        return Refused(
            topic,
            f"topic {topic.name}: expected {newest.partitions} partitions, as registered, found {identity.partitions}: "
            "a symbol's records may lie in two partitions; create the topic anew and accept it as a new log",
        )
    return newest


def misfit(table: str, topic: str, partition: int, seam: int, extent: LogRange) -> str | None:
    """Return why the seam does not lie within the log, with the exact difference; None if it does."""
    if extent.end < seam:
        return (
            f"topic {topic} partition {partition}: expected a log that reaches the seam of {table} at offset {seam}, "
            f"found one that ends at {extent.end}, {seam - extent.end} short: an older copy was restored, or it was "
            "truncated; restore the newest copy"
        )
    if extent.start > seam:
        return (
            f"topic {topic} partition {partition}: expected offset {seam}, where {table} ends, found a log that begins "
            f"at {extent.start}: {extent.start - seam} offsets were deleted by retention before they were ingested; "
            f"restore them, or accept the loss: `k2 offsets plan {topic} --to start`"
        )
    return None


def _unregistered(topic: Topic, head: TableHead) -> str:
    return (
        f"topic {topic.name} is not registered in {head.table_name} yet, so its records have no place in an answer: "
        "start the ingest worker (`k2 up`, or `k2 ingest`), which registers it"
    )


def _another_log(topic: Topic, head: TableHead, known: RegisteredLog, found: LogIdentity) -> str:
    if known.cluster_id != found.cluster_id:
        what = f"expected cluster {known.cluster_id}, found cluster {found.cluster_id}: this is another broker"
    else:
        what = (
            f"expected topic id {known.topic_id}, found {found.topic_id}: the topic was deleted and created again "
            f"since {head.table_name} was built from it"
        )
    return f"topic {topic.name}: {what}. Bring the log back, or accept this one as a new log of the table"
