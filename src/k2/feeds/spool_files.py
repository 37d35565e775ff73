"""The segments of a spool on disk: blocks of messages, each with its length and checksum, in files with numbers."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from k2.common.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SUFFIX: Final = ".spool"
_HEADER: Final = struct.Struct("<II")
"""Bytes of the block and CRC-32 of them."""
_HEAD: Final = struct.Struct("<BHI")
"""Flags, bytes of the topic's name, messages; then the name, the lengths of keys and values (-1: none), and these."""
_AFTER_ALL: Final = 1
_NONE: Final = -1
_READ_BYTES: Final = 2**20


@dataclass(frozen=True)
class Block:
    """Messages of one topic in their order; `is_after_all` says that they follow what was acknowledged before them."""

    topic: str
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    is_after_all: bool = False

    def __len__(self) -> int:
        return len(self.values)


def encode(block: Block) -> bytes:
    """Return the block as it lies in a segment."""
    name = block.topic.encode()
    parts = [*block.keys, *block.values]
    lengths = np.fromiter((_NONE if part is None else len(part) for part in parts), "<i4", len(parts))
    head = _HEAD.pack(_AFTER_ALL if block.is_after_all else 0, len(name), len(block))
    content = b"".join([head, name, lengths.tobytes(), *(part for part in parts if part)])
    return _HEADER.pack(len(content), zlib.crc32(content)) + content


def read_block(file: int, offset: int, end: int) -> tuple[Block, int] | None:
    """Return the block at an offset of an open segment and the offset after it; None where no whole block is."""
    found = _content_at(file, offset, end)
    return None if found is None else (_decode(found), offset + _HEADER.size + len(found))


def whole_bytes(path: Path) -> int:
    """Return how many bytes at a segment's beginning are whole blocks; less than its size where one was cut off."""
    file = os.open(path, os.O_RDONLY)
    try:
        end, offset = os.fstat(file).st_size, 0
        while (content := _content_at(file, offset, end)) is not None:
            offset += _HEADER.size + len(content)
        return offset
    finally:
        os.close(file)


def segments(directory: Path) -> Iterator[tuple[int, Path]]:
    """Yield number and path of each segment in their order; CorruptionError for a name that is no number."""
    for path in sorted(directory.glob(f"*{SUFFIX}")):
        if not path.stem.isdigit():
            raise CorruptionError(
                f"expected segments with numbers in the spool {directory}, found {path.name}: move it away",
                path=str(path),
            )
        yield int(path.stem), path


def segment_path(directory: Path, number: int) -> Path:
    """Return where a segment lies; the order of names is that of numbers."""
    return directory / f"{number:012}{SUFFIX}"


def sync_directory(directory: Path) -> None:
    """See that files made or taken away stay so after a loss of power."""
    file = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _content_at(file: int, offset: int, end: int) -> bytes | None:
    header = os.pread(file, _HEADER.size, offset)
    if len(header) < _HEADER.size:
        return None
    size, checksum = _HEADER.unpack(header)
    start = offset + _HEADER.size
    if size < _HEAD.size or start + size > end:
        return None
    content = _pread(file, size, start)
    return content if zlib.crc32(content) == checksum else None


def _pread(file: int, size: int, offset: int) -> bytes:
    """Read all of it: the system may give less at a time."""
    parts = []
    while size > 0 and (part := os.pread(file, min(size, _READ_BYTES), offset)):
        parts.append(part)
        size, offset = size - len(part), offset + len(part)
    return b"".join(parts)


def _decode(content: bytes) -> Block:
    flags, name_bytes, count = _HEAD.unpack_from(content)
    at = _HEAD.size + name_bytes
    name = content[_HEAD.size : at].decode()
    lengths = np.frombuffer(content, "<i4", 2 * count, at)
    at += lengths.nbytes
    parts: list[bytes | None] = []
    for length in lengths.tolist():
        if length == _NONE:
            parts.append(None)
        else:
            parts.append(content[at : at + length])
            at += length
    return Block(name, parts[:count], parts[count:], bool(flags & _AFTER_ALL))
