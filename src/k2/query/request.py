"""What can be asked of the hybrid engine, and what it answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from k2.common.errors import QueryError

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.query.certificate import Certificate

DataType = Literal["trades", "quotes"]
Anchor = Literal["now", "latest"]
OnDegrade = Literal["fail", "stale", "partial"]
AmendmentsView = Literal["applied", "raw"]
GapsChoice = Literal["annotate", "exclude", "fail"]
DeferredChoice = Literal["mark", "read"]


@dataclass(frozen=True, slots=True, order=True)
class RowKey:
    """Place of a row in an answer's order; a page begins after the last row of the one before it."""

    ts_event_ns: int
    log_id: int
    log_partition: int
    log_offset: int


@dataclass(frozen=True, slots=True)
class Since:
    """How far a reader has come in the log: it has what lies below these offsets, and asks for the rest."""

    ends: tuple[tuple[int, int, int], ...]
    """Log id, partition, next offset; of a partition that is not named, nothing has been read."""
    commit_sequence: int
    """A commit of which, as of each before it, the table's rows all lie below these offsets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryRequest:
    """One question: a symbol's records in a window or a range.

    Give either `window_minutes` (counted back from `anchor`) or `start_ns` and `end_ns` (UTC nanoseconds, half-open,
    either may be None for no bound). `columns` None means all, in the order of the table.
    """

    data_type: DataType
    symbol: str
    exchange: str | None = None
    window_minutes: float | None = None
    anchor: Anchor = "now"
    start_ns: int | None = None
    end_ns: int | None = None
    limit: int | None = None
    columns: tuple[str, ...] | None = None
    after: RowKey | None = None
    """Only rows after this place in the order: the next page. Goes with `as_of` and a fixed range."""
    since: Since | None = None
    """Only records from these offsets of the log on."""
    as_of: str | None = None
    """Answer from a log prefix of before, not from the newest one: that of a certificate's token, of a snapshot
    (`snapshot:ID`) or of a tag, up to its seam. `now` is the newest."""
    lake_only: bool = False
    """Only what the table holds: the answer ends at the pinned seam."""
    on_degrade: OnDegrade = "fail"
    """Where the log is out of reach: fail, or answer from the table alone, marked (`stale`, `partial`). Where the table
    is, or a part is damaged or cannot be read: fail, or answer what there is, marked (`partial`)."""
    max_staleness_seconds: float | None = None
    """How far the answer's end may lie behind the log's; an answer of which that cannot be told is refused as well.
    An answer `as_of` a token ends where the token says, however old that is."""
    known_at_ns: int | None = None
    """Answer from the records that the log had before this time, UTC nanoseconds: as then known, not as now."""
    amendments: AmendmentsView = "applied"
    """Trades as CANCELs and CORRECTs leave them, or every record as it was written (`raw`)."""

    gaps: GapsChoice = "annotate"
    """Gaps in the venue's numbers: name them in the certificate, leave out sessions that have one, or refuse."""
    deferred: DeferredChoice = "mark"
    """Records that overload has put off: mark the answer as incomplete, or read them from the log. With a token they
    are read in any case."""

    def __post_init__(self) -> None:
        if self.data_type not in ("trades", "quotes"):
            raise QueryError(f"expected data_type 'trades' or 'quotes', found {self.data_type!r}")
        if not self.symbol:
            raise QueryError("expected a symbol, found an empty text: name one, for example BHP")
        if self.anchor not in ("now", "latest"):
            raise QueryError(f"expected anchor 'now' or 'latest', found {self.anchor!r}")
        if self.on_degrade not in ("fail", "stale", "partial"):
            raise QueryError(f"expected on_degrade 'fail', 'stale' or 'partial', found {self.on_degrade!r}")
        if self.max_staleness_seconds is not None and not 0 < self.max_staleness_seconds < math.inf:
            raise QueryError(f"expected a max_staleness of more than 0 seconds, found {self.max_staleness_seconds}")
        if self.amendments not in ("applied", "raw"):
            raise QueryError(f"expected amendments 'applied' or 'raw', found {self.amendments!r}")
        if self.gaps not in ("annotate", "exclude", "fail"):
            raise QueryError(f"expected gaps 'annotate', 'exclude' or 'fail', found {self.gaps!r}")
        self._check_deferred()
        self._check_range()
        if self.limit is not None and self.limit < 1:
            raise QueryError(f"expected a limit of 1 or more, found {self.limit}")

    def _check_deferred(self) -> None:
        if self.deferred not in ("mark", "read"):
            raise QueryError(f"expected deferred 'mark' or 'read', found {self.deferred!r}")
        if self.deferred == "read" and self.lake_only:
            raise QueryError("expected deferred 'mark' with lake_only, which reads no log, found 'read': leave one out")

    def _check_range(self) -> None:
        ranged = self.start_ns is not None or self.end_ns is not None
        if self.window_minutes is not None and ranged:
            raise QueryError("expected a window or a start and end, found both: give one of them")
        if self.window_minutes is not None and not self.window_minutes > 0:
            raise QueryError(f"expected a window of more than 0 minutes, found {self.window_minutes}")
        if self.start_ns is not None and self.end_ns is not None and self.start_ns >= self.end_ns:
            raise QueryError(
                f"expected a start before the end, found start {self.start_ns} and end {self.end_ns} (nanoseconds): "
                "swap them; the end itself is not part of the range"
            )


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows in order, and the certificate that says what they are.

    In rows that no commit has stored yet (they came from the log) `commit_sequence` and `written_by` are null.
    `next_after` is the place of the last row where `limit` cut the answer short, else None.
    """

    table: pa.Table
    certificate: Certificate
    next_after: RowKey | None = None


@dataclass(frozen=True, slots=True)
class SymbolSummary:
    """What K2 holds of one symbol of one exchange: rows, and times of the first and last event."""

    data_type: DataType
    exchange: str
    symbol: str
    rows: int
    first_ts_event_ns: int
    last_ts_event_ns: int
