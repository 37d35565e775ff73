"""Leaves out of an answer the rows of the log that the table will drop, by the same rule as ingestion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from k2.query.merging import in_range
from k2.query.scan import files_source
from k2.query.sql_text import quoted_columns
from k2.schemas.arrow import polars_schema
from k2.schemas.duplicates import WINNER, decide
from k2.schemas.identity import KEY, content_hash, content_source, identity_source, with_identity
from k2.schemas.records import Action

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from k2.common.errors import CorruptionError
    from k2.query.answering import Draft
    from k2.query.intact_files import IntactFiles
    from k2.query.ports import Plans
    from k2.query.request import QueryRequest
    from k2.schemas.identity import IdentityRules
    from k2.schemas.records import RecordType
    from k2.storage.planning import PinnedSnapshot

    OnDamage = Callable[[CorruptionError], None]

_PARTITION = ("log_id", "log_partition")
_COORDINATE = [*_PARTITION, "log_offset"]


class TailDuplicates:
    """Finds the duplicates among the log's rows, which begin at the pinned snapshot's seam or before it."""

    def __init__(self, rules: IdentityRules, *, planner: Plans, files: IntactFiles) -> None:
        self._rules = rules
        self._planner = planner
        self._files = files

    def named(self, rows: pl.DataFrame, record_type: RecordType) -> pl.DataFrame:
        """Return the identity of each row that has one, and its `place` among the rows."""
        return with_identity(rows, record_type, self._rules)

    def without(self, logged: pl.DataFrame, request: QueryRequest, draft: Draft) -> pl.DataFrame:
        """Return an answer's rows of the log less those that repeat one of the table or an earlier one of theirs.

        Rows that the question does not ask for are let pass. What of the table cannot be read is a shortfall.
        """
        repeated = self._repeated(
            _asked(logged, draft),
            _Scope(draft.record_type, (request.symbol,), request.exchange),
            draft.pinned,
            draft.shortfalls.add,
        )
        return logged if repeated is None else logged.join(repeated, on=_COORDINATE, how="anti")

    def among(
        self,
        logged: pl.DataFrame,
        record_type: RecordType,
        pinned: PinnedSnapshot,
        *,
        symbols: Sequence[str],
        on_damage: OnDamage,
    ) -> pl.DataFrame:
        """Return rows of some symbols less those that repeat one of the table or an earlier one of theirs."""
        repeated = self._repeated(logged, _Scope(record_type, tuple(symbols), None), pinned, on_damage)
        return logged if repeated is None else logged.join(repeated, on=_COORDINATE, how="anti")

    def _repeated(
        self, logged: pl.DataFrame, scope: _Scope, pinned: PinnedSnapshot | None, on_damage: OnDamage
    ) -> pl.DataFrame | None:
        """Return the coordinates of the rows that repeat another; None where there are none.

        A winner says the same as its duplicates, so it has their symbol and event time: the scan is narrow.
        """
        record_type = scope.record_type
        suspects = self.named(logged, record_type)
        if suspects.is_empty():
            return None
        stored = None if pinned is None else self._stored(logged, scope, pinned, on_damage)
        stored = logged.clear() if stored is None else stored
        kept = self.named(stored, record_type)
        kept = kept.filter(pl.col(KEY).is_in(suspects[KEY].implode()))
        repeated = suspects.filter(pl.col(KEY).is_duplicated() | pl.col(KEY).is_in(kept[KEY].implode()))
        if repeated.is_empty():
            return None
        kept = _with_content(stored, kept, record_type)
        dropped = []
        for (log_id, partition), part in _with_content(logged, repeated, record_type).group_by(_PARTITION):
            found = decide(part, kept.filter(log_id=log_id, log_partition=partition)).duplicates
            dropped.append(
                pl.DataFrame({"log_offset": found}).with_columns(
                    log_id=pl.lit(log_id, pl.Int32), log_partition=pl.lit(partition, pl.Int32)
                )
            )
        return pl.concat(dropped)

    def _stored(
        self, logged: pl.DataFrame, scope: _Scope, pinned: PinnedSnapshot, on_damage: OnDamage
    ) -> pl.DataFrame | None:
        record_type, only = scope.record_type, scope.symbols[0] if len(scope.symbols) == 1 else None
        times: tuple[int, ...] = logged.select(low=pl.col("ts_event_ns").min(), high=pl.col("ts_event_ns").max()).row(0)
        planned = self._planner.plan(
            pinned, exchange=scope.exchange, symbol=only, start_ns=times[0], end_ns=times[1] + 1
        )
        names = dict.fromkeys(
            [*identity_source(record_type), *content_source(record_type), "ts_log", *_PARTITION, "log_offset"]
        )
        is_asked = "symbol IN (SELECT unnest($symbols))" if only is None else "symbol = $symbol"
        statement = (
            f"SELECT {', '.join(quoted_columns(list(names)))} FROM {files_source(record_type)} "  # noqa: S608  # names are ours
            f"WHERE {is_asked} AND ts_event_ns >= $low AND ts_event_ns <= $high"
        )
        asked = {"symbols": list(scope.symbols)} if only is None else {"symbol": only}
        found = self._files.fetch(statement, {**asked, "low": times[0], "high": times[1]}, planned, on_damage)
        if found is None:
            return None
        types = polars_schema(record_type)
        return pl.DataFrame(pl.from_arrow(found)).select(pl.col(name).cast(types[name]) for name in names)


def _asked(logged: pl.DataFrame, draft: Draft) -> pl.DataFrame:
    """Return the rows that an answer can depend on: those in its range, and all that amend others."""
    return logged.filter((pl.col("action") != Action.NEW) | in_range(draft.start_ns, draft.end_ns))


@dataclass(frozen=True, slots=True)
class _Scope:
    """Of what the stored rows are read."""

    record_type: RecordType
    symbols: tuple[str, ...]
    exchange: str | None


def _with_content(rows: pl.DataFrame, named: pl.DataFrame, record_type: RecordType) -> pl.DataFrame:
    """Return of some rows what a decision needs; most questions need it of none."""
    told = rows[named["place"]]
    return named.with_columns(*told.select(_PARTITION), content_hash(told, record_type)).select(*WINNER, *_PARTITION)
