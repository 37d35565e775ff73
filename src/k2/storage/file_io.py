"""Files of tables, local or in an object store; what is written locally is on disk when `close` returns."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from pyiceberg.io import OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO

from k2.common.crash_points import reached
from k2.storage.checksums import CheckedInputFile, ChecksummedOutputFile, carries_checksum

if TYPE_CHECKING:
    from types import TracebackType

    from pyiceberg.io import InputFile

LOCAL_SCHEME: Final = "file"
_METADATA_SUFFIX: Final = ".metadata.json"


class SyncedFileIO(PyArrowFileIO):
    """PyIceberg's FileIO, except that local files and their directories are synced, and metadata is checked when read.

    Without it a power cut after the catalog's swap can leave a pointer to a metadata file that never reached the disk,
    and a bit that flips in a manifest or in a seam is read as if it had been written.
    """

    def new_input(self, location: str) -> InputFile:  # type: ignore[override]  # FileIO's own signature
        """Return a file to read; metadata, manifests and their lists are checked against their checksums."""
        file = super().new_input(location)
        return CheckedInputFile(file) if carries_checksum(location) else file

    def new_output(self, location: str) -> OutputFile:  # type: ignore[override]  # FileIO's own signature
        """Return a file to write at `location`; a manifest's name is known, with its checksum, once it is closed."""
        if carries_checksum(location):
            return ChecksummedOutputFile(location, self._plain_output)
        return self._plain_output(location)

    def _plain_output(self, location: str) -> OutputFile:
        path = local_path(location)
        return super().new_output(location) if path is None else SyncedOutputFile(location, path, self)


class SyncedOutputFile(OutputFile):
    """A local file that is synced when its stream is closed."""

    def __init__(self, location: str, path: Path, io: SyncedFileIO) -> None:
        super().__init__(location)
        self._path = path
        self._io = io

    def __len__(self) -> int:
        return self._path.stat().st_size

    def exists(self) -> bool:
        """Say whether the file is there."""
        return self._path.exists()

    def to_input_file(self) -> InputFile:
        """Return the same file, to read."""
        return self._io.new_input(self.location)

    def create(self, overwrite: bool = False) -> SyncedStream:
        """Open the file for writing; FileExistsError if it is there and `overwrite` is not set."""
        make_directories(self._path.parent)
        return SyncedStream(self._path, overwrite=overwrite)


class SyncedStream:
    """A stream of bytes into a local file; `close` syncs the file, then its directory."""

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self._path = path
        self._is_new = not overwrite
        self._file: IO[bytes] = path.open("wb" if overwrite else "xb")

    def write(self, data: bytes) -> int:
        """Write bytes; return how many."""
        return self._file.write(data)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self._file.flush()

    @property
    def closed(self) -> bool:
        """Say whether the stream is closed."""
        return self._file.closed

    def close(self) -> None:
        """Sync and close; a second call does nothing. A new file that could not be written whole is removed."""
        if self._file.closed:
            return
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError:
            self._drop()
            raise
        self._file.close()
        sync_directory(self._path.parent)
        if self._path.name.endswith(_METADATA_SUFFIX):
            reached("metadata_written")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        elif not self._file.closed:
            self._drop()

    def _drop(self) -> None:
        """Close and remove what nobody has been told of: on a full disk each further try would leave a piece more."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._is_new:
            with contextlib.suppress(OSError):
                self._path.unlink()


def local_path(location: str) -> Path | None:
    """Return the path of a local file or `file:` URI, None for any other place."""
    scheme, separator, rest = location.partition("://")
    if not separator:
        return Path(location.removeprefix(f"{LOCAL_SCHEME}:")).absolute()
    return Path(rest).absolute() if scheme == LOCAL_SCHEME else None


def make_directories(directory: Path) -> None:
    """Create a directory and those above it, each synced into its parent."""
    missing = []
    while not directory.is_dir():
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
