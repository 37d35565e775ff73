"""Turns consumed messages into rows, in columns; each bad message becomes one BadRecord and harms no other."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import polars as pl

from k2.common.errors import ConfigurationError
from k2.kafka.avro_plans import plan_for
from k2.kafka.batches import joined
from k2.kafka.message_readers import FRAME_BYTES, MessageReader, reader_for
from k2.kafka.record_rules import KEY, TS_LOG_MS, EventBounds, Rules, find_broken, rules_for
from k2.kafka.registry import SchemaSource, UnknownSchemaError
from k2.kafka.topics import exchange_of
from k2.schemas.arrow import message_polars_schema, polars_schema
from k2.schemas.records import Origin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.kafka.batches import LogBatch
    from k2.schemas.records import RecordType

__all__ = ["BadRecord", "Decoded", "Decoder", "EventBounds", "SchemaSource", "UnknownSchemaError"]

T = TypeVar("T")

_RATIO_MESSAGES_MIN: Final = 100
"""Below this many messages a share says nothing of the registry."""
_READERS_MAX: Final = 1000
_VALUE_SHOWN: Final = 16


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


@dataclass(frozen=True, slots=True)
class _Defect:
    error_class: str
    reason: str


class Decoder:
    """Decodes the messages of one record type. Used by one thread at a time."""

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
        self._ratio_max = unknown_schemas_ratio_max
        self._readers: OrderedDict[int, MessageReader] = OrderedDict()
        self._rules: dict[str, Rules] = {}
        stored = polars_schema(record_type)
        self._columns = {f.name: stored[f.name] for f in record_type.fields if f.origin is not Origin.COMMIT}
        self._finished = {name: _finished(name, dtype) for name, dtype in self._columns.items()}
        self._message_columns = message_polars_schema(record_type)

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        """Decode a batch of one topic partition.

        Raises:
            UnavailableError: a new schema id, and the registry is down: try the same batch again.
            ConfigurationError: too many unknown schema ids: the registry is the wrong one.
        """
        if not len(batch):
            return Decoded(pl.DataFrame(schema=self._columns), ())
        defects: dict[int, _Defect] = {}
        rows = self._read_as_one(batch.values)
        if rows is None:
            rows = self._read_by_schema(batch.values, defects)
        good = [at for at in range(len(batch)) if at not in defects] if defects else None
        rows = self._keep_rules(rows, batch, good, defects)
        bad = tuple(_bad_record(batch, at, defects[at]) for at in sorted(defects))
        return Decoded(self._finish(rows, log_id, batch.partition), bad)

    def decode_all(self, batches: Sequence[LogBatch], *, log_id: int) -> list[Decoded]:
        """Decode batches of one topic, whatever their partitions; small ones cost together about what one does.

        Raises:
            UnavailableError, ConfigurationError: as `decode` does.
        """
        whole = joined(batches)
        rows = self._read_as_one(whole.values) if len(batches) > 1 and len(whole) else None
        defects: dict[int, _Defect] = {}
        if rows is not None:
            rows = self._keep_rules(rows, whole, None, defects)
        if rows is None or defects:
            return [self.decode(batch, log_id=log_id) for batch in batches]
        return self._parted(self._finish(rows, log_id, whole.partition), batches)

    def _parted(self, rows: pl.DataFrame, batches: Sequence[LogBatch]) -> list[Decoded]:
        """Cut rows that were read together into those of each batch, and give each its partition."""
        parts, start = [], 0
        for batch in batches:
            partition = pl.lit(batch.partition, dtype=self._columns["log_partition"]).alias("log_partition")
            parts.append(Decoded(rows.slice(start, len(batch)).with_columns(partition), ()))
            start += len(batch)
        return parts

    def _read_as_one(self, values: list[bytes | None]) -> pl.DataFrame | None:
        """Read a batch that is sound and of one schema throughout, as nearly all are; None if it is not."""
        first = values[0]
        if first is None or len(first) < FRAME_BYTES or first[0] != 0:
            return None
        reader = self._known_reader(int.from_bytes(first[1:FRAME_BYTES], "big"))
        if reader is None or not reader.in_blocks:
            return None
        try:
            return reader.read_block(values)  # type: ignore[arg-type]  # a None makes it raise the TypeError
        except TypeError:
            return None

    def _read_by_schema(self, values: list[bytes | None], defects: dict[int, _Defect]) -> pl.DataFrame:
        """Read a batch schema by schema, in the order of the log; what cannot be read goes to `defects`."""
        parts = []
        groups = _group_by_schema(values, defects)
        self._refuse_strangers(groups, len(values), defects)
        for schema_id, positions in groups.items():
            if positions[0] in defects:  # of an unknown schema
                continue
            reader = self._reader(schema_id)
            messages: list[bytes] = [values[at] for at in positions]  # type: ignore[misc]  # a group holds no None
            frame, refused = reader.read(messages)
            for index, (error_class, reason) in refused.items():
                defects[positions[index]] = _Defect(error_class, reason)
            kept = [at for index, at in enumerate(positions) if index not in refused]
            if frame is None:
                continue
            parts.append(frame.with_columns(pl.Series("k2.at", kept, dtype=pl.Int64)))
        if not parts:
            return pl.DataFrame(schema=self._message_columns)
        whole = pl.concat(parts, how="diagonal") if len(parts) > 1 else parts[0]
        return whole.sort("k2.at").drop("k2.at")

    def _refuse_strangers(self, groups: dict[int, list[int]], messages: int, defects: dict[int, _Defect]) -> None:
        """Meet each schema; the messages of unknown ones are defects, and too many of them stop the reading."""
        strangers = 0
        for schema_id, positions in sorted(groups.items(), key=lambda group: -len(group[1])):
            try:
                strange = self._reader(schema_id).refuses_all
            except UnknownSchemaError as error:
                strange = True
                defects.update(dict.fromkeys(positions, _Defect("UnknownSchema", str(error))))
            strangers += len(positions) if strange else 0
            if messages >= _RATIO_MESSAGES_MIN and strangers > self._ratio_max * messages:
                raise ConfigurationError(
                    f"expected the registry to know the schemas of the log, found {strangers} of {messages} messages "
                    f"whose ids it does not know or has given to other records, {schema_id} among them: "
                    "K2_KAFKA__REGISTRY_URL names another registry, or its data are lost. If the messages themselves "
                    f"are wrong, raise K2_INGESTION__UNKNOWN_SCHEMAS_RATIO_MAX (now {self._ratio_max}) for a while, "
                    "and they become dead letters"
                )

    def _known_reader(self, schema_id: int) -> MessageReader | None:
        try:
            return self._reader(schema_id)
        except UnknownSchemaError:
            return None

    def _reader(self, schema_id: int) -> MessageReader:
        """Return the reader of a writer schema, made when it is first met."""
        reader = self._readers.get(schema_id)
        if reader is None:
            plan = plan_for(self._schemas.schema_text(schema_id), self._record_type)
            reader = reader_for(plan, schema_id, self._record_type)
            self._readers[schema_id] = reader
            while len(self._readers) > _READERS_MAX:
                self._readers.popitem(last=False)
        return reader

    def _keep_rules(
        self, rows: pl.DataFrame, batch: LogBatch, good: list[int] | None, defects: dict[int, _Defect]
    ) -> pl.DataFrame:
        """Add the log's columns and leave out the rows that break a rule."""
        rows = rows.with_columns(
            pl.Series("log_offset", _at(batch.offsets, good), dtype=pl.Int64),
            pl.Series(TS_LOG_MS, _at(batch.ts_log_ms, good), dtype=pl.Int64),
            pl.Series(KEY, _at(batch.keys, good), dtype=pl.Binary),
            *(self._default(name) for name in self._message_columns if name not in rows.columns),
        )
        broken = find_broken(rows, self._rules_of(batch.topic))
        for index, rule in broken:
            position = index if good is None else good[index]
            defects[position] = _Defect(rule.error_class, rule.explain(rows.row(index, named=True)))
        if not broken:
            return rows
        keep = (
            pl.Series([True])
            .new_from_index(0, rows.height)
            .scatter([index for index, _ in broken], [False] * len(broken))
        )
        return rows.filter(keep)

    def _rules_of(self, topic: str) -> Rules:
        rules = self._rules.get(topic)
        if rules is None:
            rules = self._rules[topic] = rules_for(self._record_type, exchange_of(topic), self._bounds)
        return rules

    def _default(self, name: str) -> pl.Expr:
        """Return the default of a field that the writer's schema does not have: null, or an empty list."""
        dtype = self._message_columns[name]
        value = pl.lit(None) if not isinstance(dtype, pl.List) else pl.lit([])
        return value.cast(dtype).alias(name)

    def _finish(self, rows: pl.DataFrame, log_id: int, partition: int) -> pl.DataFrame:
        coordinate = {"log_id": log_id, "log_partition": partition}
        return rows.select(
            *(pl.lit(coordinate[name], dtype=pl.Int32).alias(name) if name in coordinate else column
              for name, column in self._finished.items())
        )  # fmt: skip


