"""The rows of bars that are not taken from files as they are: the log's, and those that amendments concern."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.query.bars.statement import ADDED, TRADE
from k2.query.merging import FROM_LOG
from k2.query.scan import Condition
from k2.schemas.amendments import PLACE
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import TRADES, Action

if TYPE_CHECKING:
    from collections.abc import Sequence

    from k2.query.amending import AmendedRow

_LEGACY: Final = pl.CompatLevel.oldest()
_ADDED_TYPES: Final = {name: pa.int64() if name == "records" else pa.bool_() for name in ADDED}
_SCHEMA: Final = pa.schema(
    [arrow_schema(TRADES).field(name).remove_metadata() for name in TRADE] + list(_ADDED_TYPES.items())
)


def concerned(trade_ids: Sequence[str]) -> tuple[Condition, pl.Expr]:
    """Return which rows amendments with these ids may concern, of files and in memory: they themselves as well."""
    stored = Condition(
        f"(action <> '{Action.NEW}' OR coalesce(trade_id IN (SELECT unnest($amended_ids::VARCHAR[])), false))",
        {"amended_ids": list(trade_ids)},
    )
    ids = pl.Series(trade_ids, dtype=pl.String).implode()
    logged = (pl.col("action") != Action.NEW) | pl.col("trade_id").is_in(ids).fill_null(value=False)
    return stored, logged


def memory_of(
    logged: pl.DataFrame | None,
    *,
    rows: pa.Table | None = None,
    shown: pa.Table | None = None,
    amended: Sequence[AmendedRow] = (),
) -> pa.Table:
    """Return the log's rows that nothing amends, with those of `rows` as they are `shown`.

    What an amendment changed is here once as it was and once for each amendment, for the count of records only: these
    are not shown, and the bar that they are in is amended.
    """
    parts = [_SCHEMA.empty_table()]
    if logged is not None:
        parts.append(_part(logged.select(TRADE).to_arrow(compat_level=_LEGACY), from_log=True))
    if rows is not None and shown is not None:
        originals = {item.number for item in amended}
        places = {_place(rows, number) for number in originals}
        is_change = pa.array([_place(shown, number) in places for number in range(shown.num_rows)], pa.bool_())
        parts.append(
            _part(
                shown,
                from_log=shown[FROM_LOG],
                amended=pc.or_(is_change, pc.not_equal(shown["action"], Action.NEW)),
                records=pc.if_else(is_change, 0, 1),
            )
        )
        before = rows.take(pa.array(sorted(originals), pa.int64()))
        parts.append(_part(before, from_log=before[FROM_LOG], shown=False, amended=True))
        parts.append(_amendments(rows, amended))
    return pa.concat_tables(parts)


def _amendments(rows: pa.Table, amended: Sequence[AmendedRow]) -> pa.Table:
    """Return one row an amendment, with what its original was and its own place in the log."""
    found = rows.take(pa.array([item.number for item in amended], pa.int64()))
    for at, name in enumerate(PLACE):
        column = found.schema.get_field_index(name)
        field = found.schema.field(column)
        found = found.set_column(column, field, pa.array([item.place[at] for item in amended], field.type))
    return _part(found, from_log=pa.array([item.from_log for item in amended], pa.bool_()), shown=False, amended=True)


def _part(
    rows: pa.Table,
    *,
    from_log: pa.ChunkedArray | pa.Array | bool,
    shown: bool = True,
    amended: pa.ChunkedArray | pa.Array | bool = False,
    records: pa.ChunkedArray | pa.Array | int = 1,
) -> pa.Table:
    added = {"from_log": from_log, "shown": shown, "amended": amended, "records": records}
    columns = [rows[name].cast(_SCHEMA.field(name).type) for name in TRADE]
    for name, kind in _ADDED_TYPES.items():
        value = added[name]
        whole = pa.repeat(pa.scalar(value, kind), rows.num_rows) if isinstance(value, int) else value.cast(kind)
        columns.append(whole)
    return pa.table(columns, schema=_SCHEMA)


def _place(rows: pa.Table, number: int) -> tuple[int, ...]:
    return tuple(rows[name][number].as_py() for name in PLACE)
