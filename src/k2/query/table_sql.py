"""Read-only SQL over the committed tables: one SELECT, in a DuckDB that is locked to the warehouse's files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from k2.common.errors import QueryError
from k2.query.scan import FILES, files_literal, files_source
from k2.schemas.arrow import arrow_schema
from k2.schemas.records import DEAD_LETTERS, GAPS, RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from k2.query.scan import Scanner
    from k2.schemas.records import RecordType
    from k2.storage.file_checks import FileChecks
    from k2.storage.planning import PlannedFile

_EXPLAIN: Final = re.compile(r"\s*EXPLAIN\s+(?:ANALYZE\s+)?(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_HINTED: Final = (duckdb.BinderException, duckdb.CatalogException)
_COMPUTED: Final = "query"
"""What DuckDB's functions that run a text, or read a table named by one, have in their names."""
_LINES_MAX: Final = 8
_LINE_CHARACTERS_MAX: Final = 400
_VIEWS: Final[Mapping[str, RecordType]] = {**RECORD_TYPES, DEAD_LETTERS.name: DEAD_LETTERS, GAPS.name: GAPS}


class TableSql:
    """Runs statements over the views `trades`, `quotes`, `dead_letters` and `gaps` (also in the schema `market`).

    The views show the snapshots that were the newest when this was made. `files_of` plans a table's data files, and
    `checks` sees that those of the tables that a statement names are what was written, before it runs.
    """

    def __init__(self, scanner: Scanner, files_of: Callable[[str], Sequence[PlannedFile]], checks: FileChecks) -> None:
        self._scanner = scanner
        self._checks = checks
        self._files = {name: files_of(name) for name in _VIEWS}
        scanner.fetch("CREATE SCHEMA market", {})
        for name, record_type in _VIEWS.items():
            files = [file.path for file in self._files[name]]
            if files:
                scanner.fetch(f"CREATE VIEW market.{name} AS SELECT * FROM {_source(record_type, files)}", {})  # noqa: S608 - names are ours
            else:
                empty = {"empty": arrow_schema(record_type).empty_table()}
                scanner.fetch(f"CREATE TABLE market.{name} AS SELECT * FROM empty", {}, tables=empty)  # noqa: S608 - names are ours
            scanner.fetch(f"CREATE VIEW {name} AS SELECT * FROM market.{name}", {})  # noqa: S608 - names are ours

    def __call__(self, query: str) -> pa.Table:
        """Return the rows of one SELECT (WITH, DESCRIBE, SUMMARIZE, SHOW, EXPLAIN of one).

        Raises:
            QueryError: it is anything else, or DuckDB refuses it.
            CorruptionError: a data file of a table that it names is not what was written; the file is named.
        """
        self.check(query)
        try:
            return _finite(self._scanner.fetch(query, {}))
        except QueryError as error:
            if isinstance(error.__cause__, _HINTED):
                raise QueryError(
                    f"the question could not be run: {_told(error.__cause__)}\n"
                    "`SHOW TABLES` lists the tables, `DESCRIBE trades` the columns of one"
                ) from error
            raise

    def check(self, query: str) -> None:
        """See that a statement only reads, and reads what was written; running it later looks at no file again.

        Raises:
            QueryError: it is no SELECT.
            CorruptionError: a data file of a table that it names is not what was written.
        """
        require_one_select(query)
        for name in _tables_of(query):
            self._checks.require(self._files[name])

    def close(self) -> None:
        """Close DuckDB."""
        self._scanner.close()


def require_one_select(query: str) -> None:
    """Refuse what is not one statement that only reads: an EXPLAIN ANALYZE runs what it explains, a COPY for one."""
    kinds = _kinds(query)
    if kinds == [duckdb.StatementType.EXPLAIN]:
        explained = _EXPLAIN.fullmatch(query)
        kinds = _kinds(explained["rest"]) if explained else []
    if kinds != [duckdb.StatementType.SELECT]:
        found = ", ".join(kind.name for kind in kinds) or "none that can be told"
        raise QueryError(
            f"expected one SELECT, WITH, DESCRIBE, SUMMARIZE or EXPLAIN of one, found {found}: the tables are read only"
        )


def _tables_of(query: str) -> list[str]:
    """Return the tables that a statement may read: those whose names stand in it, or all where it computes names."""
    text = query.lower()
    return [name for name in _VIEWS if name in text or _COMPUTED in text]


def _kinds(query: str) -> list[duckdb.StatementType]:
    try:
        statements = duckdb.extract_statements(query)
    except duckdb.Error as error:
        raise QueryError(f"the SQL cannot be read: {_told(error)}") from error
    if any(statement.named_parameters for statement in statements):
        raise QueryError("expected SQL with its values written out, found parameters")
    return [statement.type for statement in statements]


def _told(error: duckdb.Error) -> str:
    """Return what DuckDB says, with the names that it proposes and the place that it points at."""
    lines = [line.rstrip()[:_LINE_CHARACTERS_MAX] for line in str(error).strip().splitlines() if line.strip()]
    return "\n".join(lines[:_LINES_MAX])


def _finite(rows: pa.Table) -> pa.Table:
    """Refuse DuckDB's infinite dates and times: beyond DuckDB they are numbers without a meaning."""
    for field, column in zip(rows.schema, rows.columns, strict=True):
        for kind, numbers in ((pa.date32(), pa.int32()), (pa.timestamp("us", tz=_zone(field.type)), pa.int64())):
            if field.type == kind:
                most = 2 ** (numbers.bit_width - 1) - 1
                if pc.any(pc.is_in(column.cast(numbers), pa.array([most, -most], numbers))).as_py():
                    raise QueryError(
                        f"the column {field.name!r} holds an infinite {field.type}, which no format can carry: leave "
                        f"it out, or turn it into text with {field.name}::VARCHAR"
                    )
    return rows


def _zone(kind: pa.DataType) -> str | None:
    return kind.tz if pa.types.is_timestamp(kind) else None


def _source(record_type: RecordType, files: Sequence[str]) -> str:
    return files_source(record_type).replace(FILES, files_literal(files))
