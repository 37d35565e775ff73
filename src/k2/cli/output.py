"""Writes an answer to a terminal, a pipe or a file: data to standard output, the certificate to standard error."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
from rich.console import Console
from rich.table import Table

from k2.api.formats import FORMATS, Page
from k2.api.text_columns import as_text, distinct_names
from k2.common.errors import ConfigurationError, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS_SHOWN: Final = 40
_BINARY: Final = frozenset({"parquet", "arrow"})
_SHOWN_FIRST: Final = ("ts_event", "exchange", "symbol")
_HIDDEN: Final = frozenset(
    [
        "ts_event_ns",
        "ts_recv_ns",
        "source",
        "source_sequence",
        "sub_index",
        "extra",
        "ts_log",
        "commit_sequence",
        "written_by",
        "log_id",
        "log_partition",
        "log_offset",
        "trading_date",
    ]
)
"""Columns of an answer that its table leaves out; the other forms have them."""
_PIPE_WIDTH: Final = 500


def is_terminal() -> bool:
    """Say whether a person looks at standard output."""
    return sys.stdout.isatty()


def require_writable(format_name: str, output: Path | None) -> None:
    """Refuse bytes on a terminal, a table in a file, a directory that is not there: before the question is asked."""
    if format_name == "table" and output is not None:
        raise ConfigurationError("expected --format json, csv, parquet or arrow with --output, found the format table")
    if format_name in _BINARY and output is None and is_terminal():
        raise ConfigurationError(f"expected --output or a pipe for {format_name}, found a terminal")
    if output is not None and not output.parent.is_dir():
        raise ConfigurationError(f"expected the directory of --output to exist, found none at {output.parent}")


def write(table: pa.Table, certificate: dict[str, Any] | None, format_name: str, output: Path | None) -> None:
    """Write the answer in the form asked for; the certificate of CSV, Parquet and Arrow also to standard error."""
    table = table.rename_columns(distinct_names(table.column_names))
    if format_name == "table":
        _show(table, certificate)
        return
    parts = FORMATS[format_name][1](Page(table, certificate))
    if format_name == "json":
        parts = chain(parts, [b"\n"])
    try:
        if output is None:
            _send(parts)
        else:
            _save(parts, output)
    except pa.ArrowNotImplementedError as error:
        raise QueryError(f"{format_name} has no form for one of the columns ({error}): cast it to text") from error
    if certificate is not None and format_name != "json":
        sys.stderr.write(json.dumps(certificate) + "\n")


def _send(parts: Iterator[bytes]) -> None:
    try:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough: `k2 trades ... | head`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - so that the last flush is quiet


def _save(parts: Iterator[bytes], output: Path) -> None:
    """Write the file whole or not at all."""
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        with unfinished.open("wb") as file:
            for part in parts:
                file.write(part)
        unfinished.replace(output)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write {output}: {error.strerror}; free space, or name another --output"
        ) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _show(table: pa.Table, certificate: dict[str, Any] | None) -> None:
    shown = table.slice(max(0, table.num_rows - ROWS_SHOWN))
    names = table.column_names if certificate is None else _names_shown(shown)
    texts = as_text(shown.select(names), lists_as_text=True) if names else None
    grid = Table(box=None, pad_edge=False)
    for name in names:
        right = _is_number(table.schema.field(name).type)
        grid.add_column(
            name, justify="right" if right else "left", no_wrap=True, overflow="fold" if right else "ellipsis"
        )
    for row in [] if texts is None else texts.rows():
        grid.add_row(*("" if value is None else str(value) for value in row))
    width = None if is_terminal() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    console.print(grid)
    if shown.num_rows < table.num_rows:
        console.print(
            f"the last {shown.num_rows} of {table.num_rows:,} rows; --format csv, json, parquet or arrow gives all"
        )
    if certificate is not None:
        _show_certificate(console, certificate)


def _names_shown(table: pa.Table) -> list[str]:
    """Return the columns of an answer that say something to a person: times and names first, nothing that is empty."""
    names = [
        name
        for name in table.column_names
        if name not in _HIDDEN and (table.num_rows == 0 or table[name].null_count < table.num_rows)
    ]
    return sorted(names, key=lambda name: _SHOWN_FIRST.index(name) if name in _SHOWN_FIRST else len(_SHOWN_FIRST))


def _show_certificate(console: Console, certificate: dict[str, Any]) -> None:
    state = "complete" if certificate["complete"] else "NOT complete: " + "; ".join(certificate["reasons"])
    age = certificate["newest_record_age_seconds"]
    freshness = "" if age is None else f", newest record {age:,.1f} s old"
    cut = ", cut by --limit" if certificate["truncated"] else ""
    console.print(
        f"{certificate['rows']:,} rows ({certificate['rows_from_table']:,} from the table, "
        f"{certificate['rows_from_log']:,} from the log){cut}, {state}{freshness}"
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))
