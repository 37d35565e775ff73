"""Is this the log that the table was built from? Compares a topic as it is with what the table has registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.errors import LogIdentityError
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from k2.kafka.ports import LogIdentity, LogRange
    from k2.storage.seam import Seam
    from k2.storage.tables import RegisteredLog


class ShortLogError(LogIdentityError):
    """The log ends below the seam: records that the table holds are not in it."""


def find_log(table: str, identity: LogIdentity, logs: Sequence[RegisteredLog]) -> RegisteredLog | None:
    """Return the registered log that this topic is, or None if the table has never met a topic of this name.

    Raises:
        LogIdentityError: the table knows a topic of this name that is not this one, or it has other partitions.
    """
    same_name = [log for log in logs if log.topic == identity.topic]
    if not same_name:
        return None
    exact = [log for log in same_name if (log.cluster_id, log.topic_id) == (identity.cluster_id, identity.topic_id)]
    if not exact:
        raise LogIdentityError(_another_log(table, identity, same_name[-1]))
    log = exact[-1]
    if log.partitions != identity.partitions:
        raise LogIdentityError(
            f"topic {identity.topic}: {table} registered it with {log.partitions} partitions, found "
            f"{identity.partitions}; the number of partitions is fixed, since symbols would move between them. "
            "Create the topic anew with the number of partitions wanted, and accept it as a new log: "
            f"`k2 ingest --accept-new-log {identity.topic}`"
        )
    return log


def check_seam(table: str, log: RegisteredLog, seam: Seam, ranges: Mapping[int, LogRange]) -> None:
    """See that each partition's seam lies within what its log retains.

    Raises:
        ShortLogError: a log ends below the seam; the text names the partition and the difference.
        LogIdentityError: a log begins above the seam; the text names the range that is gone.
    """
    short, passed = [], []
    for partition, extent in sorted(ranges.items()):
        position = seam.next_offset(LogPartition(log.log_id, partition))
        if position is None:
            raise LogIdentityError(
                f"topic {log.topic} partition {partition}: the seam of {table} has no entry for log {log.log_id}"
            )
        if position > extent.end:
            short.append(
                f"partition {partition}: seam says {position:,}, log ends at {extent.end:,}: "
                f"{position - extent.end:,} records that the table has passed are not in the log"
            )
        elif position < extent.start:
            passed.append(
                f"partition {partition}: seam says {position:,}, log begins at {extent.start:,}: offsets {position:,} "
                f"to {extent.start - 1:,} ({extent.start - position:,} records) were deleted before they were ingested"
            )
    if short:
        raise ShortLogError(
            f"topic {log.topic} is shorter than {table} knows it: {'; '.join(short)}. The broker's data was restored "
            "from an older copy, or truncated: restore the newest copy, "
            f"or go on from its end: `k2 offsets plan {log.topic} --to end`"
        )
    if passed:
        raise LogIdentityError(
            f"topic {log.topic}: retention has passed the seam of {table}: {'; '.join(passed)}. Restore the records, "
            f"or accept the loss: `k2 offsets plan {log.topic} --to start`"
        )


def check_unchanged(expected: Iterable[LogIdentity], found: Mapping[str, LogIdentity]) -> None:
    """See that the topics are still those that were positioned, so that a batch was read from one log.

    Raises:
        LogIdentityError: a topic was deleted, created again, moved or grown since its partitions were positioned.
    """
    for identity in expected:
        now = found.get(identity.topic)
        if now is None:
            raise LogIdentityError(
                f"topic {identity.topic} (id {identity.topic_id}) was deleted while its records were being ingested"
            )
        if now != identity:
            raise LogIdentityError(
                f"topic {identity.topic} changed while its records were being ingested: expected id "
                f"{identity.topic_id} with {identity.partitions} partitions on cluster {identity.cluster_id}, found id "
                f"{now.topic_id} with {now.partitions} partitions on cluster {now.cluster_id}"
            )


def _another_log(table: str, identity: LogIdentity, known: RegisteredLog) -> str:
    remedy = f"Bring the log back, or accept this one: `k2 ingest --accept-new-log {identity.topic}`"
    if known.cluster_id != identity.cluster_id:
        return (
            f"topic {identity.topic}: {table} was built from cluster {known.cluster_id} (log {known.log_id}), found "
            f"cluster {identity.cluster_id}: another broker, or one whose data was formatted anew. {remedy}"
        )
    return (
        f"topic {identity.topic} was deleted and created again: {table} was built from the topic with id "
        f"{known.topic_id} (log {known.log_id}), found id {identity.topic_id}. {remedy}"
    )
