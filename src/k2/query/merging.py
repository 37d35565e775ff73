"""Merges the two sides of an answer, cut at the seam: the statement for the table's rows, and the order of both.

Statements consist of fixed text and the names of known columns; every value is bound (so S608 does not apply).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from k2.common.errors import QueryError
from k2.query.scan import Condition, files_source
from k2.query.sql_text import quoted_columns
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import ORDER, Origin, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from k2.query.certificate import PartitionRead
    from k2.query.prefix import Prefix
    from k2.query.request import QueryRequest, RowKey, Since

FROM_LOG: Final = "k2_from_log"
"""Column that says which side a row came from; not part of the answer."""

_SCHEMAS_KEPT_MAX: Final = 256
"""Schemas of answers that are kept: most questions ask for the same columns, and each needs its schema twice."""

Rows = TypeVar("Rows", pl.DataFrame, pl.LazyFrame)


def answer_columns(record_type: RecordType, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the columns of an answer, in the order asked for; QueryError if one does not exist."""
    known = [field.name for field in record_type.fields]
    if names is None:
        return tuple(known)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise QueryError(
            f"expected columns of {record_type.name} ({', '.join(known)}), found {', '.join(unknown) or 'none'}"
        )
    return tuple(dict.fromkeys(names))


def answer_schema(record_type: RecordType, columns: Iterable[str]) -> pa.Schema:
    """Return the Arrow schema of an answer: the table's, but rows that no commit has stored have no commit columns."""
    return _answer_schema(record_type, tuple(dict.fromkeys(columns)))


@lru_cache(maxsize=_SCHEMAS_KEPT_MAX)
def _answer_schema(record_type: RecordType, columns: tuple[str, ...]) -> pa.Schema:
    schema = arrow_schema(record_type)
    fields = []
    for name in columns:
        field = schema.field(name).remove_metadata()
        commit = record_type.field(name).origin is Origin.COMMIT
        fields.append(field.with_nullable(True) if commit else field)
    return pa.schema(fields)


def matching(request: QueryRequest, start_ns: int | None, end_ns: int | None) -> Condition:
    """Return what rows of both sides must satisfy."""
    condition = Condition("symbol = $symbol", {"symbol": request.symbol})
    if request.exchange is not None:
        condition &= Condition("exchange = $exchange", {"exchange": request.exchange})
    if start_ns is not None:
        condition &= Condition("ts_event_ns >= $start_ns", {"start_ns": start_ns})
    if end_ns is not None:
        condition &= Condition("ts_event_ns < $end_ns", {"end_ns": end_ns})
    after = request.after
    if after is not None:
        values = {f"after_{number}": value for number, value in enumerate(_key(after))}
        places = ", ".join(f"${name}" for name in values)
        # The first part is implied by the second; files and row groups are skipped by it.
        condition &= Condition(f"ts_event_ns >= $after_0 AND ({', '.join(ORDER)}) > ({places})", values)
    return condition if request.since is None else condition & _not_read(request.since)


def log_rows(frames: Sequence[pl.DataFrame], request: QueryRequest, prefix: Prefix) -> pl.DataFrame | None:
    """Return the log's rows as one frame, None if there are none; the frames hold only the symbol's rows."""
    if not frames:
        return None
    rows = prefix.logged(pl.concat(frames))
    if request.exchange is not None:
        rows = rows.filter(pl.col("exchange") == request.exchange)
    return rows if rows.height else None


def in_range(start_ns: int | None, end_ns: int | None) -> pl.Expr:
    """Say of each row whether its event time lies in a half-open range; None: it has no such end."""
    found = pl.lit(value=True)
    if start_ns is not None:
        found &= pl.col("ts_event_ns") >= start_ns
    if end_ns is not None:
        found &= pl.col("ts_event_ns") < end_ns
    return found


def within(rows: Rows, request: QueryRequest, start_ns: int | None, end_ns: int | None) -> Rows:
    """Return the rows in the range, after the place where a page begins: as `matching` says it in SQL."""
    rows = rows.filter(in_range(start_ns, end_ns))
    if request.after is not None:
        rows = rows.filter(_after(_key(request.after)))
    if request.since is not None:
        rows = rows.filter(~pl.any_horizontal(pl.lit(value=False), *map(_is_read, request.since.ends)))
    return rows


