"""Lets a run of the simulated market be played again: what the platform holds of it already is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from k2.kafka.producer import partition_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.feeds.simulation import Outlet


class ResumingOutlet:
    """An outlet that passes on only what lies beyond the highest source_sequence held, per data type and partition."""

    def __init__(self, outlet: Outlet, held: Mapping[str, Sequence[int]]) -> None:
        self._outlet = outlet
        self._held = held
        self._partition_of: dict[str, int] = {}
        self.left_out = 0
        self.sent = 0

    def send(self, data_type: str, rows: pl.DataFrame) -> None:
        """Queue the rows that are not held."""
        held = self._held[data_type]
        for symbol in rows["symbol"].unique().to_list():
            self._partition_of.setdefault(symbol, partition_for(symbol.encode(), len(held)))
        highest = pl.col("symbol").replace_strict(
            {symbol: held[number] for symbol, number in self._partition_of.items()}, return_dtype=pl.Int64
        )
        new = rows.filter(pl.col("source_sequence") > highest)
        self.left_out += len(rows) - len(new)
        self.sent += len(new)
        self._outlet.send(data_type, new)

    def flush(self) -> None:
        """Wait until everything sent is acknowledged."""
        self._outlet.flush()

    def mark_end(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark the end of the stream, unless the platform held all of it."""
        if self.sent or not self.left_out:
            self._outlet.mark_end(data_type, rows)

    def mark_alive(self, data_type: str, rows: pl.DataFrame) -> None:
        """Mark how far the stream has come, once something of it is new."""
        if self.sent:
            self._outlet.mark_alive(data_type, rows)
