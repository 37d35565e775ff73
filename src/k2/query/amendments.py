"""Finds the amendments that may concern an answer: those of its symbol and trading dates, stored or in the log."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import date
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import QueryError
from k2.query.amending import Amending
from k2.query.scan import Condition, files_source
from k2.query.sql_text import quoted_columns
from k2.schemas.amendments import NAMES, settle
from k2.schemas.arrow import polars_schema
from k2.schemas.records import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import pyarrow as pa

    from k2.common.errors import CorruptionError
    from k2.query.answering import Draft
    from k2.query.intact_files import IntactFiles
    from k2.query.ports import Plans
    from k2.query.prefix import Prefix
    from k2.query.request import QueryRequest
    from k2.query.settings import QuerySettings
    from k2.schemas.amendments import Name
    from k2.schemas.records import RecordType
    from k2.storage.planning import PlannedFile

    OnDamage = Callable[[CorruptionError], None]

_FILES_AT_ONCE: Final = 200
_FILENAME: Final = "filename"
_EPOCH: Final = date(1970, 1, 1)
_NO_DATES: Final = (1, 0)
_SMALL_ROWS_MAX: Final = 250_000
"""About as many rows as one commit brings; all amendments among them are found in some 50 ms."""
_TOO_MANY: Final = ""
"""Stands for the symbol of a small file that has more amendments than are kept: no symbol is empty."""

_Key = tuple[str, str | None]
"""A file's path, and the symbol of which its amendments were read; None for all."""
BySymbol = dict[str, pl.DataFrame]


class Amendments:
    """Finds them for one question after the other; threads may share it."""

    def __init__(self, *, planner: Plans, files: IntactFiles, settings: QuerySettings) -> None:
        self._planner = planner
        self._files = files
        self._kept = KeptAmendments(files, settings)

    def concerning(
        self,
        request: QueryRequest,
        draft: Draft,
        planned: Sequence[PlannedFile],
        logged: pl.DataFrame | None,
        in_range: pl.DataFrame | None,
        prefix: Prefix,
    ) -> Amending | None:
        """Return the amendments that may concern rows of `planned` and `in_range`; None if there are none, as mostly.

        `logged` are the symbol's rows from the log, of all times: an amendment's own time may lie outside of the range.
        """
        dates = _dates(planned, in_range)
        if dates == _NO_DATES:
            return None
        found = []
        if draft.pinned is not None:
            files = self._planner.amended(draft.pinned, exchange=request.exchange, symbol=request.symbol, dates=dates)
            if files:
                rows = self._kept.of(draft.record_type, request.symbol, files, draft.shortfalls.add)
                found.append(prefix.rows(rows))
        stored = sum(rows.height for rows in found)
        if logged is not None:
            found.append(logged.filter(pl.col("action") != Action.NEW))
        amendments = pl.concat(found, how="diagonal") if found else None
        if amendments is None or amendments.is_empty():
            return None
        return Amending(
            draft.record_type,
            settle(amendments),
            look_up=lambda names: self._originals(names, request, draft, logged, prefix),
            stored=stored,
        )

    def _originals(
        self,
        names: Collection[Name],
        request: QueryRequest,
        draft: Draft,
        logged: pl.DataFrame | None,
        prefix: Prefix,
    ) -> set[Name]:
        """Return those of the names of which the log's rows, or else the table, hold an original in the prefix."""
        ids = list({trade_id for _, _, trade_id in names})
        found: set[Name] = set()
        if logged is not None:
            originals = (pl.col("action") == Action.NEW) & pl.col("trade_id").is_in(ids)
            found.update(logged.filter(originals).select(NAMES).rows())
        left = [name for name in names if name not in found]
        if not left or draft.pinned is None:
            return found
        days = [(day - _EPOCH).days for _, day, _ in left]
        planned = self._planner.plan(draft.pinned, exchange=request.exchange, symbol=request.symbol)
        files = [file for file in planned if file.is_of_dates((min(days), max(days)))]
        condition = prefix.condition
        statement = (
            f"SELECT DISTINCT {', '.join(NAMES)} FROM {files_source(draft.record_type)} "  # noqa: S608  # names are ours
            f"WHERE symbol = $symbol AND action = '{Action.NEW}' AND trade_id IN (SELECT unnest($ids)) "
            f"AND {condition.sql}"
        )
        values = {**condition.values, "symbol": request.symbol, "ids": ids}
        table = self._files.fetch(statement, values, files, draft.shortfalls.add)
        return found if table is None else found.union(pl.DataFrame(pl.from_arrow(table)).rows())


