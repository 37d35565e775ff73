"""The snapshots that a main table still has, and the tags by which people keep some of them from expiring.

A tag is one of Iceberg's own: what else reads the tables knows it too. It keeps its snapshot's metadata and files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.update import RemoveSnapshotRefUpdate, SetSnapshotRefUpdate

from k2.common.errors import ConfigurationError, K2Error, UnavailableError
from k2.common.units import NS_PER_MS
from k2.storage.failures import translated
from k2.storage.retries import attempts
from k2.storage.snapshots import swap
from k2.storage.tables import MAIN_TABLES, TableHead, head_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyiceberg.table.update import TableUpdate

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings
    from k2.storage.tables import MarketTables

    _Change = Callable[[Table], tuple["SnapshotTag | None", TableUpdate | None]]
    """What is to be said of the tag once the update is in; no update where there is nothing to do."""

TAG_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_TAKEN: Final = frozenset({"main", "now", "snapshot", "tag"})
"""What means something else where a tag can be named."""
_ENCODED_BEGINS: Final = "eyJ"


@dataclass(frozen=True, slots=True)
class SnapshotTag:
    """One tag; `until_ns` is when an expiry may take it away, None for never."""

    name: str
    snapshot_id: int
    until_ns: int | None = None


@dataclass(frozen=True)
class KeptSnapshot:
    """One snapshot that a table still has."""

    table: Table
    snapshot: Snapshot
    tags: tuple[SnapshotTag, ...]

    @cached_property
    def head(self) -> TableHead:
        """The seam of the snapshot; SeamError if it has none."""
        return head_of(self.table, self.snapshot)

    @property
    def snapshot_id(self) -> int:
        """Return its id."""
        return self.snapshot.snapshot_id

    @property
    def committed_at_ns(self) -> int:
        """Return when it was committed, by the clock of whoever did."""
        return self.snapshot.timestamp_ms * NS_PER_MS

    @property
    def is_newest(self) -> bool:
        """Say whether it is what the table holds now."""
        return self.snapshot.snapshot_id == self.table.metadata.current_snapshot_id

    @property
    def operation(self) -> str:
        """Return what made it: append, replace, delete, overwrite."""
        return "" if self.snapshot.summary is None else self.snapshot.summary.operation.value

    @property
    def rows(self) -> int:
        """Return how many rows it has, by its summary."""
        return 0 if self.snapshot.summary is None else int(self.snapshot.summary["total-records"] or 0)


def kept_snapshots(table: Table) -> tuple[KeptSnapshot, ...]:
    """Return the snapshots that the table still has, the newest first."""
    tags = tags_of(table)
    newest_first = sorted(table.snapshots(), key=lambda each: each.sequence_number or 0, reverse=True)
    return tuple(
        KeptSnapshot(table, each, tuple(tag for tag in tags if tag.snapshot_id == each.snapshot_id))
        for each in newest_first
    )


def tags_of(table: Table) -> list[SnapshotTag]:
    """Return the table's tags, by name."""
    times = {each.snapshot_id: each.timestamp_ms for each in table.snapshots()}
    return [
        SnapshotTag(
            name,
            each.snapshot_id,
            None if each.max_ref_age_ms is None else (times[each.snapshot_id] + each.max_ref_age_ms) * NS_PER_MS,
        )
        for name, each in sorted(table.metadata.refs.items())
        if each.snapshot_ref_type is SnapshotRefType.TAG
    ]