def _finished(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return a column of the table, out of what was read: integers and dates come with 64 bits."""
    if name == "ts_event":
        return (pl.col("ts_event_ns") // 1000).cast(dtype).alias(name)
    if name == "ts_log":
        return (pl.col(TS_LOG_MS) * 1000).cast(dtype).alias(name)
    column = pl.col(name)
    return column.cast(pl.Int32).cast(dtype) if dtype == pl.Date else column.cast(dtype)


def _at(values: list[T], positions: list[int] | None) -> list[T]:
    return values if positions is None else [values[at] for at in positions]


def _group_by_schema(values: list[bytes | None], defects: dict[int, _Defect]) -> dict[int, list[int]]:
    """Return the positions of the framed messages by schema id."""
    groups: dict[int, list[int]] = {}
    for at, value in enumerate(values):
        if value is None:
            defects[at] = _Defect("NullValue", "expected an Avro record, found no value (a tombstone)")
        elif len(value) < FRAME_BYTES or value[0] != 0:
            defects[at] = _Defect(
                "NotFramed",
                f"expected a message that begins with the byte 0 and a schema id of 4 bytes, found {len(value)} bytes: "
                f"{value[:_VALUE_SHOWN]!r}",
            )
        else:
            groups.setdefault(int.from_bytes(value[1:FRAME_BYTES], "big"), []).append(at)
    return groups


def _bad_record(batch: LogBatch, at: int, defect: _Defect) -> BadRecord:
    return BadRecord(
        partition=batch.partition,
        offset=batch.offsets[at],
        ts_log_ms=batch.ts_log_ms[at],
        key=batch.keys[at],
        value=batch.values[at],
        error_class=defect.error_class,
        reason=defect.reason,
    )
