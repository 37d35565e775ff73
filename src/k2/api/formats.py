"""An answer as JSON, CSV, Parquet or an Arrow stream; numbers keep every digit."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from k2.api.problems import HttpProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

CERTIFICATE_KEY: Final = b"k2.certificate"
CURSOR_KEY: Final = b"k2.next_cursor"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows with what the envelope says of them."""

    table: pa.Table
    certificate: dict[str, Any]
    next_cursor: str | None


def plain(value: Decimal) -> str:
    """Return a decimal with every digit, no exponent, and no zeros at the end: 36.6670 is 36.667, 100.0 is 100."""
    text = f"{value:f}"
    return (text.rstrip("0").rstrip(".") or "0") if "." in text else text


def _as_json(page: Page) -> bytes:
    rows = [{name: _json_value(value) for name, value in row.items()} for row in page.table.to_pylist()]
    envelope = {"data": rows, "next_cursor": page.next_cursor, "certificate": page.certificate}
    return json.dumps(envelope, separators=(",", ":")).encode()


def _json_value(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def _as_csv(page: Page) -> bytes:
    columns = [_csv_column(column) for column in page.table.columns]
    sink = io.BytesIO()
    pa_csv.write_csv(pa.table(columns, names=page.table.column_names), sink)
    return sink.getvalue()


def _csv_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_decimal(column.type):
        text = pc.cast(column, pa.string())
        trimmed = pc.utf8_rtrim(pc.utf8_rtrim(text, "0"), ".")
        return pc.if_else(pc.match_substring(text, "."), trimmed, text)
    if pa.types.is_list(column.type):
        return pa.chunked_array(
            [pa.array([None if v is None else " ".join(v) for v in column.to_pylist()], pa.string())]
        )
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, "%Y-%m-%dT%H:%M:%SZ")
    return column


def _marked(page: Page) -> pa.Table:
    metadata = {**(page.table.schema.metadata or {}), CERTIFICATE_KEY: json.dumps(page.certificate).encode()}
    if page.next_cursor is not None:
        metadata[CURSOR_KEY] = page.next_cursor.encode()
    return page.table.replace_schema_metadata(metadata)


def _as_parquet(page: Page) -> bytes:
    sink = io.BytesIO()
    pq.write_table(_marked(page), sink, compression="zstd")
    return sink.getvalue()


def _as_arrow(page: Page) -> bytes:
    sink = io.BytesIO()
    table = _marked(page)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=65_536)
    return sink.getvalue()


FORMATS: Final[dict[str, tuple[str, Callable[[Page], bytes]]]] = {
    "json": ("application/json", _as_json),
    "csv": ("text/csv", _as_csv),
    "parquet": ("application/vnd.apache.parquet", _as_parquet),
    "arrow": ("application/vnd.apache.arrow.stream", _as_arrow),
}
"""Media type and encoder by name."""


def chosen(accept: str | None, name: str | None) -> str:
    """Return the format that `format=` or the Accept header asks for; JSON where neither does.

    Raises:
        HttpProblemError: 406, where none of what is asked for can be made.
    """
    if name is not None:
        return name
    asked = [part.split(";")[0].strip().lower() for part in (accept or "*/*").split(",")]
    for media_type in asked:
        if media_type in ("*/*", "application/*", ""):
            return "json"
        for known, (produced, _) in FORMATS.items():
            if media_type == produced:
                return known
    produced = ", ".join(media_type for media_type, _ in FORMATS.values())
    raise HttpProblemError(406, "Not acceptable", f"expected Accept to name one of {produced}; found {accept!r}")
