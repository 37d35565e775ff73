"""Writes an answer to a terminal, a pipe or a file: data to standard output, what is said of it to standard error."""

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
from k2.cli.ages import freshness
from k2.common.errors import ConfigurationError, QueryError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

ROWS_SHOWN: Final = 40
_BINARY: Final = frozenset({"parquet", "arrow"})
_SHOWN_FIRST: Final = ("ts_event", "bar_start", "exchange", "symbol")
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
_CELL_CHARACTERS: Final = 24
"""Characters of a text that a table shows where it is wider than the terminal: a hash stays recognisable."""


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


def write(
    table: pa.Table,
    certificate: dict[str, Any] | None,
    format_name: str,
    output: Path | None,
    *,
    rows_shown: int = ROWS_SHOWN,
) -> None:
    """Write the answer in the form asked for, a table with at most `rows_shown` of its rows.

    Of a file, one line says what it holds; through a pipe, the certificate of CSV, Parquet and Arrow goes to standard
    error.
    """
    table = table.rename_columns(distinct_names(table.column_names))
    if format_name == "table":
        _show(table, certificate, rows_shown)
        return
    parts = FORMATS[format_name][1](Page(table, certificate))
    if format_name == "json":
        parts = chain(parts, [b"\n"])
    try:
        if output is None:
            _send(parts)
        else:
            save(parts, output)
    except pa.ArrowNotImplementedError as error:
        raise QueryError(f"{format_name} has no form for one of the columns ({error}): cast it to text") from error
    if output is not None:
        said = "" if certificate is None else f", {_state(certificate)}"
        sys.stderr.write(f"{_counted(table.num_rows)} written to {output}{said}\n")
    elif certificate is not None and format_name != "json":
        sys.stderr.write(json.dumps(certificate) + "\n")


def _send(parts: Iterator[bytes]) -> None:
    try:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever reads has seen enough: `k2 trades ... | head`
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - so that the last flush is quiet


def save(parts: Iterator[bytes], output: Path) -> None:
    """Write the file whole or not at all; a link keeps pointing where it does, and a device or pipe is written to."""
    if output.exists() and not output.is_file() and not output.is_dir():
        _pass_on(parts, output)
        return
    output = output.resolve()
    unfinished = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        _pass_on(parts, unfinished)
        unfinished.replace(output)
    except OSError as error:
        raise _not_written(output, error) from error
    finally:
        with suppress(OSError):
            unfinished.unlink()


def _pass_on(parts: Iterator[bytes], output: Path) -> None:
    try:
        with output.open("wb") as file:
            for part in parts:
                file.write(part)
    except OSError as error:
        raise _not_written(output, error) from error


def _not_written(output: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(f"cannot write {output}: {error.strerror}; free space, or name another --output")


def _show(table: pa.Table, certificate: dict[str, Any] | None, rows_shown: int) -> None:
    """Show an answer's newest rows, of any other table the first."""
    shown = table.slice(0 if certificate is None else max(0, table.num_rows - rows_shown), rows_shown)
    names = table.column_names if certificate is None else _names_shown(shown)
    texts = as_text(shown.select(names), lists_as_text=True) if names else None
    width = None if is_terminal() else _PIPE_WIDTH
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    rows = [["" if value is None else str(value) for value in row] for row in ([] if texts is None else texts.rows())]
    if is_terminal() and _width(names, rows) > console.width:
        rows = [[_shortened(cell) for cell in row] for row in rows]
    grid = Table(box=None, pad_edge=False)
    for name in names:
        right = _is_number(table.schema.field(name).type)
        grid.add_column(
            name, justify="right" if right else "left", no_wrap=True, overflow="fold" if right else "ellipsis"
        )
    for row in rows:
        grid.add_row(*row)
    console.print(grid)
    if shown.num_rows < table.num_rows:
        end = "first" if certificate is None else "last"
        console.print(
            f"the {end} {shown.num_rows:,} of {table.num_rows:,} rows; --format csv, json, parquet or arrow gives all"
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
    bars = certificate.get("bars")
    of_bars = "" if bars is None else f"{bars['bars']:,} bars of "
    console.print(
        f"{of_bars}{_counted(certificate['rows'])} ({certificate['rows_from_table']:,} from the table, "
        f"{certificate['rows_from_log']:,} from the log), {_state(certificate)}"
    )


def _counted(rows: int) -> str:
    return f"{rows:,} row" if rows == 1 else f"{rows:,} rows"


def _state(certificate: dict[str, Any]) -> str:
    """Return what a person must know of an answer: cut or not, complete or why not, how fresh."""
    cut = "cut by --limit, " if certificate["truncated"] else ""
    amended = "".join(f"{certificate[name]:,} {name}, " for name in ("cancelled", "corrected") if certificate.get(name))
    complete = "complete" if certificate["complete"] else "NOT complete: " + "; ".join(certificate["reasons"])
    return f"{cut}{amended}{_behind(certificate)}{complete}{freshness(certificate['newest_record_age_seconds'])}"


def _behind(certificate: dict[str, Any]) -> str:
    """Return how far behind the log an answer is that ends before it; nothing of one that does not."""
    if not certificate.get("stale"):
        return ""
    seconds = certificate["staleness_seconds"]
    return "stale, " if seconds is None else f"stale (up to {seconds:,.1f} s behind the log), "


def _width(names: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Return how many characters a line of the table takes, with one between two columns."""
    return sum(max(map(len, column)) + 1 for column in zip(names, *rows, strict=True))


def _shortened(cell: str) -> str:
    """Return a long text without its end; one of several lines is a drawing, and stays."""
    return cell if len(cell) <= _CELL_CHARACTERS or "\n" in cell else cell[: _CELL_CHARACTERS - 1] + "…"


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))
