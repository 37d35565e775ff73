"""Checksums of stored files: CRC32, made while a file is written, recorded where every later reader finds it.

A data file's stands in its manifest entry, a manifest's and a manifest list's in its own name, and a metadata file's in
its first bytes. So each file that names others vouches for them, from the metadata down.
"""

from __future__ import annotations

import io
import re
import zlib
from typing import IO, TYPE_CHECKING, Final, Self

from pyiceberg.io import InputFile, OutputFile

from k2.common.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from pyiceberg.io import InputStream, OutputStream
    from pyiceberg.manifest import DataFile

BOUND_ID: Final = 2_147_480_032
"""Id of the lower bound that holds a data file's checksum: no column has it, and Iceberg reserves only ids above.

Readers look bounds up by their columns' ids, and must bear those of columns that were dropped.
"""
CHUNK_BYTES: Final = 1024 * 1024
_BOUND: Final = re.compile(rb"crc32:([0-9a-f]{8})")
_NAMED: Final = re.compile(r"-([0-9a-f]{8})\.avro$")
_STAMPED: Final = re.compile(rb'\{"k2-crc32":"([0-9a-f]{8})",')
_METADATA_SUFFIX: Final = ".metadata.json"


def with_checksum(bounds: Mapping[int, bytes] | None, checksum: int) -> dict[int, bytes]:
    """Return the lower bounds of a data file, its checksum among them."""
    return {**(bounds or {}), BOUND_ID: b"crc32:%08x" % checksum}


def checksum_of(file: DataFile) -> int | None:
    """Return the checksum that a data file's manifest entry records, or None."""
    found = _BOUND.fullmatch((file.lower_bounds or {}).get(BOUND_ID, b""))
    return None if found is None else int(found[1], 16)


def recorded(location: str, content: bytes) -> tuple[int, int] | None:
    """Return the checksum recorded for a metadata file, manifest or list, and the one it has; None if none is."""
    named = _NAMED.search(location)
    if named is not None:
        return int(named[1], 16), zlib.crc32(content)
    stamped = _STAMPED.match(content) if location.endswith(_METADATA_SUFFIX) else None
    if stamped is None:
        return None
    rest = memoryview(content)[stamped.end() :]
    return int(stamped[1], 16), zlib.crc32(rest, zlib.crc32(b"{"))


def require_intact(location: str, content: bytes) -> None:
    """Raise CorruptionError where a metadata file, manifest or list is not what was written."""
    found = recorded(location, content)
    if found is not None and found[0] != found[1]:
        raise CorruptionError(
            f"{location} is damaged: expected CRC32 {found[0]:08x}, found {found[1]:08x} in {len(content)} bytes; "
            "run `k2 verify --deep`, and put the file back from a backup",
            path=location,
        )


def checksum_of_stream(stream: IO[bytes] | InputStream) -> tuple[int, int]:
    """Return checksum and size in bytes of what a stream holds, in constant memory."""
    checksum = size = 0
    while chunk := stream.read(CHUNK_BYTES):
        checksum = zlib.crc32(chunk, checksum)
        size += len(chunk)
    return checksum, size


def carries_checksum(location: str) -> bool:
    """Say whether a file of this name is one that carries its own checksum, where K2 wrote it."""
    return location.endswith((_METADATA_SUFFIX, ".avro"))


class ChecksumStream:
    """Passes bytes on to a stream, and knows their checksum."""

    def __init__(self, stream: OutputStream) -> None:
        self._stream = stream
        self._position = 0
        self.checksum = 0

    def write(self, data: bytes) -> int:
        """Write bytes; return how many."""
        self.checksum = zlib.crc32(data, self.checksum)
        self._stream.write(data)
        length = memoryview(data).nbytes
        self._position += length
        return length

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def flush(self) -> None:
        """Do nothing: what is written counts when the stream below is closed."""

    @property
    def closed(self) -> bool:
        """Say that it takes more: whoever opened the stream below closes it."""
        return False


class CheckedInputFile(InputFile):
    """A metadata file, manifest or list, read whole and checked each time that it is opened."""

    def __init__(self, file: InputFile) -> None:
        super().__init__(file.location)
        self._file = file

    def __len__(self) -> int:
        return len(self._file)

    def exists(self) -> bool:
        """Say whether the file is there."""
        return self._file.exists()

    def open(self, seekable: bool = True) -> InputStream:
        """Read the file; CorruptionError if it is not what was written."""
        with self._file.open(seekable=seekable) as stream:
            content = stream.read()
        require_intact(self.location, content)
        return io.BytesIO(content)


class ChecksummedOutputFile(OutputFile):
    """A small file that is written when its stream is closed, its checksum stamped into it or put into its name.

    `location` is where it is in the end.
    """

    def __init__(self, location: str, open_output: Callable[[str], OutputFile]) -> None:
        super().__init__(location)
        self._open_output = open_output
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def exists(self) -> bool:
        """Say whether the file is there."""
        return self._open_output(self.location).exists()

    def to_input_file(self) -> InputFile:
        """Return the same file, to read."""
        return CheckedInputFile(self._open_output(self.location).to_input_file())

    def create(self, overwrite: bool = False) -> OutputStream:
        """Begin to gather the file's bytes."""
        return _Gathered(lambda content: self._write(content, overwrite=overwrite))

    def _write(self, content: bytes, *, overwrite: bool) -> None:
        checksum = zlib.crc32(content)
        if self.location.endswith(_METADATA_SUFFIX):
            content = b'{"k2-crc32":"%08x",' % checksum + content[1:]
        else:
            self._location = f"{self.location.removesuffix('.avro')}-{checksum:08x}.avro"
        self._size = len(content)
        with self._open_output(self.location).create(overwrite=overwrite) as stream:
            stream.write(content)


class _Gathered:
    """Gathers bytes, and hands them over once, when it is closed without an error."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._content = io.BytesIO()
        self._write = write
        self.closed = False

    def write(self, data: bytes) -> int:
        return self._content.write(data)

    def tell(self) -> int:
        return self._content.tell()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._write(self._content.getvalue())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        self.closed = True
