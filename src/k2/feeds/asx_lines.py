"""Cuts an ASX file into blocks of whole lines, numbered from 1; a line's number is its identity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one file; `first_line` is the number of the first one, counted from 1."""

    first_line: int
    content: bytes

    def raw_lines(self) -> list[bytes]:
        """Return the lines as they came, without the line feed (a carriage return before it stays)."""
        lines = self.content.split(b"\n")
        return lines[:-1] if self.content.endswith(b"\n") else lines

    def frame(self) -> pl.DataFrame:
        """Return columns `line` (Int64, the number) and `text` (without CR LF; U+FFFD where it is not UTF-8)."""
        text = self.content.decode("utf-8", errors="replace").split("\n")
        if not text[-1]:
            text.pop()
        numbers = pl.int_range(self.first_line, self.first_line + len(text), dtype=pl.Int64, eager=True).alias("line")
        return pl.DataFrame([numbers, pl.Series("text", text, dtype=pl.String).str.strip_suffix("\r")])


def read_blocks(path: Path, *, block_bytes: int) -> Iterator[Block]:
    """Yield the file's lines in blocks of about `block_bytes`; the last line may lack its line feed.

    Raises:
        ConfigurationError: the file cannot be read, holds NUL bytes (a binary file), or a line longer than a block.
    """
    number = 1
    rest = b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(block_bytes):
                _refuse_binary(path, chunk)
                whole, feed, rest = (rest + chunk).rpartition(b"\n")
                if feed:
                    block = Block(number, whole + feed)
                    number += block.content.count(b"\n")
                    yield block
                elif len(rest) > block_bytes:
                    raise ConfigurationError(
                        f"{path}:{number}: expected lines, found one longer than {block_bytes} bytes: not an ASX file"
                    )
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; check the path and its permissions") from error
    if rest:
        yield Block(number, rest)


def _refuse_binary(path: Path, chunk: bytes) -> None:
    if b"\0" in chunk:
        raise ConfigurationError(
            f"expected a CSV text file at {path}, found binary content (a NUL byte): unpack it, or remove it from there"
        )
