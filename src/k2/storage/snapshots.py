"""Makes one snapshot and swaps it in, on condition that `main` is where the caller saw it.

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
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pyiceberg.io import FileIO
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
    made = SnapshotFiles(table)
    parent = table.metadata.current_snapshot()
    manifests = _merged(made, live_manifests(table, parent), merge_count)
    if files:
        manifests = [made.manifest(made.added(files)), *manifests]
    snapshot = made.snapshot(table, manifests, append_summary(files, summary, parent))
    swap_in(table, snapshot, properties)
    return snapshot.snapshot_id


def swap_in(table: Table, snapshot: Snapshot, properties: Mapping[str, str] | None = None) -> None:
    """Make the snapshot the head, and set table properties in the same step."""
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


class SnapshotFiles:
    """Writes the manifests and the manifest list of one snapshot to be, which keeps its id over several attempts."""

    def __init__(self, table: Table) -> None:
        self.snapshot_id = table.metadata.new_snapshot_id()
        self._io = table.io
        self._directory = f"{table.location()}/metadata"
        self._spec = table.spec()
        self._schema = table.schema()
        self._name = uuid.uuid4()
        self._manifests = 0
        self._lists = 0

    @property
    def io(self) -> FileIO:
        """Return what reads and writes the table's files."""
        return self._io

    def added(self, files: Iterable[DataFile]) -> list[ManifestEntry]:
        """Return the entries of files that this snapshot adds."""
        return [
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED,
                snapshot_id=self.snapshot_id,
                sequence_number=None,
                file_sequence_number=None,
                data_file=file,
            )
            for file in files
        ]

    def manifest(
        self, entries: Sequence[ManifestEntry], status: ManifestEntryStatus = ManifestEntryStatus.ADDED
    ) -> ManifestFile:
        """Write a manifest whose entries are all added, kept or deleted by this snapshot."""
        path = f"{self._directory}/{self._name}-m{self._manifests}.avro"
        self._manifests += 1
        with write_manifest(
            format_version=_FORMAT_VERSION,
            spec=self._spec,
            schema=self._schema,
            output_file=self._io.new_output(path),
            snapshot_id=self.snapshot_id,
            avro_compression=_COMPRESSION,
        ) as writer:
            write = {
                ManifestEntryStatus.ADDED: writer.add,
                ManifestEntryStatus.EXISTING: writer.existing,
                ManifestEntryStatus.DELETED: writer.delete,
            }[status]
            for entry in entries:
                write(entry)
        return writer.to_manifest_file()

    def snapshot(self, table: Table, manifests: list[ManifestFile], summary: Summary) -> Snapshot:
        """Write the manifest list that follows on the head of `table`, and return the snapshot."""
        parent = table.metadata.current_snapshot()
        parent_id = None if parent is None else parent.snapshot_id
        sequence_number = table.metadata.next_sequence_number()
        output = self._io.new_output(f"{self._directory}/snap-{self.snapshot_id}-{self._lists}-{self._name}.avro")
        self._lists += 1
        with write_manifest_list(
            format_version=_FORMAT_VERSION,
            output_file=output,
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent_id,
            sequence_number=sequence_number,
            avro_compression=_COMPRESSION,
        ) as writer:
            writer.add_manifests(manifests)
        return Snapshot(
            snapshot_id=self.snapshot_id,
            parent_snapshot_id=parent_id,
            manifest_list=output.location,  # known once it is written: its checksum is in its name
            sequence_number=sequence_number,
            summary=summary,
            schema_id=table.metadata.current_schema_id,
        )


def _merged(made: SnapshotFiles, manifests: list[ManifestFile], merge_count: int) -> list[ManifestFile]:
    """Merge manifests of like size as soon as there are `merge_count` of them.

    An entry is rewritten once for each power of `merge_count` that the table holds, so both the length of the list
    and the work of a commit stay bounded.
    """
    tiers: dict[int, list[ManifestFile]] = {}
    for manifest in manifests:
        tiers.setdefault(_tier(manifest, merge_count), []).append(manifest)
    merged: list[ManifestFile] = []
    for _, members in sorted(tiers.items()):
        if len(members) < merge_count:
            merged.extend(members)
        else:
            entries = [entry for member in members for entry in member.fetch_manifest_entry(made.io)]
            merged.append(made.manifest(entries, ManifestEntryStatus.EXISTING))
    return merged


def _tier(manifest: ManifestFile, merge_count: int) -> int:
    entries = (manifest.added_files_count or 0) + (manifest.existing_files_count or 0)
    tier = 0
    while entries >= merge_count:
        entries //= merge_count
        tier += 1
    return tier


def _head_id(table: Table) -> int | None:
    head = table.metadata.current_snapshot()
    return None if head is None else head.snapshot_id


def live_manifests(table: Table, parent: Snapshot | None) -> list[ManifestFile]:
    """Return the manifests of a snapshot that have files to read; refuses what something other than K2 has added."""
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


def append_summary(files: Collection[DataFile], summary: Mapping[str, str], parent: Snapshot | None) -> Summary:
    """Return the summary of an append, with the table's totals."""
    counts = _counts("added", files) if files else {}
    return update_snapshot_summaries(Summary(operation=Operation.APPEND, **counts, **summary), _totals(parent))


def replacement_summary(
    operation: Operation,
    *,
    removed: Collection[DataFile],
    added: Collection[DataFile],
    summary: Mapping[str, str],
    parent: Snapshot | None,
) -> Summary:
    """Return the summary of a replacement or a deletion, with the table's totals."""
    counts = {**_counts("deleted", removed), **(_counts("added", added) if added else {})}
    counts["removed-files-size"] = counts.pop("deleted-files-size")
    counts["changed-partition-count"] = str(len({file.partition for file in (*removed, *added)}))
    # PyIceberg computes the totals of overwrites and not of replacements; they are the same.
    made = update_snapshot_summaries(Summary(operation=Operation.OVERWRITE, **counts, **summary), _totals(parent))
    return Summary(operation=operation, **made.additional_properties)


def _counts(kind: str, files: Collection[DataFile]) -> dict[str, str]:
    return {
        f"{kind}-data-files": str(len(files)),
        f"{kind}-records": str(sum(file.record_count for file in files)),
        f"{kind}-files-size": str(sum(file.file_size_in_bytes for file in files)),
        "changed-partition-count": str(len({file.partition for file in files})),
    }


def _totals(parent: Snapshot | None) -> dict[str, str] | None:
    return None if parent is None or parent.summary is None else parent.summary.additional_properties
