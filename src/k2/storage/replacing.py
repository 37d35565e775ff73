"""Replaces data files of a table by others, or takes them out, under the same condition as every commit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.manifest import ManifestEntryStatus
from pyiceberg.table.snapshots import Operation

from k2.common.crash_points import reached
from k2.common.errors import ConfigurationError, CorruptionError, K2Error, UnavailableError
from k2.storage.failures import as_k2_error
from k2.storage.retries import attempts
from k2.storage.seam import SUMMARY_KEY, Seam, SeamError
from k2.storage.snapshots import SnapshotFiles, live_manifests, replacement_summary, require_no_rebase, swap_in
from k2.storage.tables import MAIN_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pyiceberg.manifest import DataFile, ManifestEntry, ManifestFile
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables


class FilesGoneError(K2Error):
    """A file that was to be replaced is no longer in the table: somebody else has replaced it; plan again."""


@dataclass(frozen=True, slots=True)
class _Sorted:
    """What one manifest of the head holds: `kept` is it, or what stands in for it without the files to remove."""

    kept: ManifestFile | None
    removed: tuple[ManifestEntry, ...] = ()


@dataclass(slots=True)
class Replacement:
    """Data files to take out of a table and others to put in, in one snapshot that may be tried on several heads.

    Manifests never change, so what was written for one head serves the next: a second attempt reads and writes only
    what the commits in between have brought, and is about as quick as theirs.
    """

    table: Table
    """The table as it was when the files were chosen."""
    removed: frozenset[str]
    """Paths of the files to take out."""
    added: Sequence[DataFile] = ()
    operation: Operation = Operation.REPLACE
    untouched: frozenset[str] = frozenset()
    """Paths of manifests that are known to hold none of the files to take out; they are not read."""
    _made: SnapshotFiles = field(init=False)
    _known: dict[str, _Sorted] = field(init=False, default_factory=dict)
    _new: list[ManifestFile] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Choose the snapshot's id."""
        self._made = SnapshotFiles(self.table)

    @property
    def snapshot_id(self) -> int:
        """Return the id of the snapshot, by which it is found after an unknown outcome."""
        return self._made.snapshot_id

    def swap(
        self,
        table: Table,
        summary: Callable[[Snapshot], dict[str, str]],
        properties: Mapping[str, str] | None = None,
    ) -> None:
        """Put the replacement on top of the head of `table`, freshly loaded; `summary` makes K2's keys from that head.

        Raises:
            FilesGoneError: a file to remove is not in the head.
            CommitFailedException: `main` has moved since `table` was loaded. After other errors the outcome is unknown.
        """
        require_no_rebase(table)
        head = table.current_snapshot()
        if head is None:
            raise FilesGoneError(f"expected files to replace in {'.'.join(table.name())}, found an empty table")
        found = [self._sort(manifest) for manifest in live_manifests(table, head)]
        entries = [entry for one in found for entry in one.removed]
        missing = self.removed - {entry.data_file.file_path for entry in entries}
        if missing:
            raise FilesGoneError(
                f"expected {len(self.removed)} files to replace in {'.'.join(table.name())}, {len(missing)} of them "
                f"are no longer there (such as {min(missing)}): something else has replaced them"
            )
        manifests = [*self._new_manifests(entries), *(one.kept for one in found if one.kept is not None)]
        made = replacement_summary(
            self.operation,
            removed=[entry.data_file for entry in entries],
            added=self.added,
            summary=summary(head),
            parent=head,
        )
        swap_in(table, self._made.snapshot(table, manifests, made), properties)

    def _sort(self, manifest: ManifestFile) -> _Sorted:
        known = self._known.get(manifest.manifest_path)
        if known is None:
            known = self._known[manifest.manifest_path] = self._read(manifest)
        return known

    def _read(self, manifest: ManifestFile) -> _Sorted:
        if manifest.manifest_path in self.untouched:
            return _Sorted(manifest)
        kept: list[ManifestEntry] = []
        removed: list[ManifestEntry] = []
        for entry in manifest.fetch_manifest_entry(self._made.io):
            (removed if entry.data_file.file_path in self.removed else kept).append(entry)
        if not removed:
            return _Sorted(manifest)
        rest = self._made.manifest(kept, ManifestEntryStatus.EXISTING) if kept else None
        return _Sorted(rest, tuple(removed))

    def _new_manifests(self, removed: Sequence[ManifestEntry]) -> list[ManifestFile]:
        if not self._new:
            if self.added:
                self._new.append(self._made.manifest(self._made.added(self.added)))
            self._new.append(self._made.manifest(removed, ManifestEntryStatus.DELETED))
        return self._new


def carried_seam(table: Table, head: Snapshot) -> dict[str, str]:
    """Return the keys of the head that every later snapshot carries: the seam in full, word for word.

    Raises:
        SeamError: a main table's head has none, or one that this version cannot read.
    """
    summary = {} if head.summary is None else head.summary.additional_properties
    if table.name()[-1] not in MAIN_TABLES:
        return {}
    Seam.from_summary(summary)
    return {SUMMARY_KEY: summary[SUMMARY_KEY]}


def commit_replacement(
    replacement: Replacement,
    tables: MarketTables,
    settings: CatalogSettings,
    clock: Clock,
    summary: Callable[[Table, Snapshot], dict[str, str]] = carried_seam,
    properties: Callable[[Table, Snapshot], dict[str, str]] = lambda _table, _head: {},
) -> bool:
    """Try until the replacement is in the table; False if a file of it is no longer there, so that it cannot be.

    `summary` and `properties` are made from each head that is tried.

    Raises:
        UnavailableError: other commits were faster each time, or the outcome is still unknown after all attempts.
    """
    name = replacement.table.name()[-1]
    doing = f"replacing {len(replacement.removed)} files of {name} by {len(replacement.added)}"
    failure: Exception | None = None
    for _ in attempts(settings, clock):
        try:
            table = tables.load(name)
            if table.snapshot_by_id(replacement.snapshot_id) is not None:
                return True  # an earlier attempt had landed without our knowing
            reached("before_replace")
            head = table.current_snapshot()
            more = {} if head is None else properties(table, head)
            replacement.swap(table, lambda head, table=table: summary(table, head), more)  # type: ignore[misc]  # bound early
            reached("after_replace")
        except FilesGoneError:
            return False
        except CommitFailedException as error:  # an ingest commit was faster: on top of it, then
            failure = error
        except (ConfigurationError, CorruptionError, SeamError):
            raise
        except Exception as error:  # the outcome is unknown: the next look at the head tells
            failure = as_k2_error(error, doing)
            if not isinstance(failure, UnavailableError):
                raise failure or error from error
        else:
            return True
    raise UnavailableError(f"{doing}: no success: {failure}; tried again in the next round", dependency="catalog")
