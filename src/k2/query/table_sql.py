"""Read-only SQL over the committed tables: one SELECT, in a DuckDB that is locked to the warehouse's files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import duckdb

from k2.common.errors import QueryError
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    import pyarrow as pa

    from k2.query.ports import Plans

_ALLOWED: Final = frozenset({duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN})


class TableSql:
    """Runs one statement over the views `trades` and `quotes` (also as `market.trades`, `market.quotes`)."""

    def __init__(self, planner: Plans, directory: str, *, memory_limit_bytes: int, threads: int) -> None:
        self._planner = planner
        self._directory = directory
        self._memory_limit_bytes = memory_limit_bytes
        self._threads = threads

    def __call__(self, query: str) -> pa.Table:
        """Return the rows of one SELECT; QueryError for anything else, and for SQL that DuckDB refuses."""
        try:
            statements = duckdb.extract_statements(query)
        except duckdb.Error as error:
            raise QueryError(f"the SQL cannot be read: {_first_line(error)}") from error
        if len(statements) != 1 or statements[0].type not in _ALLOWED:
            raise QueryError("expected one SELECT (or EXPLAIN), found something else: the tables are read only")
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{self._memory_limit_bytes}B",
            "threads": self._threads,
        }
        with duckdb.connect(":memory:", config=config) as database:
            self._make_views(database)
            self._lock(database)
            try:
                return database.execute(statements[0]).to_arrow_table()
            except duckdb.Error as error:
                raise QueryError(f"the SQL could not be run: {_first_line(error)}") from error

    def _make_views(self, database: duckdb.DuckDBPyConnection) -> None:
        database.execute("SET TimeZone = 'UTC'")
        database.execute("CREATE SCHEMA market")
        for name, record_type in RECORD_TYPES.items():
            files = [file.path for file in self._planner.plan(self._planner.pin(name))]
            if files:
                listed = ", ".join("'" + path.replace("'", "''") + "'" for path in files)
                source = f"read_parquet([{listed}])"
            else:
                from k2.schemas.arrow import arrow_schema  # noqa: PLC0415 - only an empty table needs it

                empty = arrow_schema(record_type).empty_table()
                database.register(f"empty_{name}", empty)
                source = f"empty_{name}"
            columns = ", ".join(f'"{field.name}"' for field in record_type.fields)
            for view in (f"market.{name}", name):
                database.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM {source}")  # noqa: S608 - names are ours

    def _lock(self, database: duckdb.DuckDBPyConnection) -> None:
        directory = self._directory.replace("'", "''")
        database.execute(f"SET allowed_directories = ['{directory}']")
        database.execute("SET enable_external_access = false")
        database.execute("SET lock_configuration = true")


def _first_line(error: duckdb.Error) -> str:
    return str(error).strip().splitlines()[0]
