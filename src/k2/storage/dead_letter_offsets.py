"""Which coordinates have a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.schemas.records import DEAD_LETTERS
from k2.storage.failures import translated

if TYPE_CHECKING:
    from k2.storage.tables import MarketTables


class DeadLetterOffsets:
    """Reads the coordinates of `market.dead_letters`."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables

    def offsets(self, topic_id: str, partition: int) -> list[int]:
        """Return the offset of each `written` event of one partition, in no order, repeated where it is there twice."""
        table = self._tables.load(DEAD_LETTERS.name)
        within = f"topic_id = '{topic_id}' and log_partition = {partition} and event = 'written'"
        with translated(f"reading the dead letters of partition {partition}", path=f"market.{DEAD_LETTERS.name}"):
            found = table.scan(within, selected_fields=("log_offset",)).to_arrow()
        offsets: list[int] = found["log_offset"].to_pylist()
        return offsets
