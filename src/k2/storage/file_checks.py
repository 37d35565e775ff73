"""Tells whether data files are what was written: each is checked before its first use, and again when it changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from k2.common.errors import CorruptionError, UnavailableError
from k2.storage.checksums import checksum_of, checksum_of_stream
from k2.storage.failures import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pyiceberg.io import FileIO
    from pyiceberg.manifest import DataFile

    from k2.storage.planning import PlannedFile

    Signature = tuple[int, int, int]
    """Size, time of last change, inode: what differs once somebody has touched or replaced a file."""


class FileChecks:
    """Remembers which files are intact and which are damaged. Threads may share it."""

    def __init__(self, *, check_contents: bool, files_max: int) -> None:
        self._check_contents = check_contents
        self._files_max = files_max
        self._known: OrderedDict[str, tuple[Signature, CorruptionError | None]] = OrderedDict()
        self._lock = threading.Lock()

    def paths(self, files: Iterable[PlannedFile], on_damage: Callable[[CorruptionError], None]) -> list[str]:
        """Return the paths of the files that are intact; `on_damage` is told of the others, and may raise."""
        intact = []
        for file in files:
            damage = self.damage(file)
            if damage is None:
                intact.append(file.path)
            else:
                on_damage(damage)
        return intact

    def require(self, files: Iterable[PlannedFile]) -> list[str]:
        """Return the paths of the files, all of which are intact.

        Raises:
            CorruptionError: one is not; it is named.
            UnavailableError: one cannot be read.
        """
        return self.paths(files, _raise)

    @property
    def damaged(self) -> dict[str, str]:
        """What is known to be damaged, by path, and how."""
        with self._lock:
            return {path: str(error) for path, (_, error) in self._known.items() if error is not None}

    def damage(self, file: PlannedFile) -> CorruptionError | None:
        """Return what is wrong with a local file, None where nothing is, or where it is not local.

        Raises:
            UnavailableError: the file cannot be read.
        """
        if "://" in file.path:
            return None
        try:
            signature = _signature(Path(file.path))
            known = self._known.get(file.path)
            if known is not None and known[0] == signature:
                return known[1]
            error = self._compared(file, signature[0])
        except FileNotFoundError:
            return _damaged(file, "it is missing")
        except OSError as failure:
            raise UnavailableError(
                f"{file.path} cannot be read: {failure.strerror}; check the device before anything else",
                dependency="warehouse",
            ) from failure
        self._remember(file.path, error, signature)
        return error

    def condemn(self, path: str, damage: CorruptionError) -> None:
        """Remember a file as damaged for as long as it stays as it is."""
        try:
            self._remember(path, damage, _signature(Path(path)))
        except OSError:
            return

    def _compared(self, file: PlannedFile, size: int) -> CorruptionError | None:
        if size != file.size_bytes:
            return _damaged(file, f"expected {file.size_bytes} bytes, found {size}")
        if file.checksum is None or not self._check_contents:
            return None
        with Path(file.path).open("rb", buffering=0) as stream:
            problem = difference(file.size_bytes, file.checksum, *checksum_of_stream(stream))
        return None if problem is None else _damaged(file, problem)

    def _remember(self, path: str, error: CorruptionError | None, signature: Signature) -> None:
        with self._lock:
            self._known[path] = (signature, error)
            while len(self._known) > self._files_max:
                self._known.popitem(last=False)


def require_as_written(io: FileIO, file: DataFile) -> None:
    """Read a data file whole, wherever it is, and see that it is what its manifest records.

    For whoever writes its rows again, or decides by them: a new file's checksum would vouch for a bit that has flipped.

    Raises:
        CorruptionError: it is not; the text names it.
    """
    path = file.file_path
    with translated("checking a data file", path=path), io.new_input(path).open() as stream:
        problem = difference(file.file_size_in_bytes, checksum_of(file), *checksum_of_stream(stream))
    if problem is not None:
        raise CorruptionError(
            f"the data file {path} is damaged: {problem}; run `k2 verify --deep`, and put it back from a backup",
            path=path,
        )


def difference(size_bytes: int, checksum: int | None, found: int, found_bytes: int) -> str | None:
    """Say how a file's checksum and size differ from those recorded; None where they do not, or none is recorded."""
    if found_bytes != size_bytes:
        return f"expected {size_bytes} bytes, found {found_bytes}"
    if checksum is not None and found != checksum:
        return f"expected CRC32 {checksum:08x}, found {found:08x}"
    return None


def _raise(damage: CorruptionError) -> None:
    raise damage


def _signature(path: Path) -> Signature:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _damaged(file: PlannedFile, how: str) -> CorruptionError:
    where = f" of {file.partition}" if file.partition else ""
    return CorruptionError(
        f"the data file {file.path} is damaged: {how}; it holds {file.rows} rows{where}: run `k2 verify --deep`, and "
        "put it back from a backup",
        path=file.path,
    )
