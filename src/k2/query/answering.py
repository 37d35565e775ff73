"""Checks a question against the limits, works out its range, and turns gathered rows into an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from k2.common.errors import QueryError
from k2.common.units import NS_PER_MINUTE
from k2.query.amending import Shown
from k2.query.certificate import AsOf, Certificate
from k2.query.merging import FROM_LOG, answer_schema
from k2.query.request import Answer, QueryRequest, RowKey
from k2.schemas.records import ORDER, RecordType
from k2.schemas.symbols import SYMBOL_RULE, is_symbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future

    from k2.common.clock import Clock
    from k2.common.errors import CorruptionError
    from k2.query.certificate import Deferred, PartitionRead
    from k2.query.log_side import Shortfalls
    from k2.query.settings import QuerySettings
    from k2.storage.planning import PinnedSnapshot, PlannedFile
    from k2.storage.seam import Seam
    from k2.storage.tables import RegisteredLog

_NS_MAX: Final = 2**63 - 1
_AHEAD_NS: Final = 86_400_000_000_000
"""Events up to a day ahead are accepted into the log, so a question may reach as far."""


@dataclass(frozen=True, slots=True)
class RowsAhead:
    """Rows of these files and columns, of a draft's range and in order, that another thread reads."""

    files: tuple[PlannedFile, ...]
    columns: list[str]
    rows: Future[pa.Table | None]
    damage: list[CorruptionError]
    """What was found damaged meanwhile, and left out."""


class Draft:
    """An answer in the making."""

    def __init__(self, record_type: RecordType, columns: tuple[str, ...], shortfalls: Shortfalls, clock: Clock) -> None:
        self.record_type = record_type
        self.columns = columns
        self.shortfalls = shortfalls
        self.level = "NORMAL"
        self.staleness_seconds: float | None = None
        self.pinned: PinnedSnapshot | None = None
        self.partitions: tuple[PartitionRead, ...] = ()
        self.deferred: tuple[Deferred, ...] = ()
        self.undecodable = 0
        self.duplicates_removed = 0
        self.newest_ns: int | None = None
        self.start_ns: int | None = None
        self.end_ns: int | None = None
        self.first_bars_ns: Mapping[str, int] = {}
        """Where the first bar begins that is asked for, by exchange."""
        self.ahead: RowsAhead | None = None
        self.shown = Shown(pa.table({}), truncated=False)
        self.rows_from_log = 0
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._lap_began = clock.monotonic()

    def lap(self, name: str) -> None:
        """Note how long the step that ends now took."""
        now = self._clock.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + round(now - self._lap_began, 6)
        self._lap_began = now


def check(request: QueryRequest, settings: QuerySettings, now_ns: int) -> None:
    """See that a question is within the limits.

    Raises:
        QueryError: it is not; the text says what to ask instead.
    """
    if request.gaps != "annotate":
        raise QueryError(f"expected gaps 'annotate' of an engine that reads no table of gaps, found {request.gaps!r}")
    if not is_symbol(request.symbol):
        raise QueryError(f"expected {SYMBOL_RULE}, found {request.symbol[:80]!r}")
    if request.window_minutes is not None and request.window_minutes > settings.window_minutes_max:
        raise QueryError(
            f"expected a window of at most {settings.window_minutes_max:g} minutes (K2_QUERY__WINDOW_MINUTES_MAX), "
            f"found {request.window_minutes:g}: ask with a start and an end"
        )
    for name, value in (("start", request.start_ns), ("end", request.end_ns)):
        if value is not None and not -_NS_MAX <= value <= _NS_MAX:
            raise QueryError(f"expected {name} in nanoseconds since 1970, within 64 bits, found {value}")
    if request.start_ns is not None and request.start_ns > now_ns + _AHEAD_NS:
        raise QueryError(
            f"expected a start that is not in the future, found {request.start_ns} ns since 1970, which is "
            f"{(request.start_ns - now_ns) / 1e9:.0f} s ahead: times without a zone are UTC"
        )
    if request.known_at_ns is not None and not -_NS_MAX <= request.known_at_ns <= now_ns:
        raise QueryError(
            f"expected known_at to be a time that has come, found {request.known_at_ns} ns since 1970, now being "
            f"{now_ns}: leave it out for what is known now"
        )
    if request.limit is not None and request.limit > settings.rows_max:
        raise QueryError(
            f"expected a limit of at most {settings.rows_max} rows (K2_QUERY__ROWS_MAX), found {request.limit}: page"
        )


def counts_from_newest(request: QueryRequest) -> bool:
    """Say whether the range is known only once the symbol's newest record is."""
    return request.window_minutes is not None and request.anchor == "latest"


