"""The table of dead letters: one event a coordinate and kind, whoever appends it, however often."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThanOrEqual

from k2.common.errors import UnavailableError
from k2.schemas.records import DEAD_LETTERS
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import as_k2_error
from k2.storage.retries import attempts
from k2.storage.side_tables import intact_scan
from k2.storage.snapshots import append

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.data_files import WrittenFile
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables

IDENTITY: Final = ("topic_id", "log_partition", "log_offset", "event")
"""What an event is known by; a second one with the same values is the first one told again."""


class DeadLetterWriter:
    """Appends events to `market.dead_letters`. Its snapshots carry no seam: the table positions nobody."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._settings = settings
        self._clock = clock
        self._files = DataFileWriter(DEAD_LETTERS, clock, row_group_rows=settings.row_group_rows)

    def append(self, events: pa.Table | pl.DataFrame) -> int:
        """Append the events (columns of records.DEAD_LETTERS) whose identity the table does not hold yet.

        Returns how many were appended by this call; UnavailableError leaves it safe to call again.
        """
        wanted = events if isinstance(events, pl.DataFrame) else pl.DataFrame(pl.from_arrow(events))
        wanted = wanted.unique(IDENTITY, keep="first", maintain_order=True).sort(IDENTITY)
        doing = f"appending {wanted.height} events to market.{DEAD_LETTERS.name}"
        written: tuple[pl.DataFrame, tuple[WrittenFile, ...]] | None = None
        failure: Exception | None = None
        for attempt in attempts(self._settings, self._clock):
            try:
                table = self._tables.load(DEAD_LETTERS.name)
                absent = wanted.join(_held(table, wanted), on=IDENTITY, how="anti", maintain_order="left")
                if absent.is_empty():
                    return 0 if attempt == 1 or written is None else written[0].height
                if written is None or not written[0].equals(absent):
                    written = absent, self._files.write(table, absent)
                append(
                    table,
                    files=[file.data_file for file in written[1]],
                    summary={},
                    merge_count=self._settings.manifests_merge_count,
                )
            except (UnavailableError, CommitFailedException) as error:
                failure = error
            except Exception as error:  # the outcome is unknown: the next look at the table tells
                failure = as_k2_error(error, doing)
                if not isinstance(failure, UnavailableError):
                    raise failure or error from error
            else:
                return absent.height
        raise UnavailableError(f"{doing}: no success: {failure}; call again", dependency="catalog") from failure


def _held(table: Table, wanted: pl.DataFrame) -> pl.DataFrame:
    """Return the identities that the table holds in the offsets of `wanted`; files outside them are not read."""
    ranges = wanted.group_by("topic_id", "log_partition").agg(
        first=pl.col("log_offset").min(), last=pl.col("log_offset").max()
    )
    schema = wanted.select(IDENTITY).schema
    held = [pl.DataFrame(schema=schema)]
    for topic_id, partition, first, last in ranges.rows():
        within: BooleanExpression = And(
            EqualTo(term="topic_id", value=topic_id),
            EqualTo(term="log_partition", value=partition),
            GreaterThanOrEqual(term="log_offset", value=first),
            LessThanOrEqual(term="log_offset", value=last),
        )
        found = pl.DataFrame(pl.from_arrow(intact_scan(table, within, IDENTITY).to_arrow()))
        held.append(found.select(pl.col(name).cast(kind) for name, kind in schema.items()))
    return pl.concat(held)
