"""Damages stored files the way a bad disk does."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file."""
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def flip_in(path: Path, text: bytes) -> None:
    """Flip one bit of the first place that holds a text, such as the footer's name of whoever wrote the file."""
    flip(path, 8 * path.read_bytes().index(text))