def range_of(request: QueryRequest, *, now_ns: int, newest_ns: int | None) -> tuple[int | None, int | None]:
    """Return the half-open range of a question; `newest_ns` is the newest record's time, for `anchor=latest`."""
    if request.window_minutes is None:
        return request.start_ns, request.end_ns
    window_ns = int(request.window_minutes * NS_PER_MINUTE)
    if counts_from_newest(request) and newest_ns is not None:
        return newest_ns - window_ns, newest_ns + 1
    return now_ns - window_ns, now_ns


def answer_of(request: QueryRequest, draft: Draft, clock: Clock) -> Answer:
    """Return the answer that a draft has come to."""
    rows = draft.shown.rows
    last = rows.slice(max(rows.num_rows - 1, 0)).select(list(ORDER)).to_pylist()
    schema = answer_schema(draft.record_type, draft.columns)
    table = rows.drop_columns([FROM_LOG]).select(list(draft.columns)).cast(schema)
    certificate = certificate_of(
        request, draft, now_ns=clock.time_ns(), rows=rows.num_rows, newest_ns=last[0]["ts_event_ns"] if last else None
    )
    return Answer(table, certificate, RowKey(**last[0]) if draft.shown.truncated and last else None)


def certificate_of(
    request: QueryRequest, draft: Draft, *, now_ns: int, rows: int, newest_ns: int | None, is_of_bars: bool = False
) -> Certificate:
    """Return what a draft is made of: `rows` of it, the newest of `newest_ns`."""
    shown = draft.shown
    head = None if draft.pinned is None else draft.pinned.head
    lacking = (*draft.shortfalls.reasons, *_reasons(draft.deferred, () if head is None else head.logs))
    token = None
    if not lacking and head is not None:
        token = request.as_of or token_of(request, draft.partitions, head.seam, now_ns if is_of_bars else None)
    return Certificate(
        table=request.data_type,
        symbol=request.symbol,
        exchange=request.exchange,
        start_ns=draft.start_ns,
        end_ns=draft.end_ns,
        snapshot_id=None if head is None else head.snapshot_id,
        commit_sequence=None if head is None else head.seam.commit_sequence,
        partitions=draft.partitions,
        rows=rows,
        rows_from_table=rows - draft.rows_from_log,
        rows_from_log=draft.rows_from_log,
        undecodable=draft.undecodable,
        duplicates_removed=draft.duplicates_removed,
        as_of=token,
        complete=not lacking and not shown.unknown,
        reasons=(*lacking, *_unknown(shown)),
        degradation_level=draft.level if not lacking or draft.level != "NORMAL" else "PARTIAL",
        stale=draft.level == "TABLE_ONLY",
        staleness_seconds=draft.staleness_seconds,
        lake_only=request.lake_only,
        truncated=shown.truncated,
        amendments=request.amendments,
        known_at_ns=request.known_at_ns,
        cancelled=shown.cancelled,
        corrected=shown.corrected,
        originals_unknown=shown.unknown,
        deferred=draft.deferred,
        newest_record_age_seconds=None if newest_ns is None else round((now_ns - newest_ns) / 1e9, 6),
        answered_at_ns=now_ns,
        seconds=draft.seconds,
    )


def token_of(request: QueryRequest, partitions: Sequence[PartitionRead], seam: Seam, at_ns: int | None) -> str:
    """Return the token of the log prefix; what is deferred in it, of whatever symbol, is part of the prefix."""
    ends = tuple((item.log_id, item.partition, item.seam, item.end) for item in partitions)
    read = {(item.log_id, item.partition) for item in partitions}
    deferred = tuple(
        (entry.log_id, entry.partition, entry.start, entry.end)
        for entry in seam.deferred
        if (entry.log_id, entry.partition) in read
    )
    known_at_ns = request.known_at_ns
    return AsOf(
        request.data_type, request.exchange, seam.commit_sequence, ends, deferred, at_ns, known_at_ns
    ).to_token()


def _unknown(shown: Shown) -> list[str]:
    if not shown.unknown:
        return []
    named = f" ({', '.join(map(repr, shown.unknown_names))})" if shown.unknown_names else ""
    return [f"{shown.unknown} amendments name trades that the log does not hold{named}: their originals never came"]


def _reasons(deferred: tuple[Deferred, ...], logs: Sequence[RegisteredLog]) -> list[str]:
    newest = {log.topic: log.log_id for log in logs}
    topics = {log.log_id: log.topic for log in logs}
    return [
        f"records of this symbol between offsets {item.start} and {item.end} of log {item.log_id} partition "
        f"{item.partition} are deferred: "
        + (
            "ask again once the backfill is done, or with deferred=read"
            if newest[topics[item.log_id]] == item.log_id
            else f"they are lost, since the topic {topics[item.log_id]} was created again"
        )
        for item in deferred
        if not item.read
    ]
