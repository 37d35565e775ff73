"""A reader beside ingestion that tells duplicates and gaps with Valkey's help, and asks the table where that cannot."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Final, Self

import fastavro
from pyiceberg.expressions import GreaterThan
from valkey import Valkey

from k2.ingestion.bloom_deduplicator import create_deduplicator
from k2.ingestion.duplicates.confirm_store import Sighting
from k2.ingestion.redis_sequence_tracker import RedisSequenceTracker
from k2.ingestion.sequences.tracker import SequenceCheck
from k2.kafka.consumer import LogReader
from k2.schemas.avro import avro_schema
from k2.schemas.records import TRADES
from k2.testing.faults.processes.arena import PARTITIONS
from k2.testing.faults.processes.feeder import content_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from k2.ingestion.bloom_deduplicator import ProductionDeduplicator
    from k2.ingestion.sequences.tracker import SequenceEvent
    from k2.testing.faults.processes.arena import Run

_ANSWER_SECONDS: Final = 0.3
_POLL_SECONDS: Final = 0.05
_POLL_MESSAGES: Final = 5_000
_IDS: Final = 1_000_000
_FRAME_BYTES: Final = 5
_COLUMNS: Final = (
    "exchange", "symbol", "ts_event_ns", "sequence", "trade_id", "side", "extra", "price", "quantity", "ts_log",
    "log_offset", "commit_sequence",
)  # fmt: skip
_SCHEMA: Final = fastavro.parse_schema(avro_schema(TRADES))

Read = tuple[int, int, dict[str, Any]]
"""Offset, log time in milliseconds, record."""


class ValkeyReader:
    """Follows the table: decides of each record that it holds whether it came before, and whether one is missing.

    An id is the identity with the content, so that duplicates are those of ingestion.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.client = Valkey.from_url(
            run.arena.platform.settings().valkey.url.get_secret_value(),
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=None,
        )
        self._log = LogReader(run.settings.kafka)
        self._log.assign({(run.topic, number): 0 for number in range(PARTITIONS)})
        self._read: dict[int, list[Read]] = {number: [] for number in range(PARTITIONS)}
        self._decided: dict[int, int] = {}
        self._begins_at = 0
        self._stored: dict[str, tuple[int, int]] = {}
        """Log time and offset of each id that the table is known to hold."""
        self._commit_sequence = -1
        self.seen = self._deduplicator(stored=())
        self._tracker = RedisSequenceTracker(self.client, clock=run.clock)
        self.dropped: set[tuple[int, int]] = set()
        """Partition and offset of each record taken for a duplicate."""
        self.numbered: set[tuple[int, int]] = set()
        """Those of the records read that have a number."""
        self.filtered = self.confirmed = 0
        """Ids that the filters knew to be new, and those that were looked up in Valkey, before the last beginning."""
        self.checks: list[SequenceCheck] = []
        self.events: list[SequenceEvent] = []

    def __enter__(self) -> Self:
        """Give the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close its connections."""
        self._log.close()
        self.client.connection_pool.disconnect()

    def begin_again(self) -> None:
        """Lose all memory of ids, as a new process does: what Valkey holds is read back."""
        self.filtered, self.confirmed = self._counted()
        self.seen = self._deduplicator()

    def step(self) -> None:
        """Read on, and decide what the table holds by now."""
        for batch in self._log.poll(_POLL_MESSAGES, _POLL_SECONDS):
            self._read[batch.partition] += [
                (offset, at_ms, _decoded(value or b""))
                for offset, at_ms, value in zip(batch.offsets, batch.ts_log_ms, batch.values, strict=True)
            ]
        for partition, seam in self._run.seams().items():
            due = [one for one in self._read[partition] if one[0] < seam]
            if due:
                self._decide(partition, due)
                self._read[partition] = self._read[partition][len(due) :]
                self._decided[partition] = due[-1][0] + 1

    def follow(self, ends: Mapping[int, int]) -> None:
        """Step until every record below these offsets is decided."""

        def decided() -> bool:
            self.step()
            return all(self._decided.get(partition, 0) >= end for partition, end in ends.items())

        self._run.wait("the reader to have decided what the table holds", decided)

    def _deduplicator(self, stored: tuple[()] | None = None) -> ProductionDeduplicator:
        return create_deduplicator(
            self.client,
            stored=stored,
            capacity=_IDS,
            namespace=f"k2:ids:{self._run.topic}",
            confirm=self._ask_table,
        )

    def _counted(self) -> tuple[int, int]:
        stats = self.seen.get_stats()
        return self.filtered + int(stats["bloom_negatives"]), self.confirmed + int(stats["redis_confirms"])

    def _decide(self, partition: int, due: list[Read]) -> None:
        ids = [_id(record) for _, _, record in due]
        offsets = [offset for offset, _, _ in due]
        self._begins_at = offsets[0]
        answers = self.seen.is_duplicate_batch(ids, offsets=offsets, log_time_ms=due[-1][1])
        self.dropped |= {(partition, offset) for offset, again in zip(offsets, answers, strict=True) if again}
        self.numbered |= {(partition, offset) for offset, _, record in due if record["sequence"] is not None}
        kept = [
            SequenceCheck(
                record["exchange"], record["symbol"], record["sequence"], at_ms * 1_000_000, partition=partition,
                offset=offset,
            )
            for (offset, at_ms, record), again in zip(due, answers, strict=True)
            if not again and record["sequence"] is not None
        ]  # fmt: skip
        self.checks += kept
        self.events += self._tracker.check_sequence_batch(kept)

    def _ask_table(self, ids: Sequence[str | int]) -> list[Sighting | None]:
        """Return where each id was stored; a row of the batch at hand itself is no winner yet."""
        self._read_table()
        winners = [self._stored.get(str(each)) for each in ids]
        return [Sighting(*winner) if winner is not None and winner[1] < self._begins_at else None for winner in winners]

    def _read_table(self) -> None:
        """Take up the rows of the commits since the last look."""
        table = self._run.tables.load("trades")
        new = GreaterThan(term="commit_sequence", value=self._commit_sequence)
        for row in table.scan(row_filter=new, selected_fields=_COLUMNS).to_arrow().to_pylist():
            self._stored[_id(row)] = (int(row["ts_log"].timestamp() * 1_000), row["log_offset"])
            self._commit_sequence = max(self._commit_sequence, row["commit_sequence"])


def _id(record: Mapping[str, Any]) -> str:
    known_by = record["trade_id"] if record["sequence"] is None else record["sequence"]
    return f"{record['symbol']}|{known_by}|{content_of(record)}"


def _decoded(value: bytes) -> dict[str, Any]:
    record = fastavro.schemaless_reader(io.BytesIO(value[_FRAME_BYTES:]), _SCHEMA, None)
    assert isinstance(record, dict)
    return record
