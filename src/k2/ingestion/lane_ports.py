"""What a table's lane needs of others: a decoder, a writer, and the heads of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import polars as pl

    from k2.kafka.batches import LogBatch
    from k2.kafka.decoding import Decoded
    from k2.storage.data_files import WrittenFile
    from k2.storage.tables import TableHead
    from k2.storage.writer import Batch, Commit


class Decoder(Protocol):
    """Turns a batch of framed Avro messages into rows."""

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Return the rows, and the records that could not become rows."""
        ...


class Writer(Protocol):
    """Writes data files and commits them behind the fence."""

    def write_files(self, rows: pl.DataFrame) -> tuple[WrittenFile, ...]:
        """Write the rows, sorted and synced."""
        ...

    def commit(self, batch: Batch) -> Commit:
        """Append the batch where the fence allows it."""
        ...


class Heads(Protocol):
    """Where the head of a table is read."""

    def head(self, table_name: str) -> TableHead:
        """Return the newest snapshot's head."""
        ...
