"""One round of upkeep over all tables: expiry, merging and compaction, orphans; and what it found and left."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from k2.common.errors import K2Error
from k2.common.logging import get_logger
from k2.storage.expiry import SnapshotExpiry
from k2.storage.tables import MAIN_TABLES, SIDE_TABLES
from k2.storage.upkeep.compaction import Compactor
from k2.storage.upkeep.live_files import LiveFiles
from k2.storage.upkeep.orphans import OrphanSweep
from k2.storage.upkeep.retention import Retention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings, UpkeepSettings
    from k2.storage.tables import MarketTables
    from k2.storage.upkeep.orphans import Swept


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a table's head holds."""

    rows: int
    files: int
    small_files: int
    bytes: int
    snapshots: int
    manifests: int


@dataclass(frozen=True, slots=True)
class TableReport:
    """What a round did to one table; in a dry run, what it would do. `problems` are for a person to look at."""

    table: str
    before: TableSize
    after: TableSize
    jobs: int
    files_replaced: int
    snapshots_expired: int
    orphans: int
    orphan_bytes: int
    orphans_deleted: int
    orphan_bytes_deleted: int
    swept: bool
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RoundReport:
    """What a round did."""

    tables: tuple[TableReport, ...]
    dry_run: bool = False
    problems: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Tell whether all that was tried succeeded."""
        return not self.problems and not any(table.problems for table in self.tables)

    def to_dict(self) -> dict[str, Any]:  # Any: plain values for JSON
        """Return the report as plain values."""
        return asdict(self)


class Upkeep:
    """Does rounds."""

    def __init__(
        self,
        tables: MarketTables,
        catalog: CatalogSettings,
        settings: UpkeepSettings,
        clock: Clock,
        *,
        scratch_dir: Path,
    ) -> None:
        self.retention = Retention(tables, catalog, clock)
        self._tables = tables
        self._settings = settings
        self._compactor = Compactor(tables, catalog, settings, clock, scratch_dir=scratch_dir)
        self._expiry = SnapshotExpiry(tables, catalog, clock)
        self._sweep = OrphanSweep(tables, catalog, settings, clock)
        self._log = get_logger(__name__)

    @property
    def table_names(self) -> tuple[str, ...]:
        """Return the tables that are kept up."""
        return (*MAIN_TABLES, *SIDE_TABLES)

    def round(
        self,
        names: Sequence[str] = (*MAIN_TABLES, *SIDE_TABLES),
        *,
        dry_run: bool = False,
        sweep_now: bool = True,
        stopping: Callable[[], bool] = lambda: False,
    ) -> RoundReport:
        """Keep each table up; a failure at one leaves the others their turn. `sweep_now`: whether or not it is due."""
        reports: list[TableReport] = []
        problems: list[str] = []
        for name in names:
            if stopping():
                break
            try:
                reports.append(
                    self._would_do(name) if dry_run else self._table(name, sweep_now=sweep_now, stopping=stopping)
                )
            except K2Error as error:
                self._log.warning("upkeep_failed", table=name, error=str(error))
                problems.append(f"{name}: {error}")
        return RoundReport(tuple(reports), dry_run, tuple(problems))

    def _table(self, name: str, *, sweep_now: bool, stopping: Callable[[], bool]) -> TableReport:
        before = self.size(name)
        done = list(self._compactor.run(name, stopping))
        expired = self._expiry.expire(name)
        swept = self._sweep.sweep(name) if sweep_now or self._sweep.is_due(name) else None
        replaced = [one for one in done if not one.problem]
        return _report(
            name,
            before,
            self.size(name) if replaced or expired else before,
            jobs=len(replaced),
            files_replaced=sum(len(one.job.files) for one in replaced),
            snapshots_expired=expired,
            swept=swept,
            problems=tuple(one.problem for one in done if one.problem),
        )

    def _would_do(self, name: str) -> TableReport:
        before = self.size(name)
        jobs = self._compactor.plan(name)
        return _report(
            name,
            before,
            before,
            jobs=len(jobs),
            files_replaced=sum(len(job.files) for job in jobs),
            snapshots_expired=self._expiry.expirable(name),
            swept=self._sweep.sweep(name, dry_run=True),
        )

    def size(self, name: str) -> TableSize:
        """Return what the table's head holds, from its manifests."""
        table, live = self._tables.load(name), LiveFiles()
        files = live.of_head(table)
        return TableSize(
            rows=sum(file.rows for file in files),
            files=len(files),
            small_files=sum(file.size_bytes < self._settings.file_bytes_min for file in files),
            bytes=sum(file.size_bytes for file in files),
            snapshots=len(table.snapshots()),
            manifests=live.manifests,
        )


def _report(
    name: str,
    before: TableSize,
    after: TableSize,
    *,
    jobs: int,
    files_replaced: int,
    snapshots_expired: int,
    swept: Swept | None,
    problems: tuple[str, ...] = (),
) -> TableReport:
    return TableReport(
        table=name,
        before=before,
        after=after,
        jobs=jobs,
        files_replaced=files_replaced,
        snapshots_expired=snapshots_expired,
        orphans=0 if swept is None else swept.orphans,
        orphan_bytes=0 if swept is None else swept.orphan_bytes,
        orphans_deleted=0 if swept is None else swept.deleted,
        orphan_bytes_deleted=0 if swept is None else swept.deleted_bytes,
        swept=swept is not None,
        problems=problems,
    )