def rows_statement(
    record_type: RecordType, names: Sequence[str], condition: Condition, *, limit: int, ordered: bool
) -> tuple[str, dict[str, Any]]:
    """Return the statement that yields the table's rows, and its values.

    No offset is compared: files hold only rows below the seam of the commit that added them, and the pinned snapshot's
    files were all added by its ancestors, so they are below its seam. The log's rows are from the seam on, or of ranges
    that the snapshot lists as deferred, and has no rows of. So each coordinate comes from exactly one side.
    """
    selected, source = ", ".join(quoted_columns(names)), files_source(record_type)
    order = f"ORDER BY {', '.join(ORDER)} " if ordered else ""
    statement = f"SELECT {selected} FROM {source} WHERE {condition.sql} {order}LIMIT $limit"  # noqa: S608  # names are ours
    return statement, {**condition.values, "limit": limit}


def merged(stored: pa.Table | None, logged: pl.DataFrame | None, schema: pa.Schema) -> pa.Table:
    """Return the rows of both sides in order, with the columns of `schema` and one that says which side they are from.

    Stored rows alone are in order already.
    """
    sides = []
    if stored is not None:
        sides.append(_side(stored, schema, from_log=False))
    if logged is not None:
        names = [name for name in schema.names if name in logged.columns]
        sides.append(_side(logged.select(names).to_arrow(), schema, from_log=True))
    if logged is None:
        return sides[0] if sides else _side(schema.empty_table(), schema, from_log=False)
    rows = pa.concat_tables(sides)
    return rows.take(pc.sort_indices(rows.select(list(ORDER)), sort_keys=[(name, "ascending") for name in ORDER]))


def until_last_stored(rows: pa.Table) -> pa.Table:
    """Return merged rows up to the last that is from the table: what follows may not be the next."""
    stored = ~pl.Series(rows[FROM_LOG])
    return rows.slice(0, (stored.arg_true().max() or 0) + 1)  # type: ignore[operator]  # polars types a maximum loosely


def _side(rows: pa.Table, schema: pa.Schema, *, from_log: bool) -> pa.Table:
    count = rows.num_rows
    columns = [
        _as(rows[field.name], field.type) if field.name in rows.column_names else pa.nulls(count, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema).append_column(FROM_LOG, pa.repeat(pa.scalar(from_log), count))


def _as(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def newest_statement(record_type: RecordType, condition: Condition) -> str:
    """Return the statement that yields the time of the newest row of the files."""
    return f"SELECT max(ts_event_ns) AS newest FROM {files_source(record_type)} WHERE {condition.sql}"  # noqa: S608  # names are ours


def strays_in(rows: pa.Table, partitions: Sequence[PartitionRead]) -> set[int]:
    """Return the ids of logs of which rows came from partitions that were not to be read."""
    read = {(item.log_id, item.partition) for item in partitions}
    ends = [pc.min_max(rows[name]).as_py() for name in ("log_id", "log_partition")]
    if all(end["min"] == end["max"] for end in ends):
        only = ends[0]["min"], ends[1]["min"]
        return set() if only[0] is None or only in read else {only[0]}
    pairs = rows.select(["log_id", "log_partition"]).group_by(["log_id", "log_partition"]).aggregate([])
    found = zip(pairs["log_id"].to_pylist(), pairs["log_partition"].to_pylist(), strict=True)
    return {log_id for log_id, partition in found if (log_id, partition) not in read}


def _not_read(since: Since) -> Condition:
    clauses: list[str] = []
    values: dict[str, int] = {}
    for number, (log_id, partition, end) in enumerate(since.ends):
        values |= {f"sl{number}": log_id, f"sp{number}": partition, f"se{number}": end}
        clauses.append(f"(log_id = $sl{number} AND log_partition = $sp{number} AND log_offset < $se{number})")
    return Condition(f"NOT ({' OR '.join(clauses) or 'false'})", values)


def _is_read(entry: tuple[int, int, int]) -> pl.Expr:
    log_id, partition, end = entry
    return (pl.col("log_id") == log_id) & (pl.col("log_partition") == partition) & (pl.col("log_offset") < end)


def _after(place: Sequence[int]) -> pl.Expr:
    """Return whether a row's key is greater than `place`, compared column by column."""
    later = pl.lit(value=False)
    for name, value in reversed(list(zip(ORDER, place, strict=True))):
        later = (pl.col(name) > value) | ((pl.col(name) == value) & later)
    return later


def _key(after: RowKey) -> tuple[int, int, int, int]:
    return after.ts_event_ns, after.log_id, after.log_partition, after.log_offset
