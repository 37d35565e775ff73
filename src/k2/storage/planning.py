"""Planning: which data files of a pinned snapshot can hold the rows asked for; each manifest is read once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import read_manifest_list
from pyiceberg.types import DateType, LongType, StringType

from k2.common.errors import CorruptionError, ExpiredError
from k2.schemas.records import Action
from k2.storage.checksums import checksum_of
from k2.storage.failures import translated
from k2.storage.file_io import local_path
from k2.storage.named_snapshots import kept_snapshots
from k2.storage.tables import MAIN_TABLES, head_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from k2.schemas.records import RecordType
    from k2.storage.named_snapshots import KeptSnapshot
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables, TableHead

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """One data file to read. `path` is a plain path for local files, a URI for others."""

    path: str
    rows: int
    size_bytes: int
    partition: str = ""
    """The table's partition that the file belongs to: exchange and day."""
    checksum: int | None = None
    """CRC32 of its bytes, where the manifest records it."""
    dates: tuple[int, int] | None = None
    """First and last trading date of its rows, in days since 1970, where the manifest records them."""
    last_ns: int | None = None
    """Event time of its newest row, where the manifest records it."""

    def is_of_dates(self, dates: tuple[int, int] | None) -> bool:
        """Say whether a row can have one of these trading dates, first and last; None stands for any."""
        return dates is None or self.dates is None or (self.dates[0] <= dates[1] and self.dates[1] >= dates[0])


class FileBounds(NamedTuple):
    """What a manifest says of one data file; a bound is None where the manifest has none."""

    file: PlannedFile
    exchange: str
    symbol_min: str | None
    symbol_max: str | None
    start_ns: int | None
    last_ns: int | None
    logged_last_us: int | None = None
    amended: bool = True
    """Whether a row may have another action than NEW."""

    def can_hold(self, exchange: str | None, symbol: str | None) -> bool:
        """Say whether a row can be of this exchange and symbol; None stands for any."""
        return (
            (exchange is None or self.exchange == exchange)
            and (symbol is None or self.symbol_min is None or self.symbol_min <= symbol)
            and (symbol is None or self.symbol_max is None or self.symbol_max >= symbol)
        )


@dataclass(frozen=True, slots=True)
class ReadManifest:
    """The live entries of one manifest, and the range that they cover together."""

    path: str
    files: tuple[FileBounds, ...]
    exchanges: frozenset[str]
    start_ns: int | None
    last_ns: int | None
    amended: tuple[FileBounds, ...] = ()
    """Those of the files that may hold amendments."""


@dataclass(frozen=True, slots=True)
class PinnedSnapshot:
    """One snapshot of a table, with the seam that cuts it; commits and expiry do not change what it holds."""

    head: TableHead
    manifests: tuple[ReadManifest, ...] = field(repr=False)
    damaged: tuple[CorruptionError, ...] = ()
    """What could not be read of it, where the caller would have the rest."""

    @property
    def rows(self) -> int:
        """Rows in the snapshot, by the manifests."""
        return sum(entry.file.rows for manifest in self.manifests for entry in manifest.files)


