"""The way into the log with faults on it: an outlet that injects them into what it passes on."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from k2.feeds.faults.injector import FaultInjector
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable

    import polars as pl

    from k2.feeds.faults.rates import FaultRates
    from k2.feeds.faults.truth import Entry
    from k2.feeds.simulation import Outlet


class FaultyOutlet:
    """Passes on what is left of a feed. `flush` ends the feed: what was held back is sent, and nothing may follow."""

    def __init__(
        self,
        outlet: Outlet,
        rates: FaultRates,
        *,
        scope: str,
        streams_max: int,
        tell: Callable[[Entry], None] = lambda _: None,
    ) -> None:
        self._outlet = outlet
        self._injectors = {
            data_type: FaultInjector(data_type, rates, scope=scope, streams_max=streams_max, tell=tell)
            for data_type in RECORD_TYPES
        }

    @property
    def counts(self) -> Counter[str]:
        """What was injected, by kind of the truth file's lines."""
        return sum((injector.counts for injector in self._injectors.values()), Counter())

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        """Queue what is sent of the rows now."""
        self._outlet.send(data_type, self._injectors[data_type].inject(rows))

    def flush(self) -> None:
        """Queue what was held back, and wait until everything sent is acknowledged."""
        for data_type, injector in self._injectors.items():
            self._outlet.send(data_type, injector.end())
        self._outlet.flush()

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark the end of the stream, in the numbers that were sent; what was withheld at its end is missing there."""
        self._outlet.mark_end(data_type, self._injectors[data_type].numbers_sent(rows))

    def mark_alive(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark how far the feed has come, in the numbers that are sent; what is held back now is missing until then."""
        self._outlet.mark_alive(data_type, self._injectors[data_type].numbers_sent(rows))
