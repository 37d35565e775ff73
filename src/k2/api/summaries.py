"""The list of symbols as a table, for every form in which it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.query.request import SymbolSummary

SCHEMA: Final = pa.schema(
    [
        ("data_type", pa.string()),
        ("exchange", pa.string()),
        ("symbol", pa.string()),
        ("rows", pa.int64()),
        ("first_ts_event_ns", pa.int64()),
        ("last_ts_event_ns", pa.int64()),
    ]
)
"""The fields of a SymbolSummary, in order."""


def summaries_table(found: Sequence[SymbolSummary]) -> pa.Table:
    """Return one row for each summary."""
    columns = [[getattr(entry, name) for entry in found] for name in SCHEMA.names]
    return pa.table([pa.array(column, kind.type) for column, kind in zip(columns, SCHEMA, strict=True)], schema=SCHEMA)
