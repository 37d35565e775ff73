"""Makes one snapshot and swaps it in: an append, on condition that `main` is where the caller saw it.

PyIceberg's `Transaction` does the same, but rebases a stale writer onto a newer head by itself, and copies the whole
metadata fifteen times a commit (three quarters of its time at 30 snapshots). What is used here is the layer under it:
manifests, manifest lists, and `Catalog.commit_table`, which tries once.
"""

from __future__ import annotations

import contextlib
import uuid
from typing import TYPE_CHECKING, Final

from pyiceberg.manifest import (
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    read_manifest_list,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.table.refs import MAIN_BRANCH, SnapshotRefType
from pyiceberg.table.snapshots import Operation, Snapshot, Summary, update_snapshot_summaries
from pyiceberg.table.update import (
    AddSnapshotUpdate,
    AssertRefSnapshotId,
    AssertTableUUID,
    SetPropertiesUpdate,
    SetSnapshotRefUpdate,
)

from k2.common.errors import ConfigurationError
from k2.storage.table_creation import RETRIES_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyiceberg.manifest import DataFile, ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableRequirement, TableUpdate

_FORMAT_VERSION: Final = 2
_COMPRESSION: Final = "deflate"


def append(
    table: Table,
    *,
    files: Sequence[DataFile] = (),
    summary: Mapping[str, str],
    properties: Mapping[str, str] | None = None,
    merge_count: int = 20,
) -> int:
    """Append files, summary and table properties by one swap; return the new snapshot's id.

    `table` must be freshly loaded, and is stale afterwards. Raises CommitFailedException where `main` has moved; after
    any other error the outcome is unknown. Nothing that was written is deleted then: the orphan sweep does that.
    """
    require_no_rebase(table)
    snapshot = _Snapshot(table, merge_count).write(files, summary)
    updates: tuple[TableUpdate, ...] = (
        *((SetPropertiesUpdate(updates=dict(properties)),) if properties else ()),
        AddSnapshotUpdate(snapshot=snapshot),
        SetSnapshotRefUpdate(
            snapshot_id=snapshot.snapshot_id,
            ref_name=MAIN_BRANCH,
            type=SnapshotRefType.BRANCH,
            max_ref_age_ms=None,
            max_snapshot_age_ms=None,
            min_snapshots_to_keep=None,
        ),
    )
    swap(table, updates)
    return snapshot.snapshot_id


def swap(table: Table, updates: tuple[TableUpdate, ...]) -> None:
    """Apply updates, on condition that this is the same table and its `main` has not moved since `table` was loaded."""
    requirements: tuple[TableRequirement, ...] = (
        AssertTableUUID(uuid=table.metadata.table_uuid),
        AssertRefSnapshotId(ref=MAIN_BRANCH, snapshot_id=_head_id(table)),
    )
    response = table.catalog.commit_table(table, requirements, updates)
    before = {entry.metadata_file for entry in table.metadata.metadata_log}
    for path in before - {entry.metadata_file for entry in response.metadata.metadata_log}:
        with contextlib.suppress(OSError):  # an old version of the metadata: gone already, or left to the orphan sweep
            table.io.delete(path)


def require_no_rebase(table: Table) -> None:
    """Refuse a table on which PyIceberg would rebase a stale writer onto a newer head: that doubles rows."""
    found = table.properties.get(RETRIES_PROPERTY)
    if found != "0":
        raise ConfigurationError(
            f"expected the property {RETRIES_PROPERTY}=0 on {'.'.join(table.name())}, found {found or 'none'}: a "
            "writer that uses PyIceberg's own transactions would be rebased and double rows; set it to 0, start again"
        )


class _Snapshot:
    """Writes the manifest and manifest list of one snapshot to be."""

    def __init__(self, table: Table, merge_count: int) -> None:
        self._table = table
        self._merge_count = merge_count
        self._id = table.metadata.new_snapshot_id()
        self._name = uuid.uuid4()
        self._written = 0

    def write(self, files: Sequence[DataFile], summary: Mapping[str, str]) -> Snapshot:
        metadata = self._table.metadata
        parent = metadata.current_snapshot()
        sequence_number = metadata.next_sequence_number()
        manifests = self._merged(_live_manifests(self._table, parent))
        if files:
            manifests = [self._manifest([self._added(file) for file in files]), *manifests]
        path = f"{self._table.location()}/metadata/snap-{self._id}-{self._name}.avro"
        with write_manifest_list(
            format_version=_FORMAT_VERSION,
            output_file=self._table.io.new_output(path),
            snapshot_id=self._id,
            parent_snapshot_id=None if parent is None else parent.snapshot_id,
            sequence_number=sequence_number,
            avro_compression=_COMPRESSION,
        ) as writer:
            writer.add_manifests(manifests)
        return Snapshot(
            snapshot_id=self._id,
            parent_snapshot_id=None if parent is None else parent.snapshot_id,
            manifest_list=path,
            sequence_number=sequence_number,
            summary=_summary(files, summary, parent),
            schema_id=metadata.current_schema_id,
        )

    def _added(self, file: DataFile) -> ManifestEntry:
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.ADDED,
            snapshot_id=self._id,
            sequence_number=None,
            file_sequence_number=None,
            data_file=file,
        )

    def _manifest(self, entries: Sequence[ManifestEntry], *, existing: bool = False) -> ManifestFile:
        path = f"{self._table.location()}/metadata/{self._name}-m{self._written}.avro"
        self._written += 1
        with write_manifest(
            format_version=_FORMAT_VERSION,
            spec=self._table.spec(),
            schema=self._table.schema(),
            output_file=self._table.io.new_output(path),
            snapshot_id=self._id,
            avro_compression=_COMPRESSION,
        ) as writer:
            for entry in entries:
                if existing:
                    writer.existing(entry)
                else:
                    writer.add(entry)
        return writer.to_manifest_file()

    def _merged(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        """Merge manifests of like size as soon as there are `merge_count` of them.

        An entry is rewritten once for each power of `merge_count` that the table holds, so both the length of the list
        and the work of a commit stay bounded.
        """
        tiers: dict[int, list[ManifestFile]] = {}
        for manifest in manifests:
            tiers.setdefault(self._tier(manifest), []).append(manifest)
        merged: list[ManifestFile] = []
        for _, members in sorted(tiers.items()):
            if len(members) < self._merge_count:
                merged.extend(members)
            else:
                entries = [entry for member in members for entry in member.fetch_manifest_entry(self._table.io)]
                merged.append(self._manifest(entries, existing=True))
        return merged

    def _tier(self, manifest: ManifestFile) -> int:
        entries = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
        tier = 0
        while entries >= self._merge_count:
            entries //= self._merge_count
            tier += 1
        return tier


def _head_id(table: Table) -> int | None:
    head = table.metadata.current_snapshot()
    return None if head is None else head.snapshot_id


def _live_manifests(table: Table, parent: Snapshot | None) -> list[ManifestFile]:
    if parent is None:
        return []
    found = list(read_manifest_list(table.io.new_input(parent.manifest_list)))
    foreign = [m for m in found if m.content != ManifestContent.DATA or m.partition_spec_id != table.spec().spec_id]
    if foreign:
        raise ConfigurationError(
            f"expected only data of partition spec {table.spec().spec_id} in {'.'.join(table.name())}, found "
            f"{foreign[0].manifest_path}: something other than K2 has written or repartitioned the table"
        )
    return [manifest for manifest in found if manifest.has_added_files() or manifest.has_existing_files()]


def _summary(files: Sequence[DataFile], summary: Mapping[str, str], parent: Snapshot | None) -> Summary:
    added = {
        "added-data-files": str(len(files)),
        "added-records": str(sum(file.record_count for file in files)),
        "added-files-size": str(sum(file.file_size_in_bytes for file in files)),
        "changed-partition-count": str(len({file.partition for file in files})),
    }
    previous = None if parent is None or parent.summary is None else parent.summary.additional_properties
    return update_snapshot_summaries(
        Summary(operation=Operation.APPEND, **(added if files else {}), **summary), previous
    )
