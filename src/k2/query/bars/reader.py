"""Reads the bars of an answer: the table's files, the log's rows and what amendments leave, in one aggregation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.common.errors import CorruptionError, QueryError
from k2.common.units import NS_PER_DAY, NS_PER_SECOND
from k2.kafka.topics import exchange_of
from k2.query.amending import Shown
from k2.query.bars.rules import BarRule
from k2.query.bars.spans import NS_MIN, BarCalendar, Span
from k2.query.bars.statement import MEMORY, SPANS, TRADE, BarsWanted, bars_statement
from k2.query.bars.touched import concerned, memory_of
from k2.query.merging import answer_schema, matching, merged, rows_statement, within
from k2.query.scan import Condition, files_source
from k2.schemas.records import Action

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.query.amending import Amending
    from k2.query.answering import Draft
    from k2.query.bars.request import BarsRequest
    from k2.query.intact_files import IntactFiles
    from k2.query.prefix import Prefix
    from k2.query.request import QueryRequest
    from k2.query.row_reader import RowReader
    from k2.query.scan import Scanner
    from k2.query.settings import QuerySettings
    from k2.storage.planning import PlannedFile

_SPANNED_NS_MAX: Final = 400 * NS_PER_DAY
"""Of a longer range it is looked up first when its trades begin and end."""
_SPAN_SCHEMA: Final = pa.schema(
    [("exchange", pa.string())] + [(name, pa.bool_() if name == "in_hours" else pa.int64()) for name in Span._fields]
)


@dataclass(frozen=True, slots=True)
class _Gathered:
    """What a question reads: files with their condition, and the log's rows of its range."""

    files: tuple[PlannedFile, ...]
    condition: Condition
    in_range: pl.DataFrame | None


class BarReader:
    """Reads for one question after the other; threads may share it."""

    def __init__(
        self,
        *,
        rows: RowReader,
        files: IntactFiles,
        scanner: Scanner,
        rules: Mapping[str, BarRule],
        settings: QuerySettings,
    ) -> None:
        self._rows = rows
        self._files = files
        self._scanner = scanner
        self._rules = rules
        self._settings = settings
        self.settle_ns = int(settings.bar_settle_seconds * NS_PER_SECOND)

    def widen(self, request: BarsRequest, draft: Draft) -> None:
        """Move the draft's start back to that of its first bar: all trades of a bar count, wherever in it one asks."""
        if draft.start_ns is None:
            return
        start_ns = draft.start_ns
        draft.first_bars_ns = {
            name: max(calendar.bar_start_ns(start_ns), NS_MIN)
            for name, calendar in self._calendars(request, draft).items()
        }
        draft.start_ns = min(draft.first_bars_ns.values(), default=start_ns)

    def read(self, request: BarsRequest, draft: Draft, logged: pl.DataFrame | None, prefix: Prefix) -> set[int]:
        """Put raw bars into a widened draft, as `bars_statement` yields them; return the ids of logs that have strays.

        Raises:
            QueryError: there are more bars than one answer may have.
        """
        asked = request.trades
        calendars, starts = self._calendars(request, draft), draft.first_bars_ns
        found = self._gathered(asked, draft, logged, prefix)
        draft.lap("plan")
        amending = None
        if asked.amendments == "applied":
            amending = self._rows.amendments.concerning(asked, draft, found.files, logged, found.in_range, prefix)
            draft.lap("amendments")
        memory, condition, shown = self._memory(draft, found, amending)
        spans = self._spans(calendars, draft, found)
        wanted = BarsWanted(
            step_ns=next((calendar.step_ns for calendar in calendars.values()), request.length_ns),
            bars_max=self._settings.bars_max,
            rules={} if request.prints == "all" else self.rules(draft),
            partitions=draft.partitions,
            token=prefix.token,
        )
        bars = self._aggregated(wanted, draft, found.files, condition, {MEMORY: memory, SPANS: spans})
        draft.lap("files")
        if bars.num_rows > self._settings.bars_max:
            raise _too_many(self._settings.bars_max)
        _check_placed(bars)
        first = [starts.get(name, draft.start_ns) for name in bars["exchange"].to_pylist()]
        if starts:
            bars = bars.filter(pc.greater_equal(bars["bar_start_ns"], pa.array(first, pa.int64())))
        draft.rows_from_log = pc.sum(bars["from_log"]).as_py() or 0
        draft.shown = Shown(
            bars, truncated=False, cancelled=shown.cancelled, corrected=shown.corrected, unknown=shown.unknown,
            unknown_names=shown.unknown_names,
        )  # fmt: skip
        return {log_id for strays in bars["strays"].to_pylist() for log_id in strays or ()}

    def rules(self, draft: Draft) -> dict[str, BarRule]:
        """Return the rule of each exchange whose trades a draft may hold."""
        names = dict.fromkeys(exchange_of(item.topic) for item in draft.partitions)
        return {name: self._rules.get(name, BarRule()) for name in names}

    def _calendars(self, request: BarsRequest, draft: Draft) -> dict[str, BarCalendar]:
        return {name: BarCalendar(rule, request.length_ns, request.align) for name, rule in self.rules(draft).items()}

    def _gathered(self, asked: QueryRequest, draft: Draft, logged: pl.DataFrame | None, prefix: Prefix) -> _Gathered:
        in_range = None if logged is None else within(logged, asked, draft.start_ns, draft.end_ns)
        condition = matching(asked, draft.start_ns, draft.end_ns) & prefix.condition
        if asked.amendments == "raw":
            in_range = None if in_range is None else in_range.filter(pl.col("action") == Action.NEW)
            condition &= Condition(f"action = '{Action.NEW}'")
        return _Gathered(self._rows.files(asked, draft, draft.start_ns, draft.end_ns), condition, in_range)

    def _memory(self, draft: Draft, found: _Gathered, amending: Amending | None) -> tuple[pa.Table, Condition, Shown]:
        """Return the rows that are not taken from files as they are, the condition of those that are, and the counts.

        Amendments are applied to the few rows that they concern, in memory; no other row is looked at one by one.
        """
        if amending is None:
            return memory_of(found.in_range), found.condition, Shown(pa.table({}), truncated=False)
        stored_part, logged_part = concerned(amending.trade_ids)
        names = list(dict.fromkeys([*TRADE, *amending.columns]))
        limit = self._settings.rows_max
        statement, values = rows_statement(
            draft.record_type, names, found.condition & stored_part, limit=limit + 1, ordered=True
        )
        stored = self._files.fetch(statement, values, found.files, draft.shortfalls.add)
        if stored is not None and stored.num_rows > limit:
            raise QueryError(
                f"amendments concern more than {limit} trades of the range (K2_QUERY__ROWS_MAX): ask for a shorter one"
            )
        logged = None if found.in_range is None else found.in_range.filter(logged_part)
        rows = merged(stored, logged, answer_schema(draft.record_type, names))
        shown = amending.shown(rows, max(rows.num_rows, 1))
        others = None if found.in_range is None else found.in_range.filter(~logged_part)
        memory = memory_of(others, amended=amending.amended(rows), shown=shown.rows, rows=rows)
        return memory, found.condition & Condition(f"NOT ({stored_part.sql})", stored_part.values), shown

    def _spans(self, calendars: Mapping[str, BarCalendar], draft: Draft, found: _Gathered) -> pa.Table:
        low, high = draft.start_ns, None if draft.end_ns is None else draft.end_ns - 1
        if low is None or high is None or high - low > _SPANNED_NS_MAX:
            low, high = self._times(draft, found)
        if low is None or high is None:
            return _SPAN_SCHEMA.empty_table()
        rows = [(name, *span) for name, calendar in calendars.items() for span in calendar.spans(low, high)]
        columns = zip(*rows, strict=True) if rows else [()] * len(_SPAN_SCHEMA)
        return pa.table(
            [pa.array(each, kind) for each, kind in zip(columns, _SPAN_SCHEMA.types, strict=True)], _SPAN_SCHEMA
        )

    def _times(self, draft: Draft, found: _Gathered) -> tuple[int | None, int | None]:
        """Return the first and the last event time that there is in the range."""
        times: list[int | None] = []
        if found.in_range is not None:
            times += found.in_range.select(pl.col("ts_event_ns").min(), high=pl.col("ts_event_ns").max()).row(0)
        if found.files:
            statement = (
                f"SELECT min(ts_event_ns) AS low, max(ts_event_ns) AS high FROM {files_source(draft.record_type)} "  # noqa: S608  # names are ours
                f"WHERE {found.condition.sql}"
            )
            table = self._files.fetch(statement, found.condition.values, found.files, draft.shortfalls.add)
            times += [] if table is None else table.to_pylist()[0].values()
        known = [at for at in times if at is not None]
        return min(known, default=None), max(known, default=None)

    def _aggregated(
        self,
        wanted: BarsWanted,
        draft: Draft,
        files: Sequence[PlannedFile],
        condition: Condition,
        tables: Mapping[str, pa.Table],
    ) -> pa.Table:
        """Run the statement; again with products in parts, where one does not fit as a whole."""
        try:
            return self._run(wanted, draft, files, condition, tables, in_parts=False)
        except QueryError as error:
            if not isinstance(error.__cause__, duckdb.OutOfRangeException):
                raise
        return self._run(wanted, draft, files, condition, tables, in_parts=True)

    def _run(
        self,
        wanted: BarsWanted,
        draft: Draft,
        files: Sequence[PlannedFile],
        condition: Condition,
        tables: Mapping[str, pa.Table],
        *,
        in_parts: bool,
    ) -> pa.Table:
        statement, values = bars_statement(wanted, condition, in_parts=in_parts)
        found = self._files.fetch(statement, values, files, draft.shortfalls.add, tables=tables)
        if found is not None:
            return found
        statement, values = bars_statement(wanted, None, in_parts=in_parts)
        return self._scanner.fetch(statement, values, tables=tables)


def _check_placed(bars: pa.Table) -> None:
    """See that every trade was in one of the spans: no trade is left out in silence."""
    lost: list[Any] = bars.filter(pc.is_null(bars["bar_start_ns"]))["exchange"].to_pylist()
    if lost:
        raise CorruptionError(
            f"expected trades of the exchanges whose logs were read, found trades of {', '.join(map(repr, lost))} "
            "among them",
            path="market.trades",
        )


def _too_many(bars_max: int) -> QueryError:
    return QueryError(
        f"the answer has more than {bars_max} bars (K2_QUERY__BARS_MAX): ask for a shorter range, or for longer bars"
    )
