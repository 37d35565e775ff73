"""One conditional append to a table, and the bounded loop around it that conflicts and unknown outcomes need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k2.common.errors import ConfigurationError
from k2.storage.table_creation import RETRIES_PROPERTY

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pyiceberg.manifest import DataFile
    from pyiceberg.table import Table

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings


def append(
    table: Table,
    *,
    files: Iterable[DataFile] = (),
    summary: Mapping[str, str],
    properties: Mapping[str, str] | None = None,
) -> None:
    """Append files, summary and table properties in one swap, on condition that `main` is where `table` saw it.

    Raises CommitFailedException where it certainly did not happen; after any other error the outcome is unknown.
    """
    require_no_rebase(table)
    with table.transaction() as transaction:
        if properties:
            transaction.set_properties(dict(properties))
        with transaction.update_snapshot(snapshot_properties=dict(summary)).merge_append() as update:
            for file in files:
                update.append_data_file(file)


def require_no_rebase(table: Table) -> None:
    """Refuse a table on which PyIceberg would rebase a stale writer onto a newer head: that doubles rows."""
    found = table.properties.get(RETRIES_PROPERTY)
    if found != "0":
        raise ConfigurationError(
            f"expected the property {RETRIES_PROPERTY}=0 on {'.'.join(table.name())}, found {found or 'none'}: with it "
            "a stale writer would be accepted and rows doubled; set it to 0 and start again"
        )


def attempts(settings: CatalogSettings, clock: Clock) -> Iterator[int]:
    """Yield 1, 2, ... with a growing pause between, until the settings' number or time is used up."""
    deadline = clock.monotonic() + settings.commit_timeout_seconds
    pause = settings.commit_pause_seconds
    for attempt in range(1, settings.commit_attempts_max + 1):
        yield attempt
        if clock.monotonic() + pause >= deadline:
            return
        clock.sleep(pause)
        pause = min(pause * 2, settings.commit_pause_max_seconds)
