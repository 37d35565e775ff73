"""Answers questions exactly: the table below its seam, the log from the seam to its end, each record once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import ConfigurationError, CorruptionError, K2Error, OverloadedError, QueryError, UnavailableError
from k2.kafka.topics import exchange_of
from k2.query.answering import Draft, answer_of, check, counts_from_newest, range_of
from k2.query.as_of import older_snapshot, resolved
from k2.query.bars.finishing import bars_answer
from k2.query.bars.reader import BarReader
from k2.query.certificate import AsOf
from k2.query.deferred import concerning, stated
from k2.query.intact_files import IntactFiles
from k2.query.live.follower import TailFollower
from k2.query.log_side import LogRows, LogSide, Shortfalls, with_token
from k2.query.merging import answer_columns, log_rows
from k2.query.on_demand import OnDemandReader
from k2.query.prefix import Prefix
from k2.query.request import Answer, QueryRequest, SymbolSummary
from k2.query.row_reader import RowReader
from k2.query.symbols import SymbolCounter
from k2.query.tail_duplicates import TailDuplicates
from k2.schemas.identity import IdentityRules
from k2.schemas.records import RECORD_TYPES
from k2.storage.file_checks import FileChecks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl

    from k2.common.clock import Clock
    from k2.kafka.topics import Topic
    from k2.query.bars.request import BarsRequest
    from k2.query.bars.rules import BarRule
    from k2.query.kafka_tail import KafkaTail
    from k2.query.on_demand import MissingRange
    from k2.query.ports import Decodes, OpenReader, Plans, RemembersEnds
    from k2.query.scan import Scanner
    from k2.query.settings import QuerySettings
    from k2.storage.named_snapshots import KeptSnapshot
    from k2.storage.planning import PinnedSnapshot

    ReadsDraft = Callable[[QueryRequest, Draft, pl.DataFrame | None, Prefix], set[int]]
    """Puts what is asked for into a draft, and returns the ids of logs of which strays were read."""
    WidensDraft = Callable[[Draft], None]
    """Moves the range of a draft to what its reader needs, before anything is looked for in it."""

_ATTEMPTS: Final = 2
"""A second one only where the first met a topic whose records are not where their keys say."""


@dataclass
class _Counts:
    """What the engine has done since it was made."""

    queries: int = 0
    failures: int = 0
    partial: int = 0
    rows: int = 0
    rows_from_log: int = 0
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class HybridQueryEngine:
    """Answers questions about trades and quotes. Safe to share between threads."""

    def __init__(
        self,
        topics: Sequence[Topic],
        *,
        tail: KafkaTail,
        planner: Plans,
        log_facts: RemembersEnds,
        open_reader: OpenReader,
        decoders: Mapping[str, Decodes],
        scanner: Scanner,
        settings: QuerySettings,
        clock: Clock,
        rules: IdentityRules | None = None,
        bar_rules: Mapping[str, BarRule] | None = None,
    ) -> None:
        self._topics = tuple(topics)
        self._tail = tail
        self._planner = planner
        self._decoders = decoders
        self._scanner = scanner
        checks = FileChecks(check_contents=settings.check_files, files_max=settings.checked_files_max)
        self._files_read = IntactFiles(scanner, checks)
        self._duplicates = TailDuplicates(rules or IdentityRules(), planner=planner, files=self._files_read)
        self._rows = RowReader(planner=planner, files=self._files_read, settings=settings)
        self._bars = BarReader(
            rows=self._rows, files=self._files_read, scanner=scanner, rules=bar_rules or {}, settings=settings
        )
        self._settings = settings
        self._clock = clock
        on_demand = OnDemandReader(open_reader, decoding=tail.decoding, settings=settings, clock=clock)
        self._log = LogSide(tail=tail, log_facts=log_facts, on_demand=on_demand, settings=settings)
        self._symbols = SymbolCounter(planner=planner, files=self._files_read, tail=tail, settings=settings)
        self._turns = threading.BoundedSemaphore(settings.queries_at_once_max)
        self._counts = _Counts()

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

    def query(self, request: QueryRequest) -> Answer:
        """Answer a question.

        Raises:
            QueryError: the question is wrong, or its answer too large.
            UnavailableError: the table or the log is out of reach, or too much of the log would have to be read.
            LogIdentityError: the log is not the one that the table was built from.
            OverloadedError: too many questions at once.
            CorruptionError: a file that the answer needs is damaged; the text names it.
        """
        asked = resolved(request, self._planner)
        return self._answered(asked, self._rows.read, lambda draft: answer_of(asked, draft, self._clock))

    def bars(self, request: BarsRequest) -> Answer:
        """Answer a question about bars; see `query`, and `bars.columns` for what each bar says."""
        asked = replace(request, trades=resolved(request.trades, self._planner))

        def read(_: QueryRequest, draft: Draft, logged: pl.DataFrame | None, prefix: Prefix) -> set[int]:
            return self._bars.read(asked, draft, logged, prefix)

        return self._answered(
            asked.trades,
            read,
            lambda draft: bars_answer(asked, draft, self._bars, self._clock),
            widen=lambda draft: self._bars.widen(asked, draft),
        )

    @property
    def bar_settle_ns(self) -> int:
        """Return how long after its end a bar is provisional."""
        return self._bars.settle_ns

    def live(self, data_type: str) -> TailFollower:
        """Return a follower of the log's newest rows, for one thread at a time."""
        topics = self._topics_of(data_type, None)
        return TailFollower(data_type, topics, tail=self._tail, planner=self._planner, duplicates=self._duplicates)

    def snapshots(self, data_type: str | None = None) -> list[KeptSnapshot]:
        """Return the snapshots that the tables still have, each table's newest first."""
        names = (data_type,) if data_type else tuple(RECORD_TYPES)
        return [each for name in names for each in self._planner.snapshots(name)]

    def symbols(
        self, exchange: str | None = None, data_type: str | None = None, *, read_rows_max: int | None = None
    ) -> list[SymbolSummary]:
        """Return the symbols that the tables and the tail hold, in order of data type, exchange and symbol.

        Raises:
            ReadLimitError: files of more than `read_rows_max` rows were written since their symbols were last counted.
        """
        for name in (data_type,) if data_type else tuple(RECORD_TYPES):
            self._topics_of(name, exchange)
        with self._turn():
            names = [data_type] if data_type else list(RECORD_TYPES)
            return self._symbols.count(exchange, names, read_rows_max=read_rows_max)

    def get_stats(self) -> dict[str, Any]:
        """Return what the engine and its tail have done and hold."""
        counts = self._counts
        return {
            "queries": counts.queries,
            "failures": counts.failures,
            "partial": counts.partial,
            "rows": counts.rows,
            "rows_from_log": counts.rows_from_log,
            "seconds": counts.seconds,
            "damaged_files": self._files_read.damaged,
            "tail": self._tail.get_stats(),
        }

    def close(self) -> None:
        """Close DuckDB and end the threads; the tail and the clients belong to whoever made them."""
        self._rows.close()
        self._scanner.close()

    def _answered(
        self,
        request: QueryRequest,
        read: ReadsDraft,
        finished: Callable[[Draft], Answer],
        *,
        widen: WidensDraft | None = None,
    ) -> Answer:
        """Answer a question in its turn, with what `read` puts into the draft."""
        check(request, self._settings, self._clock.time_ns())
        began = self._clock.monotonic()
        with self._turn(), self._counted():
            for _ in range(_ATTEMPTS):
                draft, strays = self._draft(request, read, widen)
                if not strays:
                    break
                self._tail.placement.strays |= strays
            answer = finished(draft)
        self._count(answer, self._clock.monotonic() - began)
        return answer

    def _draft(
        self, request: QueryRequest, read: ReadsDraft, widen: WidensDraft | None, snapshot_id: int | None = None
    ) -> tuple[Draft, set[str]]:
        """Gather an answer's rows; the second value names topics with strays, for which to begin again.

        They are those of the newest snapshot, or of an older one where retention has taken rows out since.
        """
        record_type = RECORD_TYPES[request.data_type]
        columns = answer_columns(record_type, request.columns)
        token = _token(request)
        prefix = Prefix(token, request.known_at_ns)
        topics = self._topics_of(request.data_type, request.exchange)
        draft = Draft(record_type, columns, Shortfalls(partial_allowed=request.on_degrade == "partial"), self._clock)
        with self._tail.lease() as lease:
            draft.pinned = self._pin(request, draft, snapshot_id)
            if draft.pinned is not None:
                seam, logs = draft.pinned.head.seam, draft.pinned.head.logs
                topic_of = {log.log_id: log.topic for log in logs}
                lease.narrow(
                    {(topic_of[at.log_id], at.partition): known.next_offset for at, known in seam.partitions.items()}
                )
            draft.lap("pin")
            if not counts_from_newest(request):
                draft.start_ns, draft.end_ns = range_of(request, now_ns=self._clock.time_ns(), newest_ns=None)
                if widen is None and not request.lake_only:
                    self._rows.read_ahead(request, draft)
            held = self._read_log(request, draft, topics, token)
            self._check_staleness(request, draft)
            draft.lap("log")
        logged = log_rows(held.frames, request, prefix)
        if counts_from_newest(request):
            draft.newest_ns = self._rows.newest_ns(request, draft, logged, prefix)
            draft.start_ns, draft.end_ns = range_of(request, now_ns=self._clock.time_ns(), newest_ns=draft.newest_ns)
        if widen is not None:
            widen(draft)
        if snapshot_id is None and (older := older_snapshot(request, draft, token, self._planner)) is not None:
            return self._draft(request, read, widen, older)
        if logged is not None:
            found = self._duplicates.without(logged, request, draft)
            draft.duplicates_removed = logged.height - found.height
            logged = found if found.height else None
            draft.lap("duplicates")
        strays = read(request, draft, logged, prefix)
        draft.lap("merge")
        head_logs = {} if draft.pinned is None else {log.log_id: log.topic for log in draft.pinned.head.logs}
        return draft, {head_logs[log_id] for log_id in strays if head_logs and token is None}

    def _pin(self, request: QueryRequest, draft: Draft, snapshot_id: int | None) -> PinnedSnapshot | None:
        partial = request.on_degrade == "partial"
        try:
            pinned = self._planner.pin(request.data_type, partial=partial, snapshot_id=snapshot_id)
        except (UnavailableError, ConfigurationError, CorruptionError) as error:
            if request.lake_only or request.as_of is not None:
                raise
            draft.shortfalls.add(error)
            draft.level = "LOG_ONLY"
            return None
        for damage in pinned.damaged:
            draft.shortfalls.add(damage)
        return pinned

    def _read_log(self, request: QueryRequest, draft: Draft, topics: Sequence[Topic], token: AsOf | None) -> LogRows:
        if draft.pinned is None:
            draft.partitions, rows = self._log.held(request, topics)
            draft.undecodable = rows.undecodable
            if not draft.partitions:
                raise UnavailableError(
                    f"neither the table nor the log can be read: {'; '.join(draft.shortfalls.reasons)}",
                    dependency="catalog",
                )
            return rows
        try:
            rows = self._read_live(request, draft, topics, token)
        except UnavailableError as error:
            if request.on_degrade == "fail":
                raise
            draft.shortfalls.note(error)
            draft.level = "TABLE_ONLY"
            extent = self._log.table_extent(request, draft.pinned.head)
            draft.partitions = (extent if token is None else with_token(extent, token)).partitions
            draft.deferred = stated(self._concerning(request, draft), are_read=False)
            rows = LogRows()
        draft.undecodable = rows.undecodable
        return rows

    def _read_live(self, request: QueryRequest, draft: Draft, topics: Sequence[Topic], token: AsOf | None) -> LogRows:
        assert draft.pinned is not None
        extent = self._log.extent(request, draft.pinned.head, topics, draft.shortfalls)
        if token is not None:
            extent = with_token(extent, token)
        draft.partitions = extent.partitions
        deferred = self._concerning(request, draft)
        to_read = deferred if request.deferred == "read" or token is not None else ()
        newest = {log.topic: log.log_id for log in draft.pinned.head.logs}  # an older log is not what its topic holds
        to_read = tuple(
            item
            for item in to_read
            if newest[item.topic] == item.log_id and (item.topic, item.partition) in extent.live
        )
        rows = self._log.read(request, extent, self._decoders[request.data_type], draft.shortfalls, to_read)
        draft.deferred = stated(deferred, are_read=rows.with_deferred and to_read == deferred)
        return rows

    def _concerning(self, request: QueryRequest, draft: Draft) -> tuple[MissingRange, ...]:
        assert draft.pinned is not None
        return concerning(draft.pinned.head, request.symbol, draft.partitions, self._tail.placement.strays)

    def _check_staleness(self, request: QueryRequest, draft: Draft) -> None:
        """Note how far the answer's end is behind the log's, and refuse what is further behind than is accepted."""
        asked_log = draft.level == "NORMAL" and not request.lake_only and request.as_of is None
        draft.staleness_seconds = 0.0 if asked_log else self._log.seconds_behind(draft.partitions)
        accepted, behind = request.max_staleness_seconds, draft.staleness_seconds
        if accepted is not None and request.as_of is None and (behind is None or behind > accepted):
            found = "nothing that tells" if behind is None else f"up to {behind:.1f} s"
            raise UnavailableError(
                f"expected an answer at most {accepted:g} s behind the log (max_staleness), found {found}: accept "
                f"more, or ask again later{''.join(f'; {reason}' for reason in draft.shortfalls.reasons)}",
                dependency="kafka",
                reason="stale",
            )

    def _topics_of(self, data_type: str, exchange: str | None) -> list[Topic]:
        topics = [topic for topic in self._topics if topic.data_type == data_type]
        if exchange is None:
            return topics
        chosen = [topic for topic in topics if topic.exchange == exchange]
        if not chosen:
            known = ", ".join(sorted({exchange_of(topic.name) for topic in topics}))
            raise QueryError(f"expected an exchange of topics.yaml ({known}), found {exchange!r}")
        return chosen

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._turns.acquire(timeout=self._settings.queue_seconds_max):
            raise OverloadedError(
                f"{self._settings.queries_at_once_max} questions are being answered already "
                "(K2_QUERY__QUERIES_AT_ONCE_MAX): ask again in a moment",
                dependency="query",
            )
        try:
            yield
        finally:
            self._turns.release()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except K2Error:
            with self._counts.lock:
                self._counts.queries += 1
                self._counts.failures += 1
            raise

    def _count(self, answer: Answer, seconds: float) -> None:
        counts = self._counts
        with counts.lock:
            counts.queries += 1
            counts.partial += not answer.certificate.complete
            counts.rows += answer.certificate.rows
            counts.rows_from_log += answer.certificate.rows_from_log
            counts.seconds += seconds


def _token(request: QueryRequest) -> AsOf | None:
    if request.as_of is None:
        return None
    token = AsOf.from_token(request.as_of)
    if token.data_type != request.data_type or token.exchange not in (None, request.exchange):
        raise QueryError(
            f"the token is of an answer about {token.data_type!r} of {token.exchange or 'all exchanges'!r}: it cannot "
            f"answer about {request.data_type} of {request.exchange or 'all exchanges'}"
        )
    return token