class KeptAmendments:
    """Reads the amendments of each data file once and keeps them, within a limit: files never change.

    Of small files, such as each commit adds, those of all symbols are read; of others those of the symbol asked about,
    which costs about as much as the question itself.
    """

    def __init__(self, files: IntactFiles, settings: QuerySettings) -> None:
        self._intact = files
        self._settings = settings
        self._kept: OrderedDict[_Key, BySymbol] = OrderedDict()
        self._rows = 0
        self._lock = threading.Lock()

    def of(
        self, record_type: RecordType, symbol: str, files: Sequence[PlannedFile], on_damage: OnDamage
    ) -> pl.DataFrame:
        """Return a symbol's amendments in the files, all their columns.

        Raises:
            QueryError: there are more than one answer may hold.
        """
        frames: list[pl.DataFrame] = []
        with self._lock:  # one reads, the others wait for what it finds
            for first in range(0, len(files), _FILES_AT_ONCE):
                found: dict[_Key, BySymbol] = {}
                whole: list[PlannedFile] = []
                narrow: list[PlannedFile] = []
                for file in files[first : first + _FILES_AT_ONCE]:
                    key = (file.path, None) if (file.path, None) in self._kept else (file.path, symbol)
                    if key in self._kept:
                        found[key] = self._kept[key]
                    elif file.rows > _SMALL_ROWS_MAX or (file.path, _TOO_MANY) in self._kept:
                        narrow.append(file)
                    else:
                        whole.append(file)
                narrow += self._read_whole(record_type, whole, on_damage, found)
                if narrow:
                    condition = Condition("symbol = $symbol", {"symbol": symbol})
                    rows = self._fetch(record_type, narrow, on_damage, condition, self._settings.rows_max)
                    self._take(rows, narrow, symbol, found)
                frames += [by_symbol[symbol] for by_symbol in found.values() if symbol in by_symbol]
                self._keep(found)
        rows = pl.concat(frames) if frames else pl.DataFrame(schema=polars_schema(record_type))
        if rows.height > self._settings.rows_max:
            raise self._too_many(symbol)
        return rows

    def _read_whole(
        self,
        record_type: RecordType,
        files: Sequence[PlannedFile],
        on_damage: OnDamage,
        found: dict[_Key, BySymbol],
    ) -> list[PlannedFile]:
        """Read all amendments of some files, by halves where they are too many; return the files of which one is."""
        if not files:
            return []
        rows = self._fetch(record_type, files, on_damage, Condition(), self._settings.amendments_kept_max)
        if rows.height <= self._settings.amendments_kept_max:
            self._take(rows, files, None, found)
            return []
        if len(files) == 1:
            found[files[0].path, _TOO_MANY] = {}
            return list(files)
        halves = (files[: len(files) // 2], files[len(files) // 2 :])
        return [file for half in halves for file in self._read_whole(record_type, half, on_damage, found)]

    def _take(
        self, rows: pl.DataFrame, files: Sequence[PlannedFile], symbol: str | None, found: dict[_Key, BySymbol]
    ) -> None:
        """Put the rows read of some files into `found`; a damaged file is told of at each question, so not kept."""
        damaged = self._intact.damaged
        found.update({(file.path, symbol): {} for file in files if file.path not in damaged})
        for (path, name), part in rows.partition_by(_FILENAME, "symbol", as_dict=True, include_key=True).items():
            by_symbol = found.get((str(path), symbol))
            if by_symbol is not None:
                by_symbol[str(name)] = part.drop(_FILENAME)

    def _fetch(
        self,
        record_type: RecordType,
        files: Sequence[PlannedFile],
        on_damage: OnDamage,
        condition: Condition,
        most: int,
    ) -> pl.DataFrame:
        """Return amendments of the files that satisfy a condition, at most one more than `most`."""
        types = polars_schema(record_type)
        names = ", ".join(quoted_columns([_FILENAME, *types]))
        source = files_source(record_type).removesuffix(")") + ", filename = true)"
        statement = f"SELECT {names} FROM {source} WHERE action <> '{Action.NEW}' AND {condition.sql} LIMIT $limit"  # noqa: S608  # names are ours
        values = {**condition.values, "limit": most + 1}
        table: pa.Table | None = self._intact.fetch(statement, values, files, on_damage)
        if table is None:
            return pl.DataFrame(schema={_FILENAME: pl.String(), **types})
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame.select(_FILENAME, *(pl.col(name).cast(kind) for name, kind in types.items()))

    def _keep(self, found: dict[_Key, BySymbol]) -> None:
        for key, by_symbol in found.items():
            if key not in self._kept:
                self._kept[key] = by_symbol
                self._rows += _rows(by_symbol)
        while self._rows > self._settings.amendments_kept_max and len(self._kept) > 1:
            self._rows -= _rows(self._kept.popitem(last=False)[1])

    def _too_many(self, symbol: str) -> QueryError:
        return QueryError(
            f"{symbol} has more than {self._settings.rows_max} amendments on the dates asked about "
            "(K2_QUERY__ROWS_MAX): ask for a shorter range, or with amendments=raw"
        )


def _rows(by_symbol: BySymbol) -> int:
    """Return what an entry counts for: its amendments, and one for having been read."""
    return 1 + sum(part.height for part in by_symbol.values())


def _dates(planned: Sequence[PlannedFile], in_range: pl.DataFrame | None) -> tuple[int, int] | None:
    """Return the first and last trading date that a row can have, in days since 1970; None if that cannot be told."""
    spans = []
    for file in planned:
        if file.dates is None:
            return None
        spans.append(file.dates)
    if in_range is not None and in_range.height:
        days = in_range["trading_date"].cast(pl.Int32)
        spans.append((int(days.min()), int(days.max())))  # type: ignore[arg-type]  # polars types a minimum loosely
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else _NO_DATES
