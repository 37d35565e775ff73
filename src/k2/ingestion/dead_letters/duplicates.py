"""Tells which dead letters would be second rows of what the table holds, once they can be read after all.

A record that was dead when its copies came was no winner, so a copy after it may have its row: the window of duplicates
is looked at both ways.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import polars as pl

from k2.schemas.duplicates import WINDOW, WINNER, decide
from k2.schemas.identity import SAME, decision_source, with_content
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.schemas.identity import IdentityRules
    from k2.schemas.records import RecordType
    from k2.storage.planning import PinnedSnapshot


class StoredRows(Protocol):
    """Where rows are read: one main table."""

    def pin(self) -> PinnedSnapshot:
        """Pin the newest snapshot."""
        ...

    def between(
        self,
        pinned: PinnedSnapshot,
        log: LogPartition,
        like: pl.DataFrame,
        columns: Sequence[str],
        *,
        same_times: bool = False,
    ) -> pl.DataFrame:
        """Return a partition's rows that agree with `like` in exchange, symbol and, so asked, event time."""
        ...


class ReplayDuplicates:
    """Finds the duplicates among decoded dead letters of one table, by the same identity and content as ingestion."""

    def __init__(self, record_type: RecordType, *, rules: IdentityRules, stored: StoredRows) -> None:
        self._record_type = record_type
        self._rules = rules
        self._stored = stored
        self._columns = decision_source(record_type)

    def repeated(self, rows: pl.DataFrame) -> frozenset[int]:
        """Return the offsets of the rows, all of one partition, that repeat a stored row or an earlier one of theirs.

        A row at the same coordinate is the record itself.
        """
        suspects = self._named(rows)
        if suspects.is_empty():
            return frozenset()
        at = LogPartition(*rows.select("log_id", "log_partition").row(0))
        like = rows.filter(pl.col("log_offset").is_in(suspects["log_offset"].implode()))
        stored = self._named(self._stored.between(self._stored.pin(), at, like, self._columns, same_times=True))
        both = suspects.join(stored, on=SAME, nulls_equal=True, suffix="_stored")
        near = (pl.col("ts_log") - pl.col("ts_log_stored")).abs() <= WINDOW
        second = both.filter(near & (pl.col("log_offset") != pl.col("log_offset_stored")))["log_offset"].unique()
        left = suspects.filter(~pl.col("log_offset").is_in(second.implode()))
        among_themselves = decide(left, left.clear()).duplicates
        return frozenset([*second, *among_themselves])

    def _named(self, rows: pl.DataFrame) -> pl.DataFrame:
        return with_content(rows, self._record_type, self._rules).select(WINNER)
