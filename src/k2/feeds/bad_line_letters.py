"""Dead letters of an import: a bad line as it came, with headers that say of which source and line it is and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from k2.feeds.asx_lines import BadLine

SOURCE_HEADER: Final = "k2.source"
LINE_HEADER: Final = "k2.line"
REASON_CHARACTERS_MAX: Final = 500
VALUE_BYTES_MAX: Final = 512 * 1024
"""Bytes kept of a line; a longer one is no tick, and no topic takes it."""


def value_of(bad: BadLine) -> bytes:
    """Return what is kept of a bad line: all of it, unless no topic takes so much."""
    return bad.content[:VALUE_BYTES_MAX]


def headers_of(topic: str, source: str, bad: BadLine) -> dict[str, bytes]:
    """Return the headers of a bad line's dead letter."""
    return {
        "k2.topic": topic.encode(),
        SOURCE_HEADER: source.encode(),
        LINE_HEADER: str(bad.line).encode(),
        "k2.error_class": bad.error_class.encode(),
        "k2.reason": bad.reason[:REASON_CHARACTERS_MAX].encode(),
    }


def line_of(headers: Mapping[str, bytes], *, source: str) -> int | None:
    """Return the line of a source that a dead letter is of; None for those of other sources and of ingestion."""
    return int(headers[LINE_HEADER]) if headers.get(SOURCE_HEADER) == source.encode() else None
