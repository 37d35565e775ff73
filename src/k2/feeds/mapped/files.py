"""A file with a mapping, read whole to check it, and once more to send its records: the same ones, or an error."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.bad_lines import BadLines
from k2.feeds.mapped.making import RecordMaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k2.feeds.asx_lines import BadLine, ReadLines
    from k2.feeds.mapped.mapping import FileMapping
    from k2.feeds.settings import FeedSettings

_UNNAMED: Final = "0" * 64
"""Stands for the source while its hash is not known yet."""
_SESSION: Final = ("symbol", "trading_date")


class Digest(Protocol):
    """A hash that bytes are fed to."""

    def update(self, content: bytes, /) -> None:
        """Take some bytes."""
        ...


class Cells(Protocol):
    """A file's columns, a record a row."""

    def read(self, digest: Digest) -> Iterator[pl.DataFrame]:
        """Yield the cells block by block (see `making`); the digest has seen all bytes of the file in the end."""
        ...


@dataclass(frozen=True, slots=True)
class MappedFile:
    """One file, what says how it is to be read, and its cells."""

    path: Path
    mapping: FileMapping
    zone: str
    """Time zone of the exchange: what day a record without a trading date belongs to."""
    cells: Cells
    latest_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedMapped:
    """A file that was read whole: its source is the SHA-256 of its bytes."""

    file: MappedFile
    source: str
    records: int
    sessions: pl.DataFrame
    """By symbol and trading date: records, and the highest sequence and source_sequence."""
    start_ns: int
    last_ns: int
    bad_lines: int
    size_bytes: int
    modified_ns: int


def check_mapped(file: MappedFile, settings: FeedSettings, *, bad_lines: BadLines) -> CheckedMapped:
    """Read a file whole, without keeping it, and say what it holds.

    Raises:
        ConfigurationError: it cannot be read, is empty or not as the mapping says; names the first bad lines.
    """
    size, modified = _stat(file.path)
    digest = hashlib.sha256()
    maker = RecordMaker(file.mapping, zone=file.zone, source=_UNNAMED, latest_ns=file.latest_ns)
    lines = bad = 0
    times: list[tuple[int, int]] = []
    sessions = pl.DataFrame(schema=_SESSIONS)
    shown: list[BadLine] = []
    for cells in file.cells.read(digest):
        read = maker.make(cells)
        lines += cells.height
        bad += len(read.bad)
        shown += read.bad[: settings.bad_lines_shown_max - len(shown)]
        if read.rows.height:
            times.append(read.rows.select(first=pl.col("ts_event_ns").min(), last=pl.col("ts_event_ns").max()).row(0))
            sessions = _joined(sessions, read.rows)
            _require_few(file.path, sessions, settings)
    if not lines:
        raise ConfigurationError(f"expected records in {file.path}, found none: remove it, or fetch it again")
    if bad and (bad_lines is BadLines.REFUSE or bad > lines * settings.bad_lines_ratio_max or not times):
        raise _refused(file, lines, bad, shown, bad_lines)
    return CheckedMapped(
        file=file,
        source=digest.hexdigest(),
        records=lines - bad,
        sessions=sessions,
        start_ns=min(first for first, _ in times),
        last_ns=max(last for _, last in times),
        bad_lines=bad,
        size_bytes=size,
        modified_ns=modified,
    )


def read_again(checked: CheckedMapped) -> Iterator[ReadLines]:
    """Read a checked file again and yield, block by block, its records and bad lines.

    Raises:
        ConfigurationError: the file has changed since it was checked; what was yielded before is of the old one.
    """
    file, digest = checked.file, hashlib.sha256()
    maker = RecordMaker(file.mapping, zone=file.zone, source=checked.source, latest_ns=file.latest_ns)
    for cells in file.cells.read(digest):
        if _stat(file.path) != (checked.size_bytes, checked.modified_ns):
            raise _changed(file.path)
        yield maker.make(cells)
    if digest.hexdigest() != checked.source:
        raise _changed(file.path)


_SESSIONS: Final = {
    "symbol": pl.String(), "trading_date": pl.Date(), "sequence": pl.Int64(), "source_sequence": pl.Int64(),
    "records": pl.Int64(),
}  # fmt: skip


def _joined(sessions: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    new = rows.select(*_SESSION, "sequence", "source_sequence", pl.lit(1, pl.Int64).alias("records"))
    return (
        pl.concat([sessions, new])
        .group_by(_SESSION)
        .agg(pl.col("sequence", "source_sequence").max(), pl.col("records").sum())
    )


def _require_few(path: Path, sessions: pl.DataFrame, settings: FeedSettings) -> None:
    if sessions.height > settings.import_sessions_max:
        raise ConfigurationError(
            f"expected at most {settings.import_sessions_max:,} days of symbols in {path} "
            f"(K2_FEEDS__IMPORT_SESSIONS_MAX), found {sessions.height:,}: is the symbol's column the right one? Else "
            "split the file, or raise the limit"
        )


def _refused(file: MappedFile, lines: int, bad: int, shown: list[BadLine], bad_lines: BadLines) -> ConfigurationError:
    named = "\n".join(f"  {file.path}:{entry.line}: {entry.shown} ({entry.expected})" for entry in shown)
    advice = (
        f"Mend the mapping {file.mapping.path} or the lines, or import with --bad-lines dead-letter"
        if bad_lines is BadLines.REFUSE
        else f"So many (K2_FEEDS__BAD_LINES_RATIO_MAX) mean that the mapping {file.mapping.path} is wrong, or the file"
    )
    return ConfigurationError(
        f"expected {shown[0].expected}, found {bad:,} bad lines of {lines:,} in {file.path}; nothing was sent. "
        f"{advice}. The first ones:\n{named}"
    )


def _changed(path: Path) -> ConfigurationError:
    return ConfigurationError(
        f"expected {path} as it was when it was checked, found it changed meanwhile; what was sent of it counts as the "
        "old file's. Import again once nobody writes it"
    )


def _stat(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns
