"""Reads the rows of an answer: those of the table's files, merged with the log's, shown as amendments leave them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import pyarrow.compute as pc

from k2.common.errors import CorruptionError, QueryError
from k2.query.amending import Shown
from k2.query.amendments import Amendments
from k2.query.answering import RowsAhead
from k2.query.merging import (
    FROM_LOG,
    answer_schema,
    matching,
    merged,
    newest_statement,
    rows_statement,
    strays_in,
    until_last_stored,
    within,
)
from k2.query.narrow_reader import NarrowReader
from k2.schemas.records import ORDER

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import polars as pl
    import pyarrow as pa

    from k2.query.amending import Amending
    from k2.query.answering import Draft
    from k2.query.intact_files import IntactFiles
    from k2.query.ports import Plans
    from k2.query.prefix import Prefix
    from k2.query.request import QueryRequest
    from k2.query.settings import QuerySettings
    from k2.storage.planning import PlannedFile


_NEWEST_FILES: Final = 4
"""Files that are read at first to find the newest record, and how many times as many at each further step."""


class RowReader:
    """Reads for one question after the other; threads may share it."""

    def __init__(self, *, planner: Plans, files: IntactFiles, settings: QuerySettings) -> None:
        self._planner = planner
        self._files_read = files
        self._settings = settings
        self._narrow = NarrowReader(settings)
        self._threads = ThreadPoolExecutor(settings.queries_at_once_max, "k2-read-ahead")
        self.amendments = Amendments(planner=planner, files=files, settings=settings)

    def close(self) -> None:
        """End the threads that read ahead."""
        self._threads.shutdown()

    def read_ahead(self, request: QueryRequest, draft: Draft) -> None:
        """Begin to read the files of the draft's range while the caller waits for the log, if the question is narrow.

        A pinned snapshot's files do not change: it is the same when they are read.
        """
        files = self.files(request, draft, draft.start_ns, draft.end_ns)
        if files and self._narrow.accepts(request, files):
            columns, damage = _columns(draft, None), list[CorruptionError]()
            rows = self._threads.submit(
                self._narrowly, request, draft, files, columns, damage.append,
                start_ns=draft.start_ns, end_ns=draft.end_ns, ordered=True,
            )  # fmt: skip
            draft.ahead = RowsAhead(files, columns, rows, damage)

    def newest_ns(self, request: QueryRequest, draft: Draft, logged: pl.DataFrame | None, prefix: Prefix) -> int | None:
        """Return the event time of the symbol's newest record, whatever its action; None if there is none.

        The files with the newest rows are read first, and none that can hold no newer record than the one found: so a
        symbol of which the log has records costs the same however many files there are.
        """
        newest = None if logged is None else _latest(logged)
        condition = matching(request, None, None) & prefix.condition
        statement = newest_statement(draft.record_type, condition)
        left = sorted(
            self.files(request, draft, None if newest is None else newest + 1, None), key=_last_ns, reverse=True
        )
        at_once = _NEWEST_FILES
        while left and (newest is None or _last_ns(left[0]) > newest):
            files, left, at_once = left[:at_once], left[at_once:], at_once * _NEWEST_FILES
            table = self._files_read.fetch(statement, condition.values, files, draft.shortfalls.add)
            found = None if table is None else table["newest"][0].as_py()
            newest = max((each for each in (newest, found) if each is not None), default=None)
        return newest

    def read(self, request: QueryRequest, draft: Draft, logged: pl.DataFrame | None, prefix: Prefix) -> set[int]:
        """Put the rows of the draft's range into it; return the ids of logs of which strays were among the rows read.

        Raises:
            QueryError: there are more rows than one answer may have, and no limit was given.
        """
        in_range = None if logged is None else within(logged, request, draft.start_ns, draft.end_ns)
        files = self.files(request, draft, draft.start_ns, draft.end_ns)
        draft.lap("plan")
        amending = None
        if request.amendments == "applied":
            amending = self.amendments.concerning(request, draft, files, logged, in_range, prefix)
            draft.lap("amendments")
        limit = min(request.limit or self._settings.rows_max, self._settings.rows_max)
        rows = self._shown(request, draft, files, in_range, prefix, amending, limit)
        if draft.shown.truncated and request.limit is None:
            raise _too_long(limit)
        draft.rows_from_log = pc.sum(draft.shown.rows[FROM_LOG]).as_py() or 0
        return strays_in(rows, draft.partitions)

    def _shown(
        self,
        request: QueryRequest,
        draft: Draft,
        files: Sequence[PlannedFile],
        in_range: pl.DataFrame | None,
        prefix: Prefix,
        amending: Amending | None,
        limit: int,
    ) -> pa.Table:
        """Find what is shown, reading more where amendments leave a page short; return the rows that were read."""
        columns = _columns(draft, amending)
        schema = answer_schema(draft.record_type, columns)
        ordered = in_range is None or request.limit is not None
        most = limit + 1 + (amending.rows_more if amending else 0)
        while True:
            stored, cut = self._stored(request, draft, files, columns, prefix, limit=most, ordered=ordered)
            draft.lap("files")
            if cut and request.limit is None:
                raise _too_long(limit)
            rows = merged(stored, in_range, schema)
            if amending is None:
                draft.shown = Shown(rows.slice(0, limit), truncated=rows.num_rows > limit)
                return rows
            draft.shown = amending.shown(until_last_stored(rows) if cut else rows, limit)
            if not cut or draft.shown.truncated:
                return rows
            most *= 2

    def _stored(
        self,
        request: QueryRequest,
        draft: Draft,
        files: Sequence[PlannedFile],
        names: Sequence[str],
        prefix: Prefix,
        *,
        limit: int,
        ordered: bool,
    ) -> tuple[pa.Table | None, bool]:
        """Return the rows of the files, and whether `limit` may have cut them."""
        if not files:
            return None, False
        if self._narrow.accepts(request, files):
            ahead = draft.ahead
            if ahead is not None and (ahead.files, ahead.columns) == (files, names):
                table = ahead.rows.result()
                for error in ahead.damage:
                    draft.shortfalls.add(error)
            else:
                table = self._narrowly(
                    request, draft, files, names, draft.shortfalls.add,
                    start_ns=draft.start_ns, end_ns=draft.end_ns, ordered=ordered,
                )  # fmt: skip
            if table is not None:
                return table, False
        condition = matching(request, draft.start_ns, draft.end_ns) & prefix.condition
        statement, values = rows_statement(draft.record_type, names, condition, limit=limit, ordered=ordered)
        table = self._files_read.fetch(statement, values, files, draft.shortfalls.add)
        return table, table is not None and table.num_rows == limit

    def _narrowly(
        self,
        request: QueryRequest,
        draft: Draft,
        files: Sequence[PlannedFile],
        names: Sequence[str],
        on_damage: Callable[[CorruptionError], None],
        **within: Any,  # Any: the range and the order, as NarrowReader takes them
    ) -> pa.Table | None:
        paths = self._files_read.paths(files, on_damage)
        return self._narrow.read(request, draft.record_type, paths, names, **within) if paths else None

    def files(
        self, request: QueryRequest, draft: Draft, start_ns: int | None, end_ns: int | None
    ) -> tuple[PlannedFile, ...]:
        """Return the files of the pinned snapshot that can hold rows of a range."""
        if draft.pinned is None:
            return ()
        if request.after is not None:
            start_ns = max(request.after.ts_event_ns, request.after.ts_event_ns if start_ns is None else start_ns)
        return self._planner.plan(
            draft.pinned, exchange=request.exchange, symbol=request.symbol, start_ns=start_ns, end_ns=end_ns
        )


def _columns(draft: Draft, amending: Amending | None) -> list[str]:
    """Return what is read of each row: what is asked for, its place in the order, and what amendments need."""
    return list(dict.fromkeys([*draft.columns, *ORDER, *(amending.columns if amending else ())]))


def _latest(rows: pl.DataFrame) -> int | None:
    newest = rows["ts_event_ns"].max()
    return newest if isinstance(newest, int) else None


def _last_ns(file: PlannedFile) -> float:
    """Return the time that no row of a file is newer than."""
    return math.inf if file.last_ns is None else file.last_ns


def _too_long(limit: int) -> QueryError:
    return QueryError(
        f"the answer has more than {limit} rows (K2_QUERY__ROWS_MAX): ask for a shorter range, or page through it with "
        "a limit"
    )
