"""The orphan sweep: files that no live snapshot names are marked, and deleted if they still are so a day later.

What counts is the time since the mark, never the age of a file: a batch in flight may wait long for its commit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import read_manifest_list

from k2.common.crash_points import reached
from k2.common.errors import ConfigurationError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_HOUR
from k2.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings, UpkeepSettings
    from k2.storage.tables import MarketTables

MARKS_NAME: Final = "k2-orphans.json"
VERSION: Final = 1
_PLACES: Final = ("data", "metadata")


@dataclass(frozen=True, slots=True)
class Marks:
    """Orphaned files by path below the table's location, each with when it was first seen so."""

    swept_at_ns: int = 0
    files: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found and did."""

    orphans: int
    orphan_bytes: int
    deleted: int
    deleted_bytes: int


class OrphanSweep:
    """Sweeps the tables, each with its marks in a file beside its metadata."""

    def __init__(self, tables: MarketTables, catalog: CatalogSettings, settings: UpkeepSettings, clock: Clock) -> None:
        if settings.orphan_hours <= catalog.file_age_max_hours:
            raise ConfigurationError(
                f"expected K2_UPKEEP__ORPHAN_HOURS ({settings.orphan_hours:g}) above K2_CATALOG__FILE_AGE_MAX_HOURS "
                f"({catalog.file_age_max_hours:g}): a batch may commit a file as old as that, which must still be there"
            )
        self._tables = tables
        self._settings = settings
        self._clock = clock
        self._log = get_logger(__name__)

    def is_due(self, table_name: str) -> bool:
        """Say whether the last sweep is as long ago as the settings want."""
        marks = read_marks(self._tables.load(table_name))
        return self._clock.time_ns() - marks.swept_at_ns >= self._settings.sweep_interval_hours * NS_PER_HOUR

    def sweep(self, table_name: str, *, dry_run: bool = False) -> Swept:
        """Delete what was marked long enough ago and still is an orphan; mark the others.

        The listing comes before the head is read: a file listed and committed meanwhile is found to be in use.
        """
        listed = _listed(self._tables.load(table_name))
        table = self._tables.load(table_name)
        used = _used(table)
        orphans = {name: size for name, size in listed.items() if name not in used}
        now, marks = self._clock.time_ns(), read_marks(table)
        due = {
            name
            for name in orphans
            if name in marks.files and now - marks.files[name] >= self._settings.orphan_hours * NS_PER_HOUR
        }
        kept = [name for name in sorted(orphans) if name not in due]
        if dry_run:
            return Swept(len(orphans), sum(orphans.values()), len(due), sum(orphans[name] for name in due))
        deleted = list(self._delete(table, sorted(due)))
        # Those not marked anew: in use again, or gone. A clock that was set back must not make a mark older.
        files = {name: min(marks.files.get(name, now), now) for name in kept[: self._settings.orphans_marked_max]}
        write_marks(table, Marks(now, files))
        reached("orphans_marked")
        deleted_bytes = sum(orphans[name] for name in deleted)
        if orphans:
            self._log.info(
                "orphans_swept", table=table_name, marked=len(files), deleted=len(deleted), bytes=deleted_bytes
            )
        return Swept(len(orphans), sum(orphans.values()), len(deleted), deleted_bytes)

    def _delete(self, table: Table, names: list[str]) -> Iterator[str]:
        for name in names:
            path = f"{table.location()}/{name}"
            with translated("deleting an orphaned file", path=path):
                try:
                    table.io.delete(path)
                except FileNotFoundError:  # another sweep was here
                    continue
            reached("mid_sweep")
            yield name


def read_marks(table: Table) -> Marks:
    """Return the table's marks; none where they cannot be read, which only makes files wait longer."""
    path = _marks_path(table)
    try:
        with translated("reading the marks of orphaned files", path=path), table.io.new_input(path).open() as stream:
            body = json.loads(stream.read())
        if body["v"] != VERSION:
            return Marks()
        return Marks(int(body["swept_at_ns"]), {str(name): int(at) for name, at in body["files"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return Marks()
    except Exception as error:  # whatever this store raises for a file that is not there
        if isinstance(error.__cause__, FileNotFoundError):
            return Marks()
        raise


def write_marks(table: Table, marks: Marks) -> None:
    """Write the table's marks in place of the ones before."""
    path = _marks_path(table)
    body = json.dumps({"v": VERSION, "swept_at_ns": marks.swept_at_ns, "files": marks.files}, separators=(",", ":"))
    with (
        translated("writing the marks of orphaned files", path=path),
        table.io.new_output(path).create(overwrite=True) as stream,
    ):
        stream.write(body.encode())


def _marks_path(table: Table) -> str:
    return f"{table.location()}/metadata/{MARKS_NAME}"


def _listed(table: Table) -> dict[str, int]:
    """Return the table's files by path below its location, with their sizes."""
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        raise ConfigurationError(f"expected a PyArrow FileIO to list files with, found {type(io).__name__}")
    scheme, host, root = io.parse_location(table.location(), io.properties)
    system = io.fs_by_scheme(scheme, host)
    found: dict[str, int] = {}
    with translated("listing the table's files", path=table.location()):
        for place in _PLACES:
            selector = fs.FileSelector(f"{root.rstrip('/')}/{place}", recursive=True, allow_not_found=True)
            for entry in system.get_file_info(selector):
                if entry.type is fs.FileType.File:
                    found[entry.path.removeprefix(root.rstrip("/")).lstrip("/")] = int(entry.size or 0)
    return found


def _used(table: Table) -> frozenset[str]:
    """Return what the live metadata names: metadata, manifest lists, manifests and data files of every snapshot."""
    metadata = table.metadata
    used = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    used.update(file.statistics_path for file in (*metadata.statistics, *metadata.partition_statistics))
    seen: set[str] = set()
    for snapshot in metadata.snapshots:
        used.add(snapshot.manifest_list)
        with translated("reading a manifest list", path=snapshot.manifest_list):
            listed = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
        for manifest in listed:
            if manifest.manifest_path in seen:
                continue
            seen.add(manifest.manifest_path)
            with translated("reading a manifest", path=manifest.manifest_path):
                used.update(entry.data_file.file_path for entry in manifest.fetch_manifest_entry(table.io))
    root = table.location().rstrip("/")
    names = {path.removeprefix(root).lstrip("/") for path in used | seen}
    return frozenset({*names, f"metadata/{MARKS_NAME}"})
