"""Writes an answer to a terminal, a pipe or a file: data to standard output, the certificate to standard error."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.table import Table

from k2.api.formats import FORMATS, Page, plain
from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

ROWS_SHOWN: Final = 40
_BINARY: Final = frozenset({"parquet", "arrow"})
_HIDDEN: Final = frozenset(
    [
        "ts_event_ns",
        "ts_recv_ns",
        "source",
        "source_sequence",
        "channel",
        "sub_index",
        "ref_trade_id",
        "extra",
        "ts_log",
        "commit_sequence",
        "written_by",
        "log_id",
        "trading_date",
        "action",
    ]
)


def require_writable(format_name: str, output: Path | None) -> None:
    """Refuse to write bytes to a terminal, or to a directory that is not there."""
    if format_name in _BINARY and output is None and sys.stdout.isatty():
        raise ConfigurationError(f"expected --output or a pipe for {format_name}, found a terminal")
    if output is not None and not output.parent.is_dir():
        raise ConfigurationError(f"expected the directory of --output to exist, found none at {output.parent}")


def write(table: pa.Table, certificate: dict[str, Any] | None, format_name: str, output: Path | None) -> None:
    """Write the answer in the form asked for."""
    if format_name == "table":
        _show(table, certificate, output)
        return
    body = FORMATS[format_name][1](Page(table, certificate or {}, None))
    if output is not None:
        try:
            output.write_bytes(body)
        except OSError as error:
            raise ConfigurationError(f"cannot write {output}: {error.strerror}") from error
    else:
        sys.stdout.buffer.write(body)
        sys.stdout.flush()
    if certificate is not None and format_name != "json":
        sys.stderr.write(json.dumps(certificate) + "\n")


def _show(table: pa.Table, certificate: dict[str, Any] | None, output: Path | None) -> None:
    if output is not None:
        raise ConfigurationError("expected --format with --output (json, csv, parquet or arrow), found none")
    hidden = _HIDDEN if certificate is not None else frozenset()
    names = [name for name in table.column_names if name not in hidden]
    shown = table.select(names).slice(max(0, len(table) - ROWS_SHOWN))
    grid = Table(box=None, pad_edge=False)
    for name in names:
        grid.add_column(name, justify="right" if _is_number(table.schema.field(name).type) else "left")
    for row in shown.to_pylist():
        grid.add_row(*(_text(value) for value in row.values()))
    console = Console(soft_wrap=not sys.stdout.isatty())
    console.print(grid)
    if len(shown) < len(table):
        console.print(f"the last {len(shown)} of {len(table):,} rows; --format csv, json, parquet or arrow gives all")
    if certificate is not None:
        _show_certificate(console, certificate)


def _show_certificate(console: Console, certificate: dict[str, Any]) -> None:
    state = "complete" if certificate["complete"] else "NOT complete: " + "; ".join(certificate["reasons"])
    age = certificate["newest_record_age_seconds"]
    freshness = "" if age is None else f", newest record {age:,.1f} s old"
    console.print(
        f"{certificate['rows']:,} rows ({certificate['rows_from_table']:,} from the table, "
        f"{certificate['rows_from_log']:,} from the log), {state}{freshness}"
    )


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_decimal(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    return " ".join(value) if isinstance(value, list) else str(value)
