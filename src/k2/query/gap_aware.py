"""Says in each answer's certificate which gaps overlap it; on request leaves incomplete sessions out, or refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl

from k2.common.errors import ConfigurationError, CorruptionError, QueryError, UnavailableError
from k2.common.logging import get_logger
from k2.query.bars.finishing import with_gaps, without_gaps
from k2.query.certificate import AsOf
from k2.query.request import Answer, QueryRequest
from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS, RECORD_TYPES
from k2.storage.gaps import lazy_states, states

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from k2.query.bars.request import BarsRequest
    from k2.query.certificate import Certificate
    from k2.query.live.follower import TailFollower
    from k2.query.request import SymbolSummary
    from k2.storage.named_snapshots import KeptSnapshot

log = get_logger(__name__)

_NEEDED: Final = ("exchange", "trading_date", "ts_event_ns", "commit_sequence")
"""What is looked at of a row to leave it out."""
_NAMED_MAX: Final = 5
_NO_GAPS: Final = states(pl.DataFrame(schema=polars_schema(GAPS)))


class AnswersQuestions(Protocol):
    """The engine that this one stands in front of."""

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question."""
        ...

    def bars(self, request: BarsRequest) -> Answer:
        """Answer a question about bars."""
        ...

    def symbols(
        self, exchange: str | None = None, data_type: str | None = None, *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return the symbols that there are; ReadLimitError where more rows than that would have to be read."""
        ...

    def live(self, data_type: str) -> TailFollower:
        """Return a follower of the log's newest rows."""
        ...

    @property
    def bar_settle_ns(self) -> int:
        """Return how long after its end a bar is provisional."""
        ...

    def snapshots(self, data_type: str | None = None) -> list[KeptSnapshot]:
        """Return the snapshots that the tables still have."""
        ...

    def get_stats(self) -> dict[str, Any]:
        """Return what the engine has done and holds."""
        ...

    def close(self) -> None:
        """Close what the engine holds."""
        ...


class EventsOfGaps(Protocol):
    """Where the events of gaps are read."""

    def of(
        self, data_type: str, symbol: str, *, start_ns: int | None = None, end_ns: int | None = None
    ) -> pl.DataFrame:
        """Return the events of a symbol's gaps; none, if all gaps lie outside [start_ns, end_ns).

        Raises:
            UnavailableError, CorruptionError, ConfigurationError: the table of gaps cannot be read.
        """
        ...


class GapTable(Protocol):
    """Where the gaps themselves are read."""

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return one row a gap, the newest first; ReadLimitError where more rows than that would have to be read."""
        ...


class GapAwareEngine:
    """A query engine that knows the gaps. `watched` names, by data type, the exchanges whose numbers are watched.

    A gap overlaps a question if the log prefix of the answer knows of it, some of its numbers have not come, and the
    events before and after it lie on both sides of the range's times, or in them.
    """

    def __init__(
        self,
        engine: AnswersQuestions,
        *,
        events: EventsOfGaps,
        table: GapTable,
        watched: Mapping[str, frozenset[str]],
        listed_max: int,
    ) -> None:
        self._engine = engine
        self._events = events
        self._table = table
        self._watched = watched
        self._listed_max = listed_max

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question; see HybridQueryEngine.

        Raises:
            QueryError: also where `gaps=fail`, and there is a gap.
            UnavailableError: also where the gaps cannot be read, unless they only annotate.
        """
        answer = self._engine.query(_asked(request))
        found = self._known(request, answer)
        if found is None:
            return answer
        answer = self._annotated(answer, found)
        return _without(answer, request, found) if request.gaps == "exclude" else answer

    def bars(self, request: BarsRequest) -> Answer:
        """Answer a question about bars; see `query`. Each bar says how many numbers are missing in it."""
        asked = request.trades
        answer = self._engine.bars(replace(request, trades=_asked(asked)))
        found = self._known(asked, answer)
        if found is None:
            return answer
        answer = with_gaps(self._annotated(answer, found), found, self._watched.get(asked.data_type, frozenset()))
        return without_gaps(answer, found) if asked.gaps == "exclude" else answer

    def query_recent_trades(
        self, symbol: str, window_minutes: float = 15, exchange: str | None = None, **more: Any
    ) -> Answer:
        """Return the symbol's trades of the last minutes; `more` are other fields of a `QueryRequest`."""
        return self.query(
            QueryRequest(data_type="trades", symbol=symbol, window_minutes=window_minutes, exchange=exchange, **more)
        )

    def query_recent_quotes(
        self, symbol: str, window_minutes: float = 15, exchange: str | None = None, **more: Any
    ) -> Answer:
        """Return the symbol's quotes of the last minutes; `more` are other fields of a `QueryRequest`."""
        return self.query(
            QueryRequest(data_type="quotes", symbol=symbol, window_minutes=window_minutes, exchange=exchange, **more)
        )

    def gaps(
        self,
        *,
        symbol: str | None = None,
        exchange: str | None = None,
        since_ns: int | None = None,
        read_rows_max: int | None = None,
    ) -> pl.DataFrame:
        """Return one row a gap, the newest first; `since_ns` leaves out those that ended before, in event time."""
        return self._table.gaps(symbol=symbol, exchange=exchange, since_ns=since_ns, read_rows_max=read_rows_max)

    def symbols(
        self, exchange: str | None = None, data_type: str | None = None, *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return the symbols that there are; see HybridQueryEngine."""
        return self._engine.symbols(exchange, data_type, read_rows_max=read_rows_max)

    @property
    def bar_settle_ns(self) -> int:
        """Return how long after its end a bar is provisional."""
        return self._engine.bar_settle_ns

    def live(self, data_type: str) -> TailFollower:
        """Return a follower of the log's newest rows, for one thread at a time."""
        return self._engine.live(data_type)

    def snapshots(self, data_type: str | None = None) -> list[KeptSnapshot]:
        """Return the snapshots that the tables still have, each table's newest first."""
        return self._engine.snapshots(data_type)

    def get_stats(self) -> dict[str, Any]:
        """Return what the engine has done and holds."""
        return self._engine.get_stats()

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _known(self, request: QueryRequest, answer: Answer) -> pl.DataFrame | None:
        """Return the gaps that overlap an answer; None where nothing can be said of them, and nothing must be."""
        try:
            found = self._overlapping(request, answer.certificate)
        except (UnavailableError, CorruptionError, ConfigurationError) as error:
            if request.gaps != "annotate":
                raise
            log.warning("gaps_unknown", table=request.data_type, error=str(error))
            return None
        if found is None and request.gaps != "annotate":
            raise QueryError(
                f"expected numbers that are watched, found none: whether {request.data_type} of "
                f"{request.exchange or 'these exchanges'} lack anything cannot be said; ask with gaps=annotate"
            )
        if request.gaps == "fail" and found is not None and found.height:
            raise _refusal(request, found)
        return found

    def _annotated(self, answer: Answer, found: pl.DataFrame) -> Answer:
        listed = tuple(_listed(gap) for gap in found.head(self._listed_max).iter_rows(named=True))
        return replace(answer, certificate=replace(answer.certificate, gap_count=found.height, gaps=listed))

    def _overlapping(self, request: QueryRequest, certificate: Certificate) -> pl.DataFrame | None:
        """Return the gaps that overlap an answer, the newest first; None where nobody watches."""
        watched = self._watched.get(request.data_type, frozenset())
        asked = watched if request.exchange is None else watched & {request.exchange}
        if not asked or certificate.snapshot_id is None:
            return None
        start_ns, end_ns = certificate.start_ns, certificate.end_ns
        events = self._events.of(request.data_type, request.symbol, start_ns=start_ns, end_ns=end_ns)
        if events.is_empty():
            return _NO_GAPS
        known = events.lazy().join(_seams(certificate).lazy(), on=["log_id", "log_partition"])
        known = known.filter(
            pl.col("decided_offset") < pl.col("seam"),
            pl.col("exchange").is_in(sorted(asked)),
            pl.col("commit_sequence").fill_null(0) <= _commits(certificate),
        )
        if certificate.known_at_ns is not None:
            known = known.filter(pl.col("ts_event_log").dt.epoch("us") * 1_000 < certificate.known_at_ns)
        gaps = lazy_states(known).filter(pl.col("missing") > 0)
        if start_ns is not None:
            gaps = gaps.filter(pl.max_horizontal("from_ns", "to_ns") >= start_ns)
        if end_ns is not None:
            gaps = gaps.filter(pl.min_horizontal("from_ns", "to_ns") < end_ns)
        return gaps.collect()


def _asked(request: QueryRequest) -> QueryRequest:
    """Return the question for the engine: to leave rows out, more of them must be known than was asked for."""
    columns = request.columns
    if request.gaps == "exclude" and columns is not None:
        columns = tuple(dict.fromkeys([*columns, *_NEEDED]))
    return replace(request, columns=columns, gaps="annotate")


def _seams(certificate: Certificate) -> pl.DataFrame:
    """Return the seam of each partition as the answer's token holds it, so that a token knows the same gaps again."""
    if certificate.as_of is not None:
        read = [(log_id, at, seam) for log_id, at, seam, _ in AsOf.from_token(certificate.as_of).partitions]
    else:
        read = [(item.log_id, item.partition, item.seam) for item in certificate.partitions]
    schema = {"log_id": pl.Int32, "log_partition": pl.Int32, "seam": pl.Int64}
    return pl.DataFrame(read, schema=schema, orient="row")


def _commits(certificate: Certificate) -> int:
    """Return the number of the newest commit that the answer knows; a replay moves no seam."""
    if certificate.as_of is not None:
        return AsOf.from_token(certificate.as_of).commit_sequence
    return certificate.commit_sequence or 0


def _listed(gap: dict[str, Any]) -> dict[str, Any]:  # Any: values of all columns' types
    dates = {name: gap[name] and gap[name].isoformat() for name in ("trading_date", "trading_date_to")}
    names = ("exchange", "symbol", "channel", "gap_first", "gap_last", "missing", "state", "from_ns", "to_ns")
    return {name: gap[name] for name in names} | dates


def _refusal(request: QueryRequest, gaps: pl.DataFrame) -> QueryError:
    named = [
        f"{gap['exchange']} {gap['symbol'] or gap['channel']} {gap['gap_first']}-{gap['gap_last']} "
        f"({gap['missing']} missing)"
        for gap in gaps.head(_NAMED_MAX).iter_rows(named=True)
    ]
    more = f" and {gaps.height - _NAMED_MAX} more" if gaps.height > _NAMED_MAX else ""
    return QueryError(
        f"expected {request.data_type} of {request.symbol} without gaps, found {gaps.height}: {', '.join(named)}{more}"
        "; ask with gaps=annotate for all rows, or with gaps=exclude for the complete sessions"
    )


def _without(answer: Answer, request: QueryRequest, gaps: pl.DataFrame) -> Answer:
    """Return the answer without the sessions that lack something: an exchange's rows of a trading date each."""
    columns = list(request.columns or (field.name for field in RECORD_TYPES[request.data_type].fields))
    rows = pl.DataFrame(pl.from_arrow(answer.table.select(list(_NEEDED))))
    out = pl.lit(value=False)
    for exchange, since, until, from_ns, to_ns in gaps.select(
        "exchange", "trading_date", "trading_date_to", "from_ns", "to_ns"
    ).unique().iter_rows():  # fmt: skip
        session = (
            pl.col("ts_event_ns").is_between(min(from_ns, to_ns), max(from_ns, to_ns))
            if since is None or until is None
            else pl.col("trading_date").is_between(since, until)
        )
        out |= (pl.col("exchange") == exchange) & session
    gone = rows.with_columns(gone=out.fill_null(value=False))["gone"]
    kept = answer.table.filter((~gone).to_arrow()).select(columns)
    return Answer(kept, _less(answer.certificate, rows, gone), answer.next_after)


def _less(certificate: Certificate, rows: pl.DataFrame, gone: pl.Series) -> Certificate:
    dropped, left = rows.filter(gone), rows.filter(~gone)
    from_log = dropped["commit_sequence"].null_count()
    last = left["ts_event_ns"][-1] if left.height else None
    return replace(
        certificate,
        rows=left.height,
        rows_from_log=certificate.rows_from_log - from_log,
        rows_from_table=certificate.rows_from_table - (dropped.height - from_log),
        rows_excluded=dropped.height,
        newest_record_age_seconds=None if last is None else round((certificate.answered_at_ns - last) / 1e9, 6),
    )


def gaps_table(found: pl.DataFrame, rows_max: int) -> pa.Table:
    """Return the newest gaps, at most so many, for every form in which they are written."""
    return found.head(rows_max).to_arrow(compat_level=pl.CompatLevel.oldest())
