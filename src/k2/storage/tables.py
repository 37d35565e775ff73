"""The market tables: creating and evolving them, their heads, and the logs registered in them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from k2.schemas.records import DEAD_LETTERS, QUOTES, TRADES, RecordType
from k2.storage.seam import Seam

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings

NAMESPACE: Final = "market"
LOG_PREFIX: Final = "k2.log."
SCHEMA_PREFIX: Final = "k2.schema."
MAIN_TABLES: Final = {record_type.name: record_type for record_type in (TRADES, QUOTES)}
"""Tables that have a seam, by short name: `trades`, `quotes`."""
SIDE_TABLES: Final = {DEAD_LETTERS.name: DEAD_LETTERS}
"""Event tables without a seam, idempotent by coordinate."""


@dataclass(frozen=True, slots=True)
class RegisteredLog:
    """One topic of one cluster, as a table knows it; rows refer to it by `log_id`."""

    log_id: int
    cluster_id: str
    topic_id: str
    topic: str
    partitions: int
    starts: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class TableHead:
    """The newest snapshot of a main table, from metadata alone.

    `snapshot_id` is None, and the seam empty, while the table has no snapshot. `schemas` holds the Avro text of each schema id met.
    """

    table_name: str
    snapshot_id: int | None
    seam: Seam
    logs: tuple[RegisteredLog, ...]
    schemas: Mapping[int, str]
    metadata_location: str

    def log_of(self, topic: str) -> RegisteredLog | None:
        """Return the newest registered log of the topic called `topic`, or None."""
        ...


class MarketTables:
    """The tables of the namespace `market`. Names are short: `trades`, `quotes`, `dead_letters`."""

    def __init__(self, settings: CatalogSettings, clock: Clock) -> None:
        raise NotImplementedError

    def ensure(self) -> list[str]:
        """Create what is missing, add optional columns that records.py has grown; return the names of tables created."""
        raise NotImplementedError

    def load(self, table_name: str) -> Table:
        """Load a table afresh; ConfigurationError if there is none, UnavailableError if the catalog is down."""
        raise NotImplementedError

    def head(self, table_name: str) -> TableHead:
        """Return the newest snapshot's head; SeamError if the table has snapshots and no seam."""
        raise NotImplementedError

    def register_log(
        self,
        table_name: str,
        *,
        cluster_id: str,
        topic_id: str,
        topic: str,
        starts: Mapping[int, int],
        accept_new_log: bool = False,
    ) -> RegisteredLog:
        """Register a topic's log, with the offsets at which the table begins to read it; idempotent.

        Raises:
            LogIdentityError: the topic is registered with another cluster, topic id or number of partitions, and
                `accept_new_log` is not set.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the catalog's connections."""
