"""The table of dead letters: one event a coordinate and kind, whoever appends it, however often."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.storage.event_tables import DEAD_LETTER_EVENTS, EventWriter

if TYPE_CHECKING:
    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


class DeadLetterWriter(EventWriter):
    """Appends events to `market.dead_letters`."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        super().__init__(DEAD_LETTER_EVENTS, tables, settings, clock)
