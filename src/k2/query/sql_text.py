"""Texts and names as SQL writes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def quoted_text(text: str) -> str:
    """Return a text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quoted_columns(names: Sequence[str]) -> Iterator[str]:
    """Return the column names as SQL identifiers."""
    return ('"' + name.replace('"', '""') + '"' for name in names)
