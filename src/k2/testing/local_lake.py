"""Real tables, with short ways to say what a storage test arranges and looks at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from k2.common.clock import SystemClock
from k2.storage.catalog import open_catalog
from k2.storage.seam import Counts, LogPartition, PartitionDelta
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MAIN_TABLES, MarketTables
from k2.storage.writer import Batch, Commit, TableWriter
from k2.testing.faulty_catalog import Fault, FaultyCatalog
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from k2.common.clock import Clock

TOPIC: Final = "market.equities.trades.sim"
PARTITIONS: Final = 2


class LocalLake:
    """Tables in a SQLite catalog and local files under `directory`; several may share one directory.

    Settings that name another catalog or warehouse lead there instead.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock | None = None,
        *,
        faults: Iterable[Fault] = (),
        before_commit: Callable[[], None] = lambda: None,
        **settings: Any,  # Any: whatever CatalogSettings takes
    ) -> None:
        here = {"uri": f"sqlite:///{directory}/catalog.db", "warehouse": f"file://{directory}/lake"}
        self.settings = CatalogSettings(**{**here, **settings})
        self.clock = SystemClock() if clock is None else clock
        self.catalog = FaultyCatalog(open_catalog(self.settings), faults, before_commit=before_commit)
        self.tables = MarketTables(self.settings, self.clock, catalog=self.catalog)  # type: ignore[arg-type]  # stands in for it

    def create(self, *, topic_id: str = "topic-1") -> LocalLake:
        """Create the tables and register one log of two partitions, from offset 0, in `trades`."""
        self.tables.ensure()
        self.tables.register_log(
            "trades", cluster_id="cluster-1", topic_id=topic_id, topic=TOPIC, starts=dict.fromkeys(range(PARTITIONS), 0)
        )
        return self

    def writer(self, table_name: str = "trades") -> TableWriter:
        """Return a writer of its own."""
        return TableWriter(self.tables, table_name, self.settings, self.clock)

    def batch(self, batch_id: str, start: int, end: int, *, partition: int = 0, table_name: str = "trades") -> Batch:
        """Write the rows of [start, end) of one partition to files, and return the batch that would commit them."""
        rows = market_rows(range(start, end), record_type=MAIN_TABLES[table_name], partition=partition)
        files = self.writer(table_name).write_files(rows)
        counts = Counts(consumed=end - start, rows=end - start)
        return Batch(batch_id, {LogPartition(0, partition): PartitionDelta(start, end, counts)}, files)

    def commit(self, batch_id: str, start: int, end: int, *, partition: int = 0) -> Commit:
        """Write and commit the rows of [start, end) of one partition of `trades`."""
        return self.writer().commit(self.batch(batch_id, start, end, partition=partition))

    def coordinates(self, table_name: str = "trades") -> list[tuple[int, int, int]]:
        """Return the coordinates of all rows, sorted, as plain PyIceberg reads them."""
        names = ("log_id", "log_partition", "log_offset")
        rows = self.tables.load(table_name).scan(selected_fields=names).to_arrow()
        return sorted(zip(*(rows[name].to_pylist() for name in names), strict=True))

    def close(self) -> None:
        """Close the catalog."""
        self.tables.close()
