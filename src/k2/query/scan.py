"""Reads planned Parquet files together with rows in memory, through a DuckDB that can reach nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import duckdb

from k2.common.errors import (
    ConfigurationError,
    CorruptionError,
    K2Error,
    OverloadedError,
    QueryError,
    UnavailableError,
)
from k2.query.object_store import SCHEME, open_object_store
from k2.query.sql_text import quoted_text
from k2.schemas.records import FieldType, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow as pa

    from k2.query.object_store import S3Access

FILES: Final = "<files>"
"""What stands for the data files in a statement."""
_TYPES: Final = {
    FieldType.STRING: "VARCHAR",
    FieldType.STRINGS: "VARCHAR[]",
    FieldType.INT: "INTEGER",
    FieldType.LONG: "BIGINT",
    FieldType.DATE: "DATE",
    FieldType.TIMESTAMP: "TIMESTAMP WITH TIME ZONE",
    FieldType.PRICE: "DECIMAL(28,12)",
    FieldType.QUANTITY: "DECIMAL(28,10)",
    FieldType.BINARY: "BLOB",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A predicate of fixed text, and the values bound to its names."""

    sql: str = "true"
    values: Mapping[str, Any] = field(default_factory=dict)  # Any: whatever DuckDB binds

    def __and__(self, other: Condition) -> Condition:
        """Return the predicate that both hold."""
        return Condition(f"{self.sql} AND {other.sql}", {**self.values, **other.values})


class Scanner:
    """One in-process DuckDB; each call runs on a cursor of its own, so threads may share it.

    Only files below `directories` can be opened; the configuration is locked, so no statement can widen that. Where
    they are not known yet, a function tells them at the first question.
    """

    def __init__(
        self,
        directories: Sequence[str] | Callable[[], Sequence[str]],
        *,
        memory_limit_bytes: int,
        threads: int,
        seconds_max: float,
        object_store: S3Access | None = None,
    ) -> None:
        self._config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": f"{memory_limit_bytes}B",
            "threads": threads,
        }
        self._seconds_max = seconds_max
        self._object_store = object_store
        self._directories = directories
        self._opening = threading.Lock()
        self._database: duckdb.DuckDBPyConnection | None = None
        if not callable(directories):
            self._cursor().close()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a cursor; the first call opens the database, once it can be told which files it may read."""
        with self._opening:
            if self._database is None:
                directories = self._directories() if callable(self._directories) else self._directories
                self._database = self._opened(_forms(directories))
            return self._database.cursor()

    def _opened(self, places: Sequence[str]) -> duckdb.DuckDBPyConnection:
        remote = [place for place in places if "://" in place]
        if remote and (self._object_store is None or not all(place.startswith(SCHEME) for place in remote)):
            raise ConfigurationError(f"expected a warehouse in local files or in S3 (s3://...), found {remote[0]}")
        database = duckdb.connect(":memory:", config=self._config)
        for statement in (
            # Global: each question runs on a cursor, which does not inherit what a session sets.
            "SET GLOBAL TimeZone = 'UTC'",
            "SET autoinstall_known_extensions = false",
            "SET autoload_known_extensions = false",
            "SET parquet_metadata_cache = true",
            # Data files are never changed after a commit names them, so a cached footer stays right.
            "SET validate_external_file_cache = 'NO_VALIDATION'",
            "SET temp_directory = ''",
            # Answers are sorted here or by the caller; keeping the files' order doubles the work of a narrow scan.
            "SET preserve_insertion_order = false",
        ):
            database.execute(statement)
        if remote and self._object_store is not None:
            open_object_store(database, self._object_store, remote)
        for statement in (
            f"SET allowed_directories = [{', '.join(map(quoted_text, places))}]",
            "SET enable_external_access = false",
            "SET lock_configuration = true",
        ):
            database.execute(statement)
        return database

    def fetch(
        self,
        sql: str,
        values: Mapping[str, Any],
        *,
        files: Sequence[str] | None = None,
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pa.Table:
        """Run one statement of fixed text, with bound values and Arrow tables by name, and return its rows.

        `files` take the place of FILES in the text: bound, they would have DuckDB plan the statement twice.

        Raises:
            QueryError: it ran out of time or memory, or a number did not fit.
            CorruptionError: a file is damaged; the text names it.
            UnavailableError: a file cannot be read.
        """
        cursor = self._cursor()
        timer = threading.Timer(self._seconds_max, cursor.interrupt)
        timer.daemon = True
        timer.start()
        try:
            for name, table in (tables or {}).items():
                cursor.register(name, table)
            statement = sql if files is None else sql.replace(FILES, files_literal(files))
            return cursor.execute(statement, dict(values)).to_arrow_table()
        except duckdb.Error as error:
            raise self._translated(error) from error
        finally:
            timer.cancel()
            cursor.close()

    def close(self) -> None:
        """Close the database."""
        with self._opening:
            if self._database is not None:
                self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _translated(self, error: duckdb.Error) -> K2Error:
        text = str(error).strip().splitlines()[0]
        if isinstance(error, duckdb.InterruptException):
            return QueryError(
                f"the question took longer than {self._seconds_max:g} s (K2_QUERY__QUERY_SECONDS_MAX) and was ended: "
                "ask for a shorter range, or fewer columns"
            )
        if isinstance(error, duckdb.OutOfMemoryException):
            return OverloadedError(
                f"the question needs more memory than K2_QUERY__MEMORY_LIMIT_BYTES allows: ask for a shorter "
                f"range or a limit ({text})",
                dependency="duckdb",
            )
        if isinstance(error, duckdb.OutOfRangeException | duckdb.ConversionException):
            return QueryError(f"a number does not fit: {text}")
        if _is_unavailable(error, text):
            return UnavailableError(f"a data file cannot be read: {text}", dependency="warehouse")
        if isinstance(error, duckdb.IOException | duckdb.InvalidInputException | duckdb.SerializationException):
            return CorruptionError(f"a data file is missing or damaged: {text}", path=_named_file(text))
        return QueryError(f"the question could not be run: {text}")


def files_source(record_type: RecordType) -> str:
    """Return the SQL that reads FILES by field id, whatever columns each was written with."""
    columns = ", ".join(
        f"{field.field_id}: {{name: '{field.name}', type: '{_TYPES[field.type]}', default_value: NULL}}"
        for field in record_type.fields
    )
    return f"read_parquet({FILES}, schema = MAP {{{columns}}})"


def files_literal(files: Sequence[str]) -> str:
    """Return paths as a list in SQL."""
    return f"[{', '.join(map(quoted_text, files))}]"


def _is_unavailable(error: duckdb.Error, text: str) -> bool:
    """Say whether a file could not be had now, other than for what it holds; DuckDB tells the two apart in words."""
    if isinstance(error, duckdb.HTTPException) or " for HTTP " in text:
        return "HTTP 404" not in text
    return isinstance(error, duckdb.IOException) and "No files found" not in text and "arquet" not in text


def _forms(directories: Sequence[str]) -> list[str]:
    """Return the directories as files below them may be named: absolute, and with links resolved."""
    forms = []
    for path in directories:
        local = "://" not in path
        forms += [str(Path(path).absolute()), str(Path(path).resolve())] if local else [path]
    return [form.rstrip("/") + "/" for form in dict.fromkeys(forms)]


def _named_file(text: str) -> str:
    parts = text.split("'") if "'" in text else text.split('"')
    return next((part for part in parts if "/" in part), "unknown")
