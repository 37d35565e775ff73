"""Pins the tables' files for a backup, and writes the metadata of tables that have come to stand elsewhere."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pyiceberg.manifest import read_manifest_list, write_manifest, write_manifest_list
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table.refs import MAIN_BRANCH

from k2.storage.catalog import close_catalog, create_namespace, open_catalog
from k2.storage.checksums import checksum_of
from k2.storage.failures import translated
from k2.storage.file_io import SyncedFileIO
from k2.storage.tables import NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyiceberg.catalog import Catalog
    from pyiceberg.manifest import ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot

    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables

_FORMAT_VERSION: Final = 2
_COMPRESSION: Final = "deflate"
_FILE_PATH: Final = 1
"""Place of the path in a manifest's entry of a data file."""
_MANIFEST_PATH: Final = 0


@dataclass(frozen=True, slots=True)
class PinnedFile:
    """One file that a pinned snapshot stands on; `checksum` is its CRC32 where the manifest records it."""

    location: str
    checksum: int | None = None


@dataclass(frozen=True, slots=True)
class PinnedTable:
    """One table at one moment: its metadata file and all files that its newest snapshot stands on."""

    name: str
    location: str
    metadata_location: str
    snapshot_id: int | None
    rows: int
    summary: Mapping[str, str]
    files: tuple[PinnedFile, ...]


def pin_tables(tables: MarketTables) -> list[PinnedTable]:
    """Pin every table of the namespace; a table is a pointer to files that never change.

    Upkeep deletes a file only 24 h after it was marked as unreferenced, so a copy has that long.
    """
    with translated("listing the tables"):
        names = sorted(identifier[-1] for identifier in tables.catalog.list_tables(NAMESPACE))
    return [_pinned(tables.load(name), name) for name in names]


def _pinned(table: Table, name: str) -> PinnedTable:
    snapshot = table.current_snapshot()
    files = [PinnedFile(table.metadata_location)]
    rows = 0
    if snapshot is not None:
        files.append(PinnedFile(snapshot.manifest_list))
        with translated("reading a manifest list", path=snapshot.manifest_list):
            listed = list(read_manifest_list(table.io.new_input(snapshot.manifest_list)))
        for manifest in listed:
            with translated("reading a manifest", path=manifest.manifest_path):
                entries = [entry.data_file for entry in manifest.fetch_manifest_entry(table.io)]
            rows += sum(file.record_count for file in entries)
            files += [PinnedFile(manifest.manifest_path)]
            files += [PinnedFile(file.file_path, checksum_of(file)) for file in entries]
    return PinnedTable(
        name=name,
        location=table.location(),
        metadata_location=table.metadata_location,
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        rows=rows,
        summary={} if snapshot is None or snapshot.summary is None else dict(snapshot.summary.additional_properties),
        files=tuple(files),
    )


class TableMover:
    """Makes tables of a new catalog from metadata that was written for other paths. Data files are in place already.

    `read_at` tells where an old metadata file, list or manifest can be read, `moved` where a file is from now on.
    """

    def __init__(
        self, settings: CatalogSettings, *, read_at: Callable[[str], str], moved: Callable[[str], str]
    ) -> None:
        self._settings = settings
        self._read_at = read_at
        self._moved = moved
        self._io = SyncedFileIO()

    def move(self, metadata_locations: Mapping[str, str]) -> None:
        """Write each table's metadata for its new place, with its newest snapshot alone, and register it."""
        catalog = open_catalog(self._settings)
        try:
            if not catalog.namespace_exists(NAMESPACE):
                create_namespace(catalog, NAMESPACE)
            for name, location in sorted(metadata_locations.items()):
                self._table(catalog, name, location)
        finally:
            close_catalog(catalog)

    def _table(self, catalog: Catalog, name: str, metadata_location: str) -> None:
        source = self._read_at(metadata_location)
        with translated("reading the metadata of a backup", path=source):
            metadata = FromInputFile.table_metadata(self._io.new_input(source))
        snapshot = metadata.current_snapshot()
        snapshots = [] if snapshot is None else [self._snapshot(metadata, snapshot)]
        moved = metadata.model_copy(
            update={
                "location": self._moved(metadata.location),
                "snapshots": snapshots,
                "snapshot_log": [
                    entry
                    for entry in metadata.snapshot_log
                    if snapshot is not None and entry.snapshot_id == snapshot.snapshot_id
                ],
                "metadata_log": [],
                "refs": {key: ref for key, ref in metadata.refs.items() if key == MAIN_BRANCH},
            }
        )
        path = f"{moved.location}/metadata/00000-{uuid.uuid4()}.metadata.json"
        with translated("writing the metadata of a restored table", path=path):
            ToOutputFile.table_metadata(moved, self._io.new_output(path))
            catalog.register_table(f"{NAMESPACE}.{name}", path)

    def _snapshot(self, metadata: TableMetadata, snapshot: Snapshot) -> Snapshot:
        source = self._read_at(snapshot.manifest_list)
        with translated("reading the manifests of a backup", path=source):
            listed = list(read_manifest_list(self._io.new_input(source)))
            manifests = [self._manifest(metadata, snapshot.snapshot_id, item) for item in listed]
        directory = f"{self._moved(metadata.location)}/metadata"
        output = self._io.new_output(f"{directory}/snap-{snapshot.snapshot_id}-0-{uuid.uuid4()}.avro")
        with write_manifest_list(
            format_version=_FORMAT_VERSION,
            output_file=output,
            snapshot_id=snapshot.snapshot_id,
            parent_snapshot_id=snapshot.parent_snapshot_id,
            sequence_number=snapshot.sequence_number,
            avro_compression=_COMPRESSION,
        ) as writer:
            writer.add_manifests([manifest for manifest in manifests if manifest is not None])
        return snapshot.model_copy(update={"manifest_list": output.location})

    def _manifest(self, metadata: TableMetadata, snapshot_id: int, manifest: ManifestFile) -> ManifestFile | None:
        manifest[_MANIFEST_PATH] = self._read_at(manifest.manifest_path)
        entries = manifest.fetch_manifest_entry(self._io)
        if not entries:
            return None
        with write_manifest(
            format_version=_FORMAT_VERSION,
            spec=metadata.specs()[manifest.partition_spec_id],
            schema=metadata.schema(),
            output_file=self._io.new_output(f"{self._moved(metadata.location)}/metadata/{uuid.uuid4()}-m0.avro"),
            snapshot_id=snapshot_id,
            avro_compression=_COMPRESSION,
        ) as writer:
            for entry in entries:
                entry.data_file[_FILE_PATH] = self._moved(entry.data_file.file_path)
                writer.existing(entry)
        return writer.to_manifest_file()


def locations_of(pinned: Sequence[PinnedTable]) -> dict[str, str]:
    """Return the metadata file of each table, by its short name."""
    return {table.name: table.metadata_location for table in pinned}
