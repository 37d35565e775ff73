"""What the query side asks of the log, the decoder and the tables, so that fakes can stand in for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from k2.kafka.batches import LogBatch
    from k2.kafka.decoding import Decoded
    from k2.kafka.ports import AssignedReader, LogIdentity, LogRange, TopicPartition
    from k2.storage.named_snapshots import KeptSnapshot
    from k2.storage.planning import PinnedSnapshot, PlannedFile
    from k2.storage.tables import TableHead

    OpenReader = Callable[[], AssignedReader]
    """Makes a read_committed reader with nothing assigned; raises UnavailableError."""


class Decodes(Protocol):
    """Turns messages into rows, as ingestion does."""

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch; UnavailableError if a new schema id cannot be looked up now."""
        ...

    def decode_all(self, batches: Sequence[LogBatch], *, log_id: int) -> list[Decoded]:
        """Decode batches of one topic, each by itself in the result; raises as `decode` does."""
        ...


class LogFacts(Protocol):
    """Tells which log each topic is, and what its partitions hold."""

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        ...

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return the offsets [start, last stable offset) of each partition."""
        ...


class RemembersEnds(LogFacts, Protocol):
    """Tells also how far behind the log an offset may be, by the looks at the log so far."""

    def seconds_behind(self, key: TopicPartition, end: int) -> float | None:
        """Return how long ago the log is known to have ended at `end` or below; None where nothing is known."""
        ...


class Heads(Protocol):
    """Tells what a table's newest snapshot says of the log."""

    def head(self, table_name: str) -> TableHead:
        """Return the head of the newest snapshot."""
        ...


class Plans(Protocol):
    """Pins snapshots and names the files that a question needs."""

    def pin(self, table_name: str, *, partial: bool = False, snapshot_id: int | None = None) -> PinnedSnapshot:
        """Pin the newest snapshot, or another; where `partial`, what of it is damaged is left out and named."""
        ...

    def snapshots(self, table_name: str) -> Sequence[KeptSnapshot]:
        """Return the snapshots that the table still has, the newest first."""
        ...

    def plan(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that can hold such rows."""
        ...

    def amended(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        dates: tuple[int, int] | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that can hold amendments of these trading dates, first and last in days since 1970."""
        ...
