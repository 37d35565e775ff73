"""An answer as JSON, CSV, Parquet or an Arrow stream, in parts of bounded size; numbers keep every digit."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from k2.api.problems import HttpProblemError
from k2.api.text_columns import as_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CERTIFICATE_KEY: Final = b"k2.certificate"
CURSOR_KEY: Final = b"k2.next_cursor"
PART_ROWS: Final = 32_768
"""Rows encoded at a time."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows with what the envelope says of them; a table that is no answer has no certificate."""

    table: pa.Table
    certificate: dict[str, Any] | None = None
    next_cursor: str | None = None


def table_lines(table: pa.Table) -> list[bytes]:
    """Return each row as a JSON object, as a page in JSON holds it; a line break inside a text is escaped."""
    body = io.BytesIO()
    as_text(table, lists_as_text=False).write_ndjson(body)
    return body.getvalue().splitlines()


def _as_json(page: Page) -> Iterator[bytes]:
    before = b'{"data":['
    for table in _parts(page.table):
        body = io.BytesIO()
        as_text(table, lists_as_text=False).write_ndjson(body)
        yield before + body.getvalue().rstrip(b"\n").replace(b"\n", b",")  # a line break inside a text is escaped
        before = b","
    envelope = {"next_cursor": page.next_cursor, "certificate": page.certificate}
    rest = "}" if page.certificate is None else "," + json.dumps(envelope, separators=(",", ":"))[1:]
    yield (before if before != b"," else b"") + b"]" + rest.encode()


def _as_csv(page: Page) -> Iterator[bytes]:
    parts = list(_parts(page.table)) or [page.table]
    for number, table in enumerate(parts):
        body = io.BytesIO()
        as_text(table, lists_as_text=True).write_csv(body, include_header=number == 0)
        yield body.getvalue()


def _as_parquet(page: Page) -> Iterator[bytes]:
    sink = _Sink()
    table = _marked(page)
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        for part in _parts(table):
            writer.write_table(part)
            yield sink.taken()
    yield sink.taken()


def _as_arrow(page: Page) -> Iterator[bytes]:
    sink = _Sink()
    table = _marked(page)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        for part in _parts(table):
            writer.write_table(part)
            yield sink.taken()
    yield sink.taken()


FORMATS: Final[dict[str, tuple[str, Callable[[Page], Iterator[bytes]]]]] = {
    "json": ("application/json", _as_json),
    "csv": ("text/csv", _as_csv),
    "parquet": ("application/vnd.apache.parquet", _as_parquet),
    "arrow": ("application/vnd.apache.arrow.stream", _as_arrow),
}
"""Media type and encoder by name."""
_RANGES: Final = {"*/*": "json", "application/*": "json", "text/*": "csv"}
_FORMAT_OF: Final = {media_type: name for name, (media_type, _) in FORMATS.items()} | _RANGES


def chosen(accept: str | None, name: str | None) -> str:
    """Return the format that `format=` or the Accept header asks for, best first; JSON where neither does.

    Raises:
        HttpProblemError: 406, where none of what is asked for can be made.
    """
    if name is not None:
        return name
    asked = [_weighted(part) for part in (accept or "*/*").split(",")]
    for media_type, weight in sorted(asked, key=lambda entry: -entry[1]):
        if weight > 0 and media_type in _FORMAT_OF:
            return _FORMAT_OF[media_type]
    produced = ", ".join(media_type for media_type, _ in FORMATS.values())
    raise HttpProblemError(406, "Not acceptable", f"expected Accept to name one of {produced}; found {accept!r}")


def _weighted(part: str) -> tuple[str, float]:
    media_type, *parameters = (word.strip().lower() for word in part.split(";"))
    weight = next((word[2:] for word in parameters if word.startswith("q=")), "1")
    try:
        return media_type, float(weight)
    except ValueError:
        return media_type, 0.0


def _marked(page: Page) -> pa.Table:
    metadata = dict(page.table.schema.metadata or {})
    if page.certificate is not None:
        metadata[CERTIFICATE_KEY] = json.dumps(page.certificate).encode()
    if page.next_cursor is not None:
        metadata[CURSOR_KEY] = page.next_cursor.encode()
    return page.table.replace_schema_metadata(metadata)


def _parts(table: pa.Table) -> Iterator[pa.Table]:
    for start in range(0, table.num_rows, PART_ROWS):
        yield table.slice(start, PART_ROWS)


class _Sink:
    """A file to write to, emptied between two parts."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self.closed = False

    def write(self, part: bytes) -> int:
        """Keep a part."""
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """Do nothing: what is written is here already."""

    def close(self) -> None:
        """Take no more."""
        self.closed = True

    def taken(self) -> bytes:
        """Return what was written since the last time."""
        body = b"".join(self._parts)
        self._parts.clear()
        return body
