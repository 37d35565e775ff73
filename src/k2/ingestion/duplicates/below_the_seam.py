"""Decides about deferred records, which lie below the seam: what memory holds of later ones says nothing of them.

All earlier records of their symbols are in the table by then, and none that came later: so the table is asked about
each of them, and the decision is the one that would have been made in the order of the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from k2.ingestion.duplicates.deduplicator import PartDecision
from k2.schemas.duplicates import WINNER, decide
from k2.schemas.identity import KEY, decision_source, with_content

if TYPE_CHECKING:
    from k2.ingestion.duplicates.deduplicator import StoredRows
    from k2.schemas.identity import IdentityRules
    from k2.schemas.records import RecordType
    from k2.storage.seam import LogPartition


class RangeDuplicates:
    """Decides ranges of one table, one after the other."""

    def __init__(self, record_type: RecordType, *, rules: IdentityRules, stored: StoredRows) -> None:
        self._record_type = record_type
        self._rules = rules
        self._stored = stored
        self._columns = decision_source(record_type)

    def decide(self, at: LogPartition, rows: pl.DataFrame) -> PartDecision:
        """Decide about the rows of one partition, in the order of their offsets.

        A winner says the same, so it has the same event time: the table is read between the first and the last one.

        Raises:
            UnavailableError: the table cannot be read now.
        """
        suspects = self._named(rows)
        if suspects.is_empty():
            return PartDecision([rows])
        like = rows.filter(pl.col("log_offset").is_in(suspects["log_offset"].implode()))
        stored = self._named(self._stored.between(self._stored.pin(), at, like, self._columns))
        decided = decide(suspects.select(WINNER), stored.filter(pl.col(KEY).is_in(suspects[KEY].implode())))
        kept = rows.filter(~pl.col("log_offset").is_in(decided.duplicates.implode()))
        return PartDecision([kept], duplicates=len(decided.duplicates), conflicts=tuple(decided.conflicts))

    def _named(self, rows: pl.DataFrame) -> pl.DataFrame:
        return with_content(rows, self._record_type, self._rules).select(*WINNER, KEY)


class KeepWholeRange:
    """Drops nothing: for tables that are not to be checked."""

    def decide(self, at: LogPartition, rows: pl.DataFrame) -> PartDecision:
        """Keep everything."""
        del at
        return PartDecision([rows])
