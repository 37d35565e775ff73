"""Backs a local platform up while it runs, and restores a backup into another directory.

The order makes it consistent: the tables are pinned first, then the log is copied, so the copy of the log reaches at
least as far as the seams of the copied tables; the registry is last, so it knows every schema that the log names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from k2 import __version__
from k2.common.errors import ConfigurationError, CorruptionError, UnavailableError
from k2.local.backup_files import (
    Backup,
    CopiedFile,
    check_files,
    copy_file,
    read_list,
    require_empty,
    require_space,
    write_list,
)
from k2.local.backup_log import copy_log
from k2.local.layout import MARKER_TEXT, DataDirectory
from k2.storage.file_io import local_path
from k2.storage.relocation import TableMover, locations_of, pin_tables
from k2.storage.settings import CatalogSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from k2.common.clock import Clock
    from k2.storage.relocation import PinnedTable
    from k2.storage.tables import MarketTables

LOG: Final = "kafka/log"
REGISTRY: Final = "registry/registry.mv.db"
_ATTEMPTS_MAX: Final = 20
_PAUSE_SECONDS: Final = 0.5
_SEAM_KEY: Final = "k2.seam"


@dataclass
class _Copies:
    """Copies files below the platform's root to the same place below the backup."""

    root: Path
    target: Path
    files: dict[str, CopiedFile]

    def add(self, source: Path, path: str, *, checksum: int | None = None, mode: int | None = None) -> CopiedFile:
        (self.target / path).unlink(missing_ok=True)
        size, digest, found = copy_file(source, self.target / path, mode=mode)
        if checksum is not None and found != checksum:
            raise CorruptionError(
                f"{source} is damaged: expected CRC32 {checksum:08x}, found {found:08x}: no backup was made; see "
                "`k2 verify --deep`",
                path=str(source),
            )
        self.files[path] = CopiedFile(path, size, digest)
        return self.files[path]


def back_up(
    directory: DataDirectory,
    target: Path,
    *,
    tables: MarketTables,
    log_ends: Callable[[], Mapping[str, Mapping[int, int]]],
    clock: Clock,
    tell: Callable[[str], None],
) -> Backup:
    """Copy the platform of `directory`, running or not, into `target`, which must be empty or not there.

    `log_ends` returns the end of each partition of each topic; empty where no broker runs.

    Raises:
        ConfigurationError: the target cannot be used, or the platform's tables are not in its directory.
        CorruptionError: a file of the tables is damaged; the text names it.
        UnavailableError: something changed faster than it could be copied.
    """
    require_empty(target, what="backup")
    if target.resolve().is_relative_to(directory.root.resolve()):
        raise ConfigurationError(
            f"expected a directory outside of the platform's {directory.root} for the backup, found {target}: what "
            "takes the platform would take its backup too"
        )
    began_ns = clock.time_ns()
    pinned = pin_tables(tables)
    ends = {topic: dict(partitions) for topic, partitions in log_ends().items()}
    sources = [(_inside(directory.root, local_path(file.location)), file) for item in pinned for file in item.files]
    require_space(target, sum(path.stat().st_size for path, _ in sources) + _size(directory.component("kafka")))
    target.mkdir(parents=True, exist_ok=True)
    copies = _Copies(directory.root, target, {})
    tell(f"tables: {len(sources):,} files, {sum(item.rows for item in pinned):,} rows")
    for path, file in sources:
        copies.add(path, str(path.relative_to(directory.root)), checksum=file.checksum)
    tell("log")
    copy_log(directory.root / LOG, LOG, copies.add)
    tell("registry")
    _copy_when_quiet(directory.root / REGISTRY, copies, clock)
    for path in (directory.settings_file, directory.key_file):
        if path.exists():
            copies.add(path, path.name, mode=0o600)
    facts = {"began_at_ns": began_ns, "ended_at_ns": clock.time_ns(), "k2": __version__, "log_ends": ends}
    facts["tables"] = {item.name: _facts(item) for item in pinned}
    backup = Backup(str(directory.root), locations_of(pinned), tuple(copies.files.values()), facts)
    write_list(target, backup)
    return backup


def restore(source: Path, directory: DataDirectory, *, tell: Callable[[str], None]) -> Backup:
    """Make a platform of a backup in a directory that is empty or not there; `k2 up` starts it.

    Everything is checked before anything is written. The directory is marked as K2's last, so `k2 up` refuses one
    whose restoring was interrupted.

    Raises:
        ConfigurationError: the source is no whole backup, or the directory cannot be used.
        CorruptionError: the backup is damaged; the text names the file.
    """
    backup = read_list(source)
    require_empty(directory.root, what="restored platform")
    require_space(directory.root, sum(file.size for file in backup.files))
    tell(f"checking {len(backup.files):,} files")
    check_files(source, backup)
    tell("copying")
    directory.root.mkdir(parents=True, exist_ok=True)
    for file in backup.files:
        if not _is_table_metadata(file.path):
            mode = 0o600 if file.path in (directory.key_file.name, directory.settings_file.name) else None
            copy_file(source / file.path, directory.root / file.path, mode=mode)
    tell("tables")
    TableMover(
        CatalogSettings(**directory.catalog()),
        read_at=lambda location: _moved(location, backup.root, str(source.absolute())),
        moved=lambda location: _moved(location, backup.root, str(directory.root)),
    ).move(backup.tables)
    directory.marker.write_text(MARKER_TEXT, encoding="utf-8")
    return backup


def _is_table_metadata(path: str) -> bool:
    return path.startswith("warehouse/") and path.endswith((".avro", ".metadata.json"))


def _moved(location: str, old_root: str, new_root: str) -> str:
    """Return a location below the old root as it is below the new one."""
    for scheme in ("file://", ""):
        prefix = f"{scheme}{old_root}/"
        if location.startswith(prefix):
            return f"{scheme}{new_root}/{location.removeprefix(prefix)}"
    raise CorruptionError(f"expected a file below {old_root} in the backup, found {location}", path=location)


def _inside(root: Path, path: Path | None) -> Path:
    if path is None or not path.is_relative_to(root):
        raise ConfigurationError(
            f"expected the tables below {root}, found {path or 'them in an object store'}: `k2 backup` is for a "
            "platform that has all in its data directory; back the warehouse and the catalog up with their own tools"
        )
    return path


def _copy_when_quiet(source: Path, copies: _Copies, clock: Clock) -> None:
    """Copy the registry's file between two writes of it: what it is then is what a power cut would leave."""
    if not source.exists():
        return
    for _ in range(_ATTEMPTS_MAX):
        first = copies.add(source, REGISTRY)
        if copies.add(source, REGISTRY) == first:
            return
        clock.sleep(_PAUSE_SECONDS)
    raise UnavailableError(f"{source} never stood still: begin the backup again", dependency="registry")


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*.log") if path.is_file())


def _facts(item: PinnedTable) -> dict[str, Any]:
    return {"snapshot_id": item.snapshot_id, "rows": item.rows, "seam": item.summary.get(_SEAM_KEY)}
