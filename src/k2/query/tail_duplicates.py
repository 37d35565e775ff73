"""Leaves out of an answer the rows of the log that the table will drop, by the same rule as ingestion."""

from __future__ import annotations

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
    from k2.query.answering import Draft
    from k2.query.intact_files import IntactFiles
    from k2.query.ports import Plans
    from k2.query.request import QueryRequest
    from k2.schemas.identity import IdentityRules

_PARTITION = ("log_id", "log_partition")


class TailDuplicates:
    """Finds the duplicates among the log's rows of one symbol, which begin at the pinned snapshot's seam."""

    def __init__(self, rules: IdentityRules, *, planner: Plans, files: IntactFiles) -> None:
        self._rules = rules
        self._planner = planner
        self._files = files

    def without(self, logged: pl.DataFrame, request: QueryRequest, draft: Draft) -> pl.DataFrame:
        """Return the rows less those that repeat one of the table or an earlier one of theirs.

        A winner says the same as its duplicates, so it has their symbol and event time: the scan is narrow, and rows
        that the question does not ask for are let pass. What of the table cannot be read is a shortfall of the answer.
        """
        asked = _asked(logged, draft)
        suspects = self._named(asked, draft)
        if suspects.is_empty():
            return logged
        stored = self._stored(asked, request, draft)
        stored = logged.clear() if stored is None else stored
        kept = self._named(stored, draft)
        kept = kept.filter(pl.col(KEY).is_in(suspects[KEY].implode()))
        repeated = suspects.filter(pl.col(KEY).is_duplicated() | pl.col(KEY).is_in(kept[KEY].implode()))
        if repeated.is_empty():
            return logged
        kept = _with_content(stored, kept, draft)
        dropped = []
        for (log_id, partition), part in _with_content(asked, repeated, draft).group_by(_PARTITION):
            found = decide(part, kept.filter(log_id=log_id, log_partition=partition)).duplicates
            dropped.append(
                pl.DataFrame({"log_offset": found}).with_columns(
                    log_id=pl.lit(log_id, pl.Int32), log_partition=pl.lit(partition, pl.Int32)
                )
            )
        return logged.join(pl.concat(dropped), on=[*_PARTITION, "log_offset"], how="anti")

    def _named(self, rows: pl.DataFrame, draft: Draft) -> pl.DataFrame:
        return with_identity(rows, draft.record_type, self._rules)

    def _stored(self, logged: pl.DataFrame, request: QueryRequest, draft: Draft) -> pl.DataFrame | None:
        record_type, pinned = draft.record_type, draft.pinned
        if pinned is None:
            return None
        times: tuple[int, ...] = logged.select(low=pl.col("ts_event_ns").min(), high=pl.col("ts_event_ns").max()).row(0)
        planned = self._planner.plan(
            pinned, exchange=request.exchange, symbol=request.symbol, start_ns=times[0], end_ns=times[1] + 1
        )
        names = dict.fromkeys(
            [*identity_source(record_type), *content_source(record_type), "ts_log", *_PARTITION, "log_offset"]
        )
        statement = (
            f"SELECT {', '.join(quoted_columns(list(names)))} FROM {files_source(record_type)} "  # noqa: S608  # names are ours
            "WHERE symbol = $symbol AND ts_event_ns >= $low AND ts_event_ns <= $high"
        )
        values = {"symbol": request.symbol, "low": times[0], "high": times[1]}
        found = self._files.fetch(statement, values, planned, draft.shortfalls.add)
        if found is None:
            return None
        types = polars_schema(record_type)
        return pl.DataFrame(pl.from_arrow(found)).select(pl.col(name).cast(types[name]) for name in names)


def _asked(logged: pl.DataFrame, draft: Draft) -> pl.DataFrame:
    """Return the rows that an answer can depend on: those in its range, and all that amend others."""
    return logged.filter((pl.col("action") != Action.NEW) | in_range(draft.start_ns, draft.end_ns))


def _with_content(rows: pl.DataFrame, named: pl.DataFrame, draft: Draft) -> pl.DataFrame:
    """Return of some rows what a decision needs; most questions need it of none."""
    told = rows[named["place"]]
    return named.with_columns(*told.select(_PARTITION), content_hash(told, draft.record_type)).select(
        *WINNER, *_PARTITION
    )
