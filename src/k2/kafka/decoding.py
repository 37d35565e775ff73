"""Turns consumed messages into rows, in columns; each bad message becomes one BadRecord and harms no other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from k2.kafka.registry import SchemaSource, UnknownSchemaError

if TYPE_CHECKING:
    import polars as pl

    from k2.kafka.batches import LogBatch
    from k2.schemas.records import RecordType

__all__ = ["BadRecord", "Decoded", "Decoder", "EventBounds", "SchemaSource", "UnknownSchemaError"]

EARLIEST_NS: Final = 631_152_000_000_000_000
DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class EventBounds:
    """Events lie in [earliest_ns, the broker's append time + ahead_ns]: a function of the log, so replays agree."""

    earliest_ns: int = EARLIEST_NS
    ahead_ns: int = DAY_NS


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A message that cannot become a row; `reason` says what was expected and what was found."""

    partition: int
    offset: int
    ts_log_ms: int
    key: bytes | None
    value: bytes | None
    error_class: str
    reason: str


@dataclass(frozen=True)
class Decoded:
    """What became of one batch: len(rows) + len(bad) = messages.

    `rows` has all columns of `polars_schema(record_type)` but `commit_sequence` and `written_by`, ordered by offset;
    `bad` is ordered by offset.
    """

    rows: pl.DataFrame
    bad: tuple[BadRecord, ...]


class Decoder:
    """Decodes the messages of one record type."""

    def __init__(
        self,
        record_type: RecordType,
        schemas: SchemaSource,
        *,
        bounds: EventBounds | None = None,
        unknown_schemas_ratio_max: float = 0.05,
    ) -> None:
        self._record_type = record_type
        self._schemas = schemas
        self._bounds = bounds or EventBounds()
        self._unknown_schemas_ratio_max = unknown_schemas_ratio_max

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch of one topic partition.

        Raises:
            UnavailableError: a new schema id, and the registry is down: try the same batch again.
            ConfigurationError: too many unknown schema ids: the registry is the wrong one.
        """
        raise NotImplementedError
