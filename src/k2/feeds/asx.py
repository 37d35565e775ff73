"""Finds the tick files of an ASX directory, and reads them: once to check them, once to send their rows."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError
from k2.feeds.asx_lines import COLUMNS, EXCHANGE, BadLine, ReadLines, read_lines
from k2.feeds.asx_reference import COMPANIES_FILE, companies
from k2.feeds.bad_lines import BadLines
from k2.feeds.line_blocks import read_blocks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from k2.feeds.settings import FeedSettings

__all__ = ["EXCHANGE", "CheckedFile", "TickFile", "check_file", "read_ticks", "rows_after", "tick_files"]

_UNNAMED: Final = "0" * 64
"""Stands for the source while its hash is not known yet."""


@dataclass(frozen=True, slots=True)
class TickFile:
    """One file of ticks: its kind and its symbol."""

    path: Path
    data_type: str
    symbol: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """A file that was read whole: its source is the SHA-256 of its bytes."""

    file: TickFile
    source: str
    lines: int
    records: int
    last_record: int
    """Number of the last line that is a record."""
    start_ns: int
    last_ns: int
    bad_lines: int
    size_bytes: int
    modified_ns: int


def tick_files(directory: Path) -> list[TickFile]:
    """Find the tick files of a directory, trades before quotes.

    Raises:
        ConfigurationError: this is no directory of ASX ticks, or a file's company is unknown.
    """
    if not directory.is_dir():
        raise ConfigurationError(
            f"expected a directory with trades/, quotes/ and {COMPANIES_FILE}, found none at {directory}"
        )
    paths = [(kind, path) for kind in COLUMNS for path in sorted((directory / kind).glob("*.csv"))]
    if not paths:
        raise ConfigurationError(
            f"expected CSV files in {directory}/trades or {directory}/quotes, found none: name the directory above them"
        )
    symbols = {number: company.symbol for number, company in companies(directory).items()}
    unknown = [str(path.relative_to(directory)) for _, path in paths if path.stem not in symbols]
    if unknown:
        raise ConfigurationError(
            f"expected the companies of all files in {COMPANIES_FILE}, found none for {', '.join(unknown)}: "
            "add them there, or move the files away"
        )
    return [TickFile(path, kind, symbols[path.stem]) for kind, path in paths]


def check_file(file: TickFile, settings: FeedSettings, *, bad_lines: BadLines = BadLines.REFUSE) -> CheckedFile:
    """Read a file whole, without keeping it, and say what it holds.

    Raises:
        ConfigurationError: it cannot be read, is empty or not of its kind; names the first bad lines.
    """
    size, modified = _stat(file)
    digest = hashlib.sha256()
    lines = records = bad = last_record = 0
    start_ns, last_ns = 2**63 - 1, -(2**63)
    shown: list[BadLine] = []
    for block in read_blocks(file.path, settings.import_block_bytes):
        digest.update(block.content)
        read = read_lines(block, data_type=file.data_type, symbol=file.symbol, source=_UNNAMED)
        lines += block.count
        bad += len(read.bad)
        shown += read.bad[: settings.bad_lines_shown_max - len(shown)]
        if len(read.rows):
            records += len(read.rows)
            first, last, newest = read.rows.select(
                pl.col("ts_event_ns").min().alias("first"),
                pl.col("ts_event_ns").max().alias("last"),
                pl.col("source_sequence").max(),
            ).row(0)
            start_ns, last_ns, last_record = min(start_ns, first), max(last_ns, last), newest
    if not lines:
        raise ConfigurationError(f"expected ticks in {file.path}, found an empty file: remove it, or fetch it again")
    if bad and (bad_lines is BadLines.REFUSE or bad > lines * settings.bad_lines_ratio_max or not records):
        raise _refused(file, lines, bad, shown, bad_lines)
    return CheckedFile(
        file=file,
        source=digest.hexdigest(),
        lines=lines,
        records=records,
        last_record=last_record,
        start_ns=start_ns,
        last_ns=last_ns,
        bad_lines=bad,
        size_bytes=size,
        modified_ns=modified,
    )


def rows_after(checked: CheckedFile, line: int, settings: FeedSettings) -> Iterator[ReadLines]:
    """Read a checked file again and yield, block by block, its rows beyond `line` and all of the blocks' bad lines.

    Raises:
        ConfigurationError: the file has changed since it was checked; what was yielded before is of the old one.
    """
    file, digest = checked.file, hashlib.sha256()
    for block in read_blocks(file.path, settings.import_block_bytes):
        if _stat(file) != (checked.size_bytes, checked.modified_ns):
            raise _changed(file)
        digest.update(block.content)
        if block.last <= line and not checked.bad_lines:
            continue
        read = read_lines(block, data_type=file.data_type, symbol=file.symbol, source=checked.source)
        yield ReadLines(read.rows.filter(pl.col("source_sequence") > line), read.bad)
    if digest.hexdigest() != checked.source:
        raise _changed(file)


def read_ticks(file: TickFile, settings: FeedSettings) -> pl.DataFrame:
    """Return all rows of a file at once, for those that fit into memory."""
    checked = check_file(file, settings)
    return pl.concat(read.rows for read in rows_after(checked, 0, settings))


def _refused(file: TickFile, lines: int, bad: int, shown: list[BadLine], bad_lines: BadLines) -> ConfigurationError:
    named = "\n".join(f"  {file.path}:{entry.line}: {entry.shown} ({entry.expected})" for entry in shown)
    advice = (
        "Mend or remove the lines, or import with --bad-lines dead-letter"
        if bad_lines is BadLines.REFUSE
        else f"So many bad lines are no {file.data_type} (K2_FEEDS__BAD_LINES_RATIO_MAX): is it the right file?"
    )
    return ConfigurationError(
        f"expected {shown[0].expected}, found {bad} bad lines of {lines} in {file.data_type} of {file.symbol}; "
        f"nothing was sent. {advice}. The first ones:\n{named}"
    )


def _changed(file: TickFile) -> ConfigurationError:
    return ConfigurationError(
        f"expected {file.path} as it was when it was checked, found it changed meanwhile; what was sent of it counts "
        "as the old file's. Import again once nobody writes it"
    )


def _stat(file: TickFile) -> tuple[int, int]:
    try:
        found = file.path.stat()
    except OSError as error:
        raise ConfigurationError(f"cannot read {file.path}: {error.strerror}") from error
    return found.st_size, found.st_mtime_ns
