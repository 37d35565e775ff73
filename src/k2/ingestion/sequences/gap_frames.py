"""What happened to gaps as rows of the table of gaps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.ingestion.sequences.rules import NO_DAY
from k2.kafka.topics import exchange_of
from k2.schemas.arrow import polars_schema
from k2.schemas.records import GAPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from k2.ingestion.sequences.batches import StreamChange
    from k2.storage.seam import LogPartition

_TYPES: Final = polars_schema(GAPS)
_BUILT: Final[dict[pl.DataType, pl.DataType]] = {pl.Date(): pl.Int32(), pl.Datetime("us", "UTC"): pl.Int64()}


@dataclass(frozen=True, slots=True)
class GapPlace:
    """The partition whose streams the gaps are in; `scope` is the column that tells them apart, symbol or channel."""

    table: str
    scope: str
    topic: str
    topic_id: str
    log: LogPartition


def gap_frame(
    place: GapPlace, changes: Iterable[StreamChange], *, recorded_us: int, decided_offset: int
) -> pl.DataFrame:
    """Return an event a change, all columns of the table."""
    rows = [
        {
            "event": change.event.value,
            "ts_recorded": recorded_us,
            "data_type": place.table,
            "exchange": exchange_of(place.topic),
            place.scope: stream,
            "trading_date": _day(change.hole.from_day),
            "trading_date_to": _day(change.hole.to_day),
            "topic": place.topic,
            "topic_id": place.topic_id,
            "log_id": place.log.log_id,
            "log_partition": place.log.partition,
            "log_offset": change.hole.offset,
            "ts_log": change.hole.time_us,
            "gap_first": change.hole.gap_first,
            "gap_last": change.hole.gap_last,
            "first_missing": change.first,
            "last_missing": change.last,
            "event_offset": change.offset,
            "ts_event_log": change.time_us,
            "from_ns": change.hole.from_ns,
            "to_ns": change.hole.to_ns,
            "decided_offset": decided_offset,
        }
        for stream, change in changes
    ]
    return pl.DataFrame(
        [
            pl.Series(name, [row.get(name) for row in rows], _BUILT.get(kind, kind)).cast(kind)
            for name, kind in _TYPES.items()
        ]
    )


def _day(day: int) -> int | None:
    return None if day == NO_DAY else day