class Planner:
    """Plans scans of the main tables. Threads may share it."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings) -> None:
        self._tables = tables
        self._entries_max = settings.planned_files_cached_max
        self._read: OrderedDict[str, ReadManifest] = OrderedDict()
        self._entries = 0
        self._pinned: dict[str, PinnedSnapshot] = {}
        self._lock = threading.Lock()

    def pin(self, table_name: str, *, partial: bool = False, snapshot_id: int | None = None) -> PinnedSnapshot:
        """Pin the newest snapshot, or another that the table still has; reads only manifests not read before.

        Raises:
            CorruptionError: a manifest is damaged, and the caller would not have the rest (`partial`); or the table's
                metadata is.
            ExpiredError: the table has no such snapshot any more.
        """
        table = self._tables.latest(table_name)
        pinned = self._pinned.get(table_name)
        if snapshot_id is None and pinned is not None and pinned.head.metadata_location == table.metadata_location:
            return pinned
        snapshot = table.current_snapshot() if snapshot_id is None else table.snapshot_by_id(snapshot_id)
        if snapshot is None and snapshot_id is not None:
            raise ExpiredError(f"expected the snapshot {snapshot_id} in {table_name}, found it expired: ask again")
        damaged: list[CorruptionError] = []
        manifests = tuple(self._manifests(table, snapshot, MAIN_TABLES[table_name], damaged))
        if damaged and not partial:
            raise damaged[0]
        pinned = PinnedSnapshot(head_of(table, snapshot), manifests, tuple(damaged))
        if not damaged and snapshot_id is None:
            self._pinned[table_name] = pinned
        return pinned

    def snapshots(self, table_name: str) -> tuple[KeptSnapshot, ...]:
        """Return the snapshots that a table still has, the newest first."""
        return kept_snapshots(self._tables.latest(table_name))

    def plan(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        logged_from: datetime | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that can hold rows with ts_event_ns in [start_ns, end_ns) of the exchange and symbol.

        `logged_from` leaves out the files whose rows were all logged before.
        """
        logged_from_us = None if logged_from is None else -((_EPOCH - logged_from) // timedelta(microseconds=1))
        return tuple(
            entry.file
            for manifest in pinned.manifests
            if (exchange is None or exchange in manifest.exchanges)
            and (end_ns is None or manifest.start_ns is None or manifest.start_ns < end_ns)
            and (start_ns is None or manifest.last_ns is None or manifest.last_ns >= start_ns)
            for entry in manifest.files
            if (end_ns is None or entry.start_ns is None or entry.start_ns < end_ns)
            and (start_ns is None or entry.last_ns is None or entry.last_ns >= start_ns)
            and entry.can_hold(exchange, symbol)
            and (logged_from_us is None or entry.logged_last_us is None or entry.logged_last_us >= logged_from_us)
        )

    def amended(
        self,
        pinned: PinnedSnapshot,
        *,
        exchange: str | None = None,
        symbol: str | None = None,
        dates: tuple[int, int] | None = None,
    ) -> tuple[PlannedFile, ...]:
        """Return the files that can hold amendments, records other than NEW, of these trading dates, at any time."""
        return tuple(
            entry.file
            for manifest in pinned.manifests
            for entry in manifest.amended
            if entry.can_hold(exchange, symbol) and entry.file.is_of_dates(dates)
        )

    def _manifests(
        self, table: Table, snapshot: Snapshot | None, record_type: RecordType, damaged: list[CorruptionError]
    ) -> Iterator[ReadManifest]:
        if snapshot is None:
            return
        listed: list[ManifestFile] = []
        try:
            with translated("reading a manifest list", path=snapshot.manifest_list):
                listed = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
        except CorruptionError as error:
            damaged.append(error)
        for manifest in listed:
            try:
                yield self._manifest(table.io, manifest, record_type)
            except CorruptionError as error:
                damaged.append(error)

    def _manifest(self, io: FileIO, manifest: ManifestFile, record_type: RecordType) -> ReadManifest:
        path = manifest.manifest_path
        with self._lock:
            known = self._read.get(path)
            if known is not None:
                self._read.move_to_end(path)
                return known
        with translated("reading a manifest", path=path):
            entries = manifest.fetch_manifest_entry(io)
        read = _read_manifest(path, tuple(_bounds(entry.data_file, record_type) for entry in entries))
        with self._lock:
            if path not in self._read:
                self._read[path] = read
                self._entries += len(read.files)
            while self._entries > self._entries_max and len(self._read) > 1:
                _, oldest = self._read.popitem(last=False)
                self._entries -= len(oldest.files)
        return read


def planned_file(file: DataFile) -> PlannedFile:
    """Return what a reader is to know of a data file."""
    path = local_path(file.file_path)
    return PlannedFile(
        path=file.file_path if path is None else str(path),
        rows=file.record_count,
        size_bytes=file.file_size_in_bytes,
        partition="/".join(str(file.partition[number]) for number in range(len(file.partition))),
        checksum=checksum_of(file),
    )


def _read_manifest(path: str, files: tuple[FileBounds, ...]) -> ReadManifest:
    starts = [entry.start_ns for entry in files]
    lasts = [entry.last_ns for entry in files]
    return ReadManifest(
        path=path,
        files=files,
        exchanges=frozenset(entry.exchange for entry in files),
        start_ns=None if None in starts else min((ns for ns in starts if ns is not None), default=None),
        last_ns=None if None in lasts else max((ns for ns in lasts if ns is not None), default=None),
        amended=tuple(entry for entry in files if entry.amended),
    )


def _bounds(file: DataFile, record_type: RecordType) -> FileBounds:
    lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
    ids = {field.name: field.field_id for field in record_type.fields}
    symbol, time, date = ids["symbol"], ids["ts_event_ns"], ids["trading_date"]
    first, last = _day(lower.get(date)), _day(upper.get(date))
    actions = (_text(lower.get(ids["action"])), _text(upper.get(ids["action"])))
    dates = None if first is None or last is None else (first, last)
    return FileBounds(
        file=replace(planned_file(file), dates=dates, last_ns=_number(upper.get(time))),
        exchange=str(file.partition[0]),
        symbol_min=_text(lower.get(symbol)),
        symbol_max=_text(upper.get(symbol)),
        start_ns=_number(lower.get(time)),
        last_ns=_number(upper.get(time)),
        logged_last_us=_number(upper.get(ids["ts_log"])),
        amended=actions != (Action.NEW, Action.NEW),
    )


def _text(bound: bytes | None) -> str | None:
    return None if bound is None else str(from_bytes(StringType(), bound))


def _number(bound: bytes | None) -> int | None:
    return None if bound is None else int(from_bytes(LongType(), bound))


def _day(bound: bytes | None) -> int | None:
    return None if bound is None else int(from_bytes(DateType(), bound))
