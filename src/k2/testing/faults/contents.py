"""What a table says, whatever the files and commits that it came in: its rows less what only a commit can know."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from k2.storage.tables import MarketTables

_OF_COMMITS: Final = {
    "trades": {"commit_sequence", "written_by"},
    "quotes": {"commit_sequence", "written_by"},
    "gaps": {"commit_sequence", "decided_offset", "ts_recorded"},
}
"""Columns that tell when or by which commit a row was written; where commits fall is no part of what it says."""


@dataclass(frozen=True, slots=True)
class Content:
    """The rows of a table as texts, in an order of their own."""

    table: str
    rows: tuple[str, ...]

    @property
    def sha256(self) -> str:
        """A hash of the rows: equal for two tables that say the same."""
        return hashlib.sha256("\n".join(self.rows).encode()).hexdigest()


def content_of(tables: MarketTables, name: str) -> Content:
    """Read a whole table."""
    table = tables.load(name)
    columns = sorted({field.name for field in table.schema().fields} - _OF_COMMITS[name])
    rows = table.scan(selected_fields=tuple(columns)).to_arrow().select(columns).to_pylist()
    return Content(name, tuple(sorted(repr(tuple(row.values())) for row in rows)))


def difference(found: Content, expected: Content) -> list[str]:
    """Return in words how one table differs from another; nothing if their hashes are equal."""
    if found.sha256 == expected.sha256:
        return []
    here, there = Counter(found.rows), Counter(expected.rows)
    more, less = list((here - there).elements()), list((there - here).elements())
    text = (
        f"{found.table}: {len(more)} rows of {len(found.rows)} are not in the undisturbed table, {len(less)} of its "
        f"{len(expected.rows)} are missing; the first is {(more + less)[0]}"
    )
    return [text]
