"""The table of dead letters: one event a coordinate and kind, whoever appends it, however often."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


class DeadLetterWriter:
    """Appends events to `market.dead_letters`."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        raise NotImplementedError

    def append(self, events: pa.Table) -> int:
        """Append the events (columns of records.DEAD_LETTERS) whose (topic_id, log_partition, log_offset, event) is absent.

        Returns how many were appended; UnavailableError leaves it safe to call again.
        """
        raise NotImplementedError
