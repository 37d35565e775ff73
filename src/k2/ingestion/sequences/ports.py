"""What the gap ledger needs of others: the rows of a table, the ends of the log, and the table of gaps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import polars as pl

    from k2.kafka.ports import LogRange, TopicPartition
    from k2.storage.seam import LogPartition
    from k2.storage.tables import TableHead


class PinnedRows(Protocol):
    """One snapshot of a table."""

    @property
    def head(self) -> TableHead:
        """The snapshot's head."""
        ...

    def rows(
        self, partition: LogPartition, start: int, end: int, *, columns: Sequence[str], since_us: int = 0
    ) -> Iterator[pl.DataFrame]:
        """Iterate over ingested rows, ordered by offset."""
        ...


class RowSource(Protocol):
    """Where a memory is rebuilt from."""

    def pinned(self, table_name: str) -> PinnedRows:
        """Return the newest snapshot; UnavailableError."""
        ...


class LogEnds(Protocol):
    """Where the log ends."""

    def ranges(self, topics: str | Iterable[str]) -> Mapping[TopicPartition, LogRange]:
        """Return what each partition holds; a topic that does not exist is left out."""
        ...


class GapTable(Protocol):
    """What keeps the events of gaps."""

    def append(self, events: pl.DataFrame) -> int:
        """Append the events that are absent; return how many."""
        ...
