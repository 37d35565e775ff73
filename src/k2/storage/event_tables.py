"""Event tables: one event an identity, whoever appends it, however often. Their snapshots carry no seam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThanOrEqual

from k2.common.errors import UnavailableError
from k2.schemas.records import DEAD_LETTERS, GAPS
from k2.storage.data_files import DataFileWriter
from k2.storage.failures import as_k2_error
from k2.storage.retries import attempts
from k2.storage.side_tables import intact_scan
from k2.storage.snapshots import append

if TYPE_CHECKING:
    import pyarrow as pa
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.schemas.records import RecordType
    from k2.storage.data_files import WrittenFile
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


@dataclass(frozen=True, slots=True)
class EventTable:
    """What an event is known by: a second one with the same values is the first one told again.

    Every identity has `topic_id` and `log_partition`; `offset` names the column by which files are pruned.
    """

    record_type: RecordType
    identity: tuple[str, ...]
    offset: str


DEAD_LETTER_EVENTS = EventTable(DEAD_LETTERS, ("topic_id", "log_partition", "log_offset", "event"), "log_offset")
GAP_EVENTS = EventTable(GAPS, ("topic_id", "log_partition", "event_offset", "event", "first_missing"), "event_offset")


class EventWriter:
    """Appends events to one event table."""

    def __init__(self, kind: EventTable, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._kind = kind
        self._name = kind.record_type.name
        self._tables = tables
        self._settings = settings
        self._clock = clock
        self._files = DataFileWriter(kind.record_type, clock, row_group_rows=settings.row_group_rows)

    def append(self, events: pa.Table | pl.DataFrame) -> int:
        """Append the events (all columns of the table) whose identity the table does not hold yet.

        Returns how many were appended by this call; UnavailableError leaves it safe to call again.
        """
        identity = self._kind.identity
        wanted = events if isinstance(events, pl.DataFrame) else pl.DataFrame(pl.from_arrow(events))
        wanted = wanted.unique(identity, keep="first", maintain_order=True).sort(identity)
        doing = f"appending {wanted.height} events to market.{self._name}"
        written: tuple[pl.DataFrame, tuple[WrittenFile, ...]] | None = None
        failure: Exception | None = None
        for attempt in attempts(self._settings, self._clock):
            try:
                table = self._tables.load(self._name)
                absent = wanted.join(self._held(table, wanted), on=identity, how="anti", maintain_order="left")
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

    def _held(self, table: Table, wanted: pl.DataFrame) -> pl.DataFrame:
        """Return the identities that the table holds in the offsets of `wanted`; files outside them are not read."""
        identity, offset = self._kind.identity, self._kind.offset
        ranges = wanted.group_by("topic_id", "log_partition").agg(first=pl.col(offset).min(), last=pl.col(offset).max())
        schema = wanted.select(identity).schema
        held = [pl.DataFrame(schema=schema)]
        for topic_id, partition, first, last in ranges.rows():
            within: BooleanExpression = And(
                EqualTo(term="topic_id", value=topic_id),
                EqualTo(term="log_partition", value=partition),
                GreaterThanOrEqual(term=offset, value=first),
                LessThanOrEqual(term=offset, value=last),
            )
            found = pl.DataFrame(pl.from_arrow(intact_scan(table, within, identity).to_arrow()))
            held.append(found.select(pl.col(name).cast(kind) for name, kind in schema.items()))
        return pl.concat(held)
