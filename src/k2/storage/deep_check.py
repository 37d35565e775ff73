"""Checks every file that the tables' newest snapshots stand on against the checksum recorded when it was written."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow.parquet as pq
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import read_manifest_list
from pyiceberg.serializers import FromInputFile
from pyiceberg.types import IntegerType, LongType

from k2.common.errors import CorruptionError
from k2.storage.catalog import metadata_location
from k2.storage.checksums import checksum_of, checksum_of_stream
from k2.storage.failures import translated
from k2.storage.file_checks import difference
from k2.storage.file_io import SyncedFileIO, local_path
from k2.storage.tables import MAIN_TABLES, NAMESPACE, SIDE_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table

    from k2.schemas.records import RecordType
    from k2.storage.tables import MarketTables

_BACK: Final = "put it back, byte for byte, from a backup; `on_degrade=partial` answers without it meanwhile"


@dataclass(frozen=True, slots=True)
class Damage:
    """One file that is missing or not what was written: what it held, and what to do."""

    table: str
    kind: str
    path: str
    problem: str
    advice: str = _BACK
    rows: int | None = None
    partition: str | None = None
    log_partitions: tuple[int, int] | None = None
    """First and last partition of the log whose records it holds."""
    log_offsets: tuple[int, int] | None = None
    """Lowest and highest offset that it holds."""


@dataclass(frozen=True, slots=True)
class DeepReport:
    """What was checked, and what is damaged; `unrecorded` files have no checksum, so their pages were checked."""

    files: int
    bytes_read: int
    unrecorded: int
    damaged: tuple[Damage, ...]

    @property
    def is_sound(self) -> bool:
        """Tell whether every file is what was written."""
        return not self.damaged

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"sound": self.is_sound, **asdict(self)}


class DeepCheck:
    """Reads everything once, one file at a time, in constant memory (a manifest is held whole)."""

    def __init__(self, tables: MarketTables) -> None:
        self._tables = tables
        self._damaged: list[Damage] = []
        self._files = 0
        self._bytes = 0
        self._unrecorded = 0

    def run(self, progress: Callable[[int, int], None] = lambda _done, _total: None) -> DeepReport:
        """Check the newest snapshot of every table; `progress` is told the bytes read and those to read in all."""
        data = [
            (name, kind, file) for name, kind in {**MAIN_TABLES, **SIDE_TABLES}.items() for file in self._live(name)
        ]
        total = sum(file.file_size_in_bytes for _, _, (_, file) in data)
        for name, record_type, (io, file) in data:
            self._data_file(name, record_type, io, file)
            progress(self._bytes, total)
        return DeepReport(self._files, self._bytes, self._unrecorded, tuple(self._damaged))

    def _live(self, name: str) -> Iterator[tuple[FileIO, DataFile]]:
        """Give the live data files, after checking the metadata, the manifest list and the manifests."""
        table = self._table(name)
        snapshot = None if table is None else table.current_snapshot()
        if table is None or snapshot is None:
            return
        try:
            with translated("reading a manifest list", path=snapshot.manifest_list):
                listed = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
        except CorruptionError as error:
            self._note(name, "manifest list", snapshot.manifest_list, str(error), rows=_rows(snapshot.summary))
            return
        self._files += 1
        for manifest in listed:
            try:
                entries = self._entries(table.io, manifest)
            except CorruptionError as error:
                rows = (manifest.added_rows_count or 0) + (manifest.existing_rows_count or 0)
                self._note(name, "manifest", manifest.manifest_path, str(error), rows=rows)
                continue
            yield from ((table.io, file) for file in entries)

    def _entries(self, io: FileIO, manifest: ManifestFile) -> list[DataFile]:
        path = manifest.manifest_path
        with translated("reading a manifest", path=path):
            found = len(io.new_input(path))
            if found != manifest.manifest_length:
                raise CorruptionError(f"expected {manifest.manifest_length} bytes, found {found}", path=path)
            entries = manifest.fetch_manifest_entry(io)
        self._files += 1
        return [entry.data_file for entry in entries]

    def _table(self, name: str) -> Table | None:
        identifier = f"{NAMESPACE}.{name}"
        try:
            table = self._tables.load(name)
        except CorruptionError as error:
            location = metadata_location(self._tables.catalog, NAMESPACE, name) or error.path
            self._note(identifier, "metadata", location, str(error), advice=_metadata_advice(location))
            return None
        self._files += 1
        return table

    def _data_file(self, name: str, record_type: RecordType, io: FileIO, file: DataFile) -> None:
        problem = None
        try:
            with translated("reading a data file", path=file.file_path):
                problem = self._content_problem(io, file)
        except CorruptionError as error:
            problem = str(error)
        self._files += 1
        if problem is not None:
            self._damaged.append(
                Damage(
                    f"{NAMESPACE}.{name}",
                    "data file",
                    file.file_path,
                    problem,
                    rows=file.record_count,
                    partition="/".join(str(file.partition[n]) for n in range(len(file.partition))) or None,
                    log_partitions=_range(file, record_type, "log_partition", IntegerType()),
                    log_offsets=_range(file, record_type, "log_offset", LongType()),
                )
            )

    def _content_problem(self, io: FileIO, file: DataFile) -> str | None:
        recorded = checksum_of(file)
        with io.new_input(file.file_path).open() as stream:
            found, size = checksum_of_stream(stream)
        self._bytes += size
        problem = difference(file.file_size_in_bytes, recorded, found, size)
        if problem is not None or recorded is not None:
            return problem
        self._unrecorded += 1
        return _pages_problem(io, file)

    def _note(
        self, table: str, kind: str, path: str, problem: str, *, rows: int | None = None, advice: str = _BACK
    ) -> None:
        name = table if table.startswith(NAMESPACE) else f"{NAMESPACE}.{table}"
        self._files += 1
        self._damaged.append(Damage(name, kind, path, problem, advice=advice, rows=rows))


def _pages_problem(io: FileIO, file: DataFile) -> str | None:
    """Read a file that has no checksum page by page; each page has one of its own."""
    try:
        with io.new_input(file.file_path).open() as stream:
            parquet = pq.ParquetFile(stream, page_checksum_verification=True)
            rows = sum(batch.num_rows for batch in parquet.iter_batches())
    except OSError as error:
        return f"a page is damaged: {str(error).splitlines()[0]}"
    return None if rows == file.record_count else f"expected {file.record_count} rows, found {rows}"


def _metadata_advice(location: str) -> str:
    """Say which older version of the metadata is whole: what it does not know is read from the log again."""
    path = local_path(location)
    older = [] if path is None else sorted(path.parent.glob("*.metadata.json"), reverse=True)
    for candidate in older:
        if candidate.name == Path(location).name:
            continue
        try:
            with translated("reading metadata", path=str(candidate)):
                FromInputFile.table_metadata(SyncedFileIO().new_input(str(candidate)))
        except CorruptionError:
            continue
        return (
            f"put it back, byte for byte, from a backup; the newest older version that is whole is {candidate.name}: a "
            "catalog that points to it goes on from its seam, and reads again from the log what came later"
        )
    return "put it back, byte for byte, from a backup"


def _range(
    file: DataFile, record_type: RecordType, column: str, kind: IntegerType | LongType
) -> tuple[int, int] | None:
    field = next((field for field in record_type.fields if field.name == column), None)
    lower, upper = file.lower_bounds or {}, file.upper_bounds or {}
    if field is None or field.field_id not in lower or field.field_id not in upper:
        return None
    return int(from_bytes(kind, lower[field.field_id])), int(from_bytes(kind, upper[field.field_id]))


def _rows(summary: Any) -> int | None:  # Any: PyIceberg's Summary, or None
    found = None if summary is None else summary.additional_properties.get("total-records")
    return None if found is None else int(found)
