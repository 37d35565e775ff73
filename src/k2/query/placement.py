"""Sees whether records lie where their symbol says: key = symbol, partition = murmur2 of the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from k2.kafka.producer import partition_for

if TYPE_CHECKING:
    from k2.kafka.batches import LogBatch

_REMEMBERED_MAX = 1_000_000
"""Partitions of symbols that are remembered; past that, all are worked out anew."""


class Placement:
    """Remembers the topics that hold a stray: a record that a look at its symbol's own partition, by key, would miss.

    K2's producers make none. A foreign producer with another partitioner or key does; its topics are read in full.
    """

    def __init__(self) -> None:
        self.strays: set[str] = set()
        self._home: dict[tuple[str, int], int] = {}

    def own_partition(self, symbol: str, partitions: int) -> int:
        """Return the partition in which a symbol's records belong."""
        home = self._home.get((symbol, partitions))
        if home is None:
            if len(self._home) >= _REMEMBERED_MAX:
                self._home.clear()
            home = self._home[symbol, partitions] = partition_for(symbol.encode(), partitions)
        return home

    def check(self, batch: LogBatch, rows: pl.DataFrame, partitions: int) -> None:
        """Note the batch's topic if one of its rows is a stray."""
        if batch.topic in self.strays or rows.height == 0:
            return
        symbols = rows["symbol"]
        if any(self.own_partition(symbol, partitions) != batch.partition for symbol in symbols.unique().to_list()):
            self.strays.add(batch.topic)
            return
        keys = batch.keys
        if rows.height != len(batch):
            held = set(rows["log_offset"].to_list())
            keys = [key for key, offset in zip(keys, batch.offsets, strict=True) if offset in held]
        if not (pl.Series(keys, dtype=pl.Binary) == symbols.cast(pl.Binary)).fill_null(value=False).all():
            self.strays.add(batch.topic)
