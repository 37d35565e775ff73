"""What `as_of` names (a token, a snapshot, a tag, or now), and which snapshot still holds what a token was made of."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from k2.common.errors import ExpiredError, QueryError
from k2.kafka.topics import exchange_of
from k2.query.answering import token_of
from k2.query.certificate import AsOf, PartitionRead

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.query.answering import Draft
    from k2.query.ports import Plans
    from k2.query.request import QueryRequest
    from k2.storage.dropped_days import DroppedDays
    from k2.storage.named_snapshots import KeptSnapshot
    from k2.storage.tables import TableHead

NOW: Final = "now"
SNAPSHOT: Final = "snapshot:"
TAG: Final = "tag:"
ENCODED_BEGINS: Final = "eyJ"
_NAMED_MAX: Final = 10


def resolved(request: QueryRequest, planner: Plans) -> QueryRequest:
    """Return the question with a token in place of whatever `as_of` names, and with the time that a token holds.

    Raises:
        QueryError: it is no token, nor anything else that `as_of` may name, or there is no such tag.
        ExpiredError: the snapshot is not there any more.
    """
    text = request.as_of
    if text is None or text == NOW:
        return replace(request, as_of=None)
    if text.startswith(ENCODED_BEGINS):
        known_at_ns = AsOf.from_token(text).known_at_ns
        times = [at for at in (known_at_ns, request.known_at_ns) if at is not None]
        return replace(request, known_at_ns=min(times, default=None))
    found = _named(text, planner.snapshots(request.data_type))
    token = token_of(request, _up_to_the_seam(request, found.head), found.head.seam, found.committed_at_ns)
    return replace(request, as_of=token)


def older_snapshot(request: QueryRequest, draft: Draft, token: AsOf | None, planner: Plans) -> int | None:
    """Return the snapshot to answer from, where retention has taken rows out of the newest that the question knew.

    None where it has not. Any snapshot from before the drop holds what a token from before it names: the newest of them
    leaves the least to be read from the log. Where there is none the draft is short of these rows.

    Raises:
        ExpiredError: there is none, and the caller would not have the rest.
    """
    if draft.pinned is None or (token is None and request.known_at_ns is None):
        return None
    seen = None if token is None else max(token.commit_sequence, request.since.commit_sequence if request.since else 0)
    start_ns = None if request.anchor == "latest" and draft.newest_ns is None else draft.start_ns
    dropped = [
        each
        for each in draft.pinned.head.dropped
        if _was_known(each, seen, request.known_at_ns) and each.concerns(request.exchange, start_ns, draft.end_ns)
    ]
    if not dropped:
        return None
    if seen is not None:
        before = range(seen, min(each.commit_sequence for each in dropped))
        for snapshot in planner.snapshots(request.data_type):
            if snapshot.head.seam.commit_sequence in before:
                return snapshot.snapshot_id
    draft.shortfalls.add(
        ExpiredError(
            f"expected all {request.data_type} that were there then, found days of {', '.join(_exchanges(dropped))} "
            "dropped by retention since, and no snapshot from before: ask about later days, as of a tag that kept "
            "these (`k2 snapshot list`), or as of now"
        )
    )
    return None


def _up_to_the_seam(request: QueryRequest, head: TableHead) -> list[PartitionRead]:
    """Return all partitions of the exchange's logs: the symbol's records may lie in others than its own."""
    topics = {log.log_id: log.topic for log in head.logs if request.exchange in (None, exchange_of(log.topic))}
    return [
        PartitionRead(key.log_id, topics[key.log_id], key.partition, at.next_offset, at.next_offset)
        for key, at in sorted(head.seam.partitions.items())
        if key.log_id in topics
    ]


def _was_known(dropped: DroppedDays, seen: int | None, known_at_ns: int | None) -> bool:
    """Say whether the rows were still there when the question's prefix was: after the commit `seen`, or at the time."""
    if seen is not None:
        return seen < dropped.commit_sequence
    return known_at_ns is not None and known_at_ns <= dropped.at_ns


def _named(text: str, snapshots: Sequence[KeptSnapshot]) -> KeptSnapshot:
    if text.startswith(SNAPSHOT):
        number = text.removeprefix(SNAPSHOT)
        found = next((each for each in snapshots if str(each.snapshot_id) == number), None)
        if found is None:
            raise ExpiredError(
                f"expected a snapshot that the table still has, found {text[:80]!r}: it has expired, or is another "
                "table's; GET /v1/snapshots and `k2 snapshot list` show what there is, a tag keeps one"
            )
        return found
    name = text.removeprefix(TAG)
    found = next((each for each in snapshots if name in {tag.name for tag in each.tags}), None)
    if found is None:
        known = sorted({tag.name for each in snapshots for tag in each.tags})
        raise QueryError(
            "expected as_of to be the token of a certificate, a time, snapshot:ID, now, or a tag of the table "
            f"({', '.join(known[:_NAMED_MAX]) or 'there is none'}), found {text[:80]!r}"
        )
    return found


def _exchanges(dropped: Sequence[DroppedDays]) -> list[str]:
    return sorted({each.exchange for each in dropped})
