"""Which records an answer may know of: those below a token's ends, those that the log had before a time, or all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.query.scan import Condition
from k2.schemas.records import WrittenBy

if TYPE_CHECKING:
    from k2.query.certificate import AsOf

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Prefix:
    """What a question limits its knowledge to. A row of the log has a coordinate and a log time; both may be cut."""

    token: AsOf | None = None
    known_at_ns: int | None = None

    @cached_property
    def condition(self) -> Condition:
        """Which stored rows are known."""
        condition = Condition() if self.token is None else stored_at(self.token)
        if self._known_at is not None:
            condition &= Condition("ts_log < $known_at", {"known_at": self._known_at})
        return condition

    def rows(self, stored: pl.DataFrame) -> pl.DataFrame:
        """Return those of stored rows that are known: as `condition` says it in SQL."""
        token = self.token
        if token is not None:
            later = pl.col("commit_sequence") > token.commit_sequence
            held = [
                (pl.col("log_id") == log_id)
                & (pl.col("log_partition") == partition)
                & (pl.col("log_offset") < end)
                & ~((pl.col("log_offset") < seam) & later & ~_put_off(token, log_id, partition))
                for log_id, partition, seam, end in token.partitions
            ]
            replayed = (pl.col("written_by") == WrittenBy.REPLAY) & later
            stored = stored.filter(pl.any_horizontal(pl.lit(value=False), *held) & ~replayed)
        return self.logged(stored)

    def logged(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return those of the log's rows that were appended in time; a token's ends have been cut already."""
        return rows if self._known_at is None else rows.filter(pl.col("ts_log") < self._known_at)

    @cached_property
    def _known_at(self) -> datetime | None:
        """The time in whole microseconds, as log times are stored, rounded up."""
        if self.known_at_ns is None:
            return None
        return _EPOCH + timedelta(microseconds=-(-self.known_at_ns // 1_000))


def _put_off(token: AsOf, log_id: int, partition: int) -> pl.Expr:
    """Return whether a row's offset lies in a range that was deferred when the token was made."""
    ranges = [
        pl.col("log_offset").is_between(start, end, closed="left")
        for of_log, of_partition, start, end in token.deferred
        if (of_log, of_partition) == (log_id, partition)
    ]
    return pl.any_horizontal(pl.lit(value=False), *ranges)


def stored_at(token: AsOf) -> Condition:
    """Return which of the table's rows belong to the prefix that a token names.

    Rows below the token's seam that a later commit stored, and rows replayed since, were not in it; but what was
    deferred at that time was, whenever a backfill stores it.
    """
    clauses, values = [], {"token_commit": token.commit_sequence}
    for number, (log_id, partition, seam, end) in enumerate(token.partitions):
        values |= {f"tl{number}": log_id, f"tp{number}": partition, f"ts{number}": seam, f"te{number}": end}
        put_off = []
        for place, (of_log, of_partition, start, until) in enumerate(token.deferred):
            if (of_log, of_partition) == (log_id, partition):
                values |= {f"ds{place}": start, f"de{place}": until}
                put_off.append(f"(log_offset >= $ds{place} AND log_offset < $de{place})")
        clauses.append(
            f"(log_id = $tl{number} AND log_partition = $tp{number} AND log_offset < $te{number} "
            f"AND NOT (log_offset < $ts{number} AND commit_sequence > $token_commit "
            f"AND NOT ({' OR '.join(put_off) or 'false'})))"
        )
    replayed = f"NOT (written_by = '{WrittenBy.REPLAY}' AND commit_sequence > $token_commit)"
    return Condition(f"({' OR '.join(clauses) or 'false'}) AND {replayed}", values)
