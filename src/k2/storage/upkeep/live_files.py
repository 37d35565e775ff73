"""The data files that a table's head holds, with what choosing among them needs; each manifest is read once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from pyiceberg.manifest import read_manifest_list

from k2.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot


class Partition(NamedTuple):
    """One exchange and UTC day (days since 1970) of a main table; a side table is one partition."""

    exchange: str = ""
    day: int = 0


@dataclass(frozen=True, slots=True)
class LiveFile:
    """One data file of the head."""

    partition: Partition
    sequence_number: int
    """Of the snapshot that brought it: higher is newer."""
    manifest: str
    data_file: DataFile

    @property
    def path(self) -> str:
        """Return where it is."""
        return str(self.data_file.file_path)

    @property
    def size_bytes(self) -> int:
        """Return its size."""
        return int(self.data_file.file_size_in_bytes)

    @property
    def rows(self) -> int:
        """Return how many rows it has."""
        return int(self.data_file.record_count)


@dataclass(slots=True)
class LiveFiles:
    """Reads the files of heads that follow on one another; keeps only what the newest head still lists."""

    _read: dict[str, tuple[LiveFile, ...]] = field(default_factory=dict)

    def of_head(self, table: Table) -> list[LiveFile]:
        """Return the files of the table's head, in the order in which they came."""
        head = table.current_snapshot()
        if head is None:
            return []
        self._read = dict(self._manifests(table, head))
        found = [file for files in self._read.values() for file in files]
        return sorted(found, key=lambda file: (file.sequence_number, file.path))

    def manifests_without(self, paths: frozenset[str]) -> frozenset[str]:
        """Return the manifests read that hold none of these files."""
        return frozenset(name for name, files in self._read.items() if not any(file.path in paths for file in files))

    @property
    def manifests(self) -> int:
        """Return how many manifests the newest head lists."""
        return len(self._read)

    def _manifests(self, table: Table, head: Snapshot) -> Iterator[tuple[str, tuple[LiveFile, ...]]]:
        with translated("reading a manifest list", path=head.manifest_list):
            listed = list(read_manifest_list(table.io.new_input(head.manifest_list)))
        for manifest in listed:
            path = manifest.manifest_path
            known = self._read.get(path)
            if known is None:
                with translated("reading a manifest", path=path):
                    entries = manifest.fetch_manifest_entry(table.io)
                known = tuple(
                    LiveFile(partition_of(entry.data_file), entry.sequence_number or 0, path, entry.data_file)
                    for entry in entries
                )
            yield path, known


def partition_of(file: DataFile) -> Partition:
    """Return the partition that a data file belongs to."""
    values = file.partition
    return Partition(str(values[0]), int(values[1])) if len(values) else Partition()
