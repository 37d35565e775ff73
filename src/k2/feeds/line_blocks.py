"""Reads a file in blocks of whole lines, as the bytes that they are: memory is bounded, however large the file."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class LineBlock:
    """Some lines that follow on one another; `first` is the number of the first, from 1 on."""

    first: int
    content: bytes
    """Every byte of the block: the contents of all blocks, joined, are the file."""
    count: int
    """How many lines it has."""

    @property
    def last(self) -> int:
        """Number of the last line."""
        return self.first + self.count - 1

    @property
    def body(self) -> bytes:
        """The lines without the last one's LF, and without the mark of byte order that a file may begin with."""
        body = self.content.removesuffix(b"\n")
        return body.removeprefix(codecs.BOM_UTF8) if self.first == 1 else body

    @property
    def lines(self) -> list[bytes]:
        """The lines without their ends (LF or CR LF)."""
        return [line.removesuffix(b"\r") for line in self.body.split(b"\n")]


def read_blocks(path: Path, block_bytes: int) -> Iterator[LineBlock]:
    """Yield the file's blocks, each of about `block_bytes`; the last line may lack its end.

    Raises:
        ConfigurationError: the file cannot be read, or a line is longer than a block.
    """
    first, rest = 1, b""
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(block_bytes):
                rest += chunk
                end = rest.rfind(b"\n") + 1
                if end:
                    block = _block(first, rest[:end])
                    yield block
                    first, rest = block.last + 1, rest[end:]
                elif len(rest) >= block_bytes:
                    raise ConfigurationError(
                        f"expected lines of at most {block_bytes} bytes in {path}, found a longer one at line {first}: "
                        "is it a CSV file? (K2_FEEDS__IMPORT_BLOCK_BYTES is the limit)"
                    )
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    if rest:
        yield _block(first, rest)


def _block(first: int, content: bytes) -> LineBlock:
    return LineBlock(first, content, content.removesuffix(b"\n").count(b"\n") + 1)