class SnapshotTags:
    """Names snapshots of the main tables, and takes the names away."""

    def __init__(self, tables: MarketTables, settings: CatalogSettings, clock: Clock) -> None:
        self._tables = tables
        self._settings = settings
        self._clock = clock

    def snapshots(self, table_names: Sequence[str] = tuple(MAIN_TABLES)) -> list[KeptSnapshot]:
        """Return the snapshots that the tables still have, each table's newest first."""
        return [each for name in table_names for each in kept_snapshots(self._tables.load(name))]

    def tag(
        self, name: str, table_name: str, *, snapshot_id: int | None = None, keep_seconds: float | None = None
    ) -> SnapshotTag | None:
        """Name the newest snapshot of a table, or another; None for a table that has no snapshot.

        It is kept until the name is dropped, or for `keep_seconds` from now. Naming it again changes how long.

        Raises:
            ConfigurationError: the name is none, or another snapshot has it, or there is no such snapshot, or there are
                too many tags.
            UnavailableError: commits were faster each time, or the catalog did not answer.
        """
        if TAG_NAME.fullmatch(name) is None or name in _TAKEN or name.startswith(_ENCODED_BEGINS):
            raise ConfigurationError(
                "expected a tag of letters, digits, dots, dashes and underscores, at most 64, that begins with a "
                f"letter, found {name[:80]!r}; {', '.join(sorted(_TAKEN))} and what begins like a token mean something "
                "else"
            )
        return self._until_swapped(table_name, lambda table: self._naming(table, name, snapshot_id, keep_seconds))

    def drop(self, name: str, table_name: str) -> SnapshotTag | None:
        """Take a name away; None if there is none. The next expiry may take the snapshot.

        Raises:
            UnavailableError: as `tag`.
        """

        def dropping(table: Table) -> tuple[SnapshotTag | None, TableUpdate | None]:
            found = next((tag for tag in tags_of(table) if tag.name == name), None)
            return found, None if found is None else RemoveSnapshotRefUpdate(ref_name=name)

        return self._until_swapped(table_name, dropping)

    def _naming(
        self, table: Table, name: str, snapshot_id: int | None, keep_seconds: float | None
    ) -> tuple[SnapshotTag | None, TableUpdate | None]:
        snapshot = table.current_snapshot() if snapshot_id is None else table.snapshot_by_id(snapshot_id)
        if snapshot is None:
            if snapshot_id is None:
                return None, None
            raise ConfigurationError(
                f"expected a snapshot of {'.'.join(table.name())}, found none with the id {snapshot_id}: `k2 snapshot "
                "list` shows those that there are"
            )
        self._check_free(table, name, snapshot.snapshot_id)
        now_ms = self._clock.time_ns() // NS_PER_MS
        kept_ms = None if keep_seconds is None else max(1, now_ms - snapshot.timestamp_ms + int(keep_seconds * 1_000))
        until_ns = None if kept_ms is None else (snapshot.timestamp_ms + kept_ms) * NS_PER_MS
        update = SetSnapshotRefUpdate(
            ref_name=name,
            snapshot_id=snapshot.snapshot_id,
            type=SnapshotRefType.TAG,
            max_ref_age_ms=kept_ms,
            max_snapshot_age_ms=None,
            min_snapshots_to_keep=None,
        )
        return SnapshotTag(name, snapshot.snapshot_id, until_ns), update

    def _check_free(self, table: Table, name: str, snapshot_id: int) -> None:
        tags = tags_of(table)
        known = next((tag for tag in tags if tag.name == name), None)
        if known is not None and known.snapshot_id != snapshot_id:
            raise ConfigurationError(
                f"expected a new name, found {name!r} on snapshot {known.snapshot_id} of {'.'.join(table.name())}: "
                f"choose another, or drop it first (`k2 snapshot drop {name}`)"
            )
        if known is None and len(tags) >= self._settings.tags_max:
            raise ConfigurationError(
                f"expected fewer than {self._settings.tags_max} tags (K2_CATALOG__TAGS_MAX) on "
                f"{'.'.join(table.name())}, found {len(tags)}: drop some (`k2 snapshot drop NAME`)"
            )

    def _until_swapped(self, table_name: str, change: _Change) -> SnapshotTag | None:
        """Try until a change is in; it is made anew on each head, so that an unknown outcome is harmless."""
        failure: Exception | None = None
        for _ in attempts(self._settings, self._clock):
            table = self._tables.load(table_name)
            tag, update = change(table)
            if update is None:
                return tag
            try:
                with translated(f"changing the tags of {table_name}"):
                    swap(table, (update,))
            except K2Error as error:
                if not isinstance(error.__cause__, CommitFailedException):
                    raise
                failure = error
            else:
                return tag
        raise UnavailableError(
            f"changing the tags of {table_name}: commits were faster each time: {failure}; try again",
            dependency="catalog",
        )
