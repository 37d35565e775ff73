"""Reads the events of dead letters: which coordinates still are dead letters, and the bytes that came there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Final

import polars as pl
from pyiceberg.expressions import And, BooleanExpression, EqualTo, GreaterThanOrEqual, LessThanOrEqual

from k2.schemas.arrow import polars_schema
from k2.schemas.records import DEAD_LETTERS
from k2.storage.failures import translated
from k2.storage.side_tables import intact_scan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.table import Table

    from k2.storage.tables import MarketTables

COORDINATE: Final = ("topic_id", "log_partition", "log_offset")
"""What a dead letter is known by."""
_BYTES: Final = frozenset({"key", "value"})


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which dead letters are meant; a side that is None is open. Offsets lie in [first_offset, last_offset]."""

    table_name: str | None = None
    topic: str | None = None
    topic_id: str | None = None
    error_class: str | None = None
    log_partition: int | None = None
    first_offset: int | None = None
    last_offset: int | None = None


class DeadLetterEvents:
    """Reads `market.dead_letters` as it is now."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables

    def outstanding(self, chosen: Chosen, *, with_bytes: bool = False) -> Iterator[pl.DataFrame]:
        """Iterate over the dead letters that were not replayed, in no order, without the bytes unless wanted."""
        table = self._tables.load(DEAD_LETTERS.name)
        replayed = self._replayed(table, chosen)
        columns = {
            name: dtype
            for name, dtype in polars_schema(DEAD_LETTERS).items()
            if name != "event" and (with_bytes or name not in _BYTES)
        }
        for frame in _scan(table, "written", chosen, columns):
            yield frame.join(replayed, on=COORDINATE, how="anti")

    def _replayed(self, table: Table, chosen: Chosen) -> pl.DataFrame:
        schema = polars_schema(DEAD_LETTERS)
        columns = {name: schema[name] for name in COORDINATE}
        return pl.concat([pl.DataFrame(schema=columns), *_scan(table, "replayed", chosen, columns)])


def _scan(table: Table, event: str, chosen: Chosen, columns: dict[str, pl.DataType]) -> Iterator[pl.DataFrame]:
    doing = f"reading the dead letters ({event})"
    with translated(doing, path=f"market.{DEAD_LETTERS.name}"):
        batches = intact_scan(table, _filter(event, chosen), tuple(columns)).to_arrow_batch_reader()
        for batch in batches:
            frame = pl.DataFrame(pl.from_arrow(batch))
            yield frame.select(pl.col(name).cast(dtype) for name, dtype in columns.items())


def _filter(event: str, chosen: Chosen) -> BooleanExpression:
    parts: list[BooleanExpression] = [EqualTo(term="event", value=event)]
    for name in ("table_name", "topic", "topic_id", "error_class", "log_partition"):
        value = getattr(chosen, name)
        if value is not None:
            parts.append(EqualTo(term=name, value=value))
    if chosen.first_offset is not None:
        parts.append(GreaterThanOrEqual(term="log_offset", value=chosen.first_offset))
    if chosen.last_offset is not None:
        parts.append(LessThanOrEqual(term="log_offset", value=chosen.last_offset))
    return reduce(And, parts)
