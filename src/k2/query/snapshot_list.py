"""The snapshots that the tables still have, as rows for every form in which they are written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

from k2.query.as_of import SNAPSHOT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.storage.named_snapshots import KeptSnapshot

SCHEMA: Final = pa.schema(
    [
        pa.field("table", pa.string(), nullable=False),
        pa.field("as_of", pa.string(), nullable=False),
        pa.field("tags", pa.list_(pa.string()), nullable=False),
        pa.field("kept_until", pa.timestamp("us", "UTC")),
        pa.field("committed_at", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("commit_sequence", pa.int64(), nullable=False),
        pa.field("operation", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("newest", pa.bool_(), nullable=False),
    ]
)
"""`as_of` is what a question takes; `kept_until` is when the last of the tags ends, null for a tag that does not."""


def snapshots_table(found: Sequence[KeptSnapshot]) -> pa.Table:
    """Return one row a snapshot, in the order given."""
    return pa.Table.from_pylist([_row(each) for each in found], SCHEMA)


def _row(each: KeptSnapshot) -> dict[str, object]:
    untils = [tag.until_ns for tag in each.tags]
    last_ns = max((until for until in untils if until is not None), default=None)
    return {
        "table": each.head.table_name,
        "as_of": f"{SNAPSHOT}{each.snapshot_id}",
        "tags": [tag.name for tag in each.tags],
        "kept_until": None if last_ns is None or None in untils else last_ns // 1_000,
        "committed_at": each.committed_at_ns // 1_000,
        "commit_sequence": each.head.seam.commit_sequence,
        "operation": each.operation,
        "rows": each.rows,
        "newest": each.is_newest,
    }
