"""Which coordinates have a dead letter."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.schemas.records import DEAD_LETTERS
from k2.storage.failures import translated
from k2.storage.side_tables import intact_scan

if TYPE_CHECKING:
    from k2.storage.tables import MarketTables


class DeadLetterOffsets:
    """Reads the coordinates of `market.dead_letters`."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables

    def offsets(self, topic_id: str, partition: int) -> list[int]:
        """Return the offset of each record of one partition that is a dead letter still, repeated where it is so."""
        table = self._tables.load(DEAD_LETTERS.name)
        within = f"topic_id = '{topic_id}' and log_partition = {partition}"
        with translated(f"reading the dead letters of partition {partition}", path=f"market.{DEAD_LETTERS.name}"):
            found = intact_scan(table, within, ("log_offset", "event")).to_arrow().to_pylist()
        replayed = {row["log_offset"] for row in found if row["event"] == "replayed"}
        return [row["log_offset"] for row in found if row["event"] == "written" and row["log_offset"] not in replayed]
