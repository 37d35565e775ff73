"""What a mutant is: edits of files, and the tests of which at least one must fail."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one file; `anchor` must be there exactly once."""

    path: str
    anchor: str
    replacement: str


@dataclass(frozen=True, slots=True)
class Mutant:
    """One break of the product; `tests` are pytest node ids, quick ones, the likeliest to fail first."""

    name: str
    breaks: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
