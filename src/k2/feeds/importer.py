"""Brings tick files into the log, each record once: resumes after what the platform holds, adds nothing twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from k2.feeds.asx import CheckedFile, check_file, rows_after
from k2.feeds.channel import end_key
from k2.schemas.instruments import states_the_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from k2.feeds.asx import TickFile
    from k2.feeds.asx_lines import BadLine
    from k2.feeds.bad_lines import BadLines
    from k2.feeds.channel import Channel
    from k2.feeds.held import HeldSource
    from k2.feeds.settings import FeedSettings

    Told = Callable[[TickFile, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one file: of `records` records, `held` were there before and `sent` were added.

    Of `bad_lines` lines that are no record, `dead_letters` were sent to the dead-letter topic now, the others before.
    """

    file: TickFile
    records: int
    held: int
    sent: int
    bad_lines: int = 0
    dead_letters: int = 0


@dataclass(frozen=True, slots=True)
class ImportedReference:
    """What became of the reference data: of `records` records, `sent` were new or said something new."""

    records: int
    sent: int


def check_files(
    files: Iterable[TickFile], settings: FeedSettings, *, bad_lines: BadLines, on_progress: Told
) -> list[CheckedFile]:
    """Read every file before anything is sent; ConfigurationError for the first that is not what it should be."""
    checked = []
    for file in files:
        checked.append(check_file(file, settings, bad_lines=bad_lines))
        on_progress(file, 0, checked[-1].records)
    return checked


def import_reference(
    records: Mapping[bytes, Mapping[str, Any]], *, channel: Channel, held: HeldSource
) -> ImportedReference:
    """Send the reference records of which the topic does not hold the same already, latest per key."""
    known = held.instruments(channel.topic("instruments"))
    new = {
        key: record for key, record in records.items() if key not in known or not states_the_same(record, known[key])
    }
    channel.send_instruments(new)
    return ImportedReference(len(records), len(new))


def import_files(
    files: Iterable[CheckedFile], *, channel: Channel, held: HeldSource, settings: FeedSettings, on_progress: Told
) -> list[Imported]:
    """Import each checked file; `on_progress(file, done, records)` is told after each block.

    A file's end marker follows its records.
    """
    return [_Import(checked, channel, held, settings).run(on_progress) for checked in files]


class _Import:
    """One file on its way into the log.

    A block's dead letters are acknowledged before its rows are sent. So whatever bad line lies below a row that is held
    has its dead letter, also when the dead-letter topic has forgotten it; only those above are looked up there.
    """

    def __init__(self, checked: CheckedFile, channel: Channel, held: HeldSource, settings: FeedSettings) -> None:
        self._checked = checked
        self._channel = channel
        self._held = held
        self._settings = settings

    def run(self, on_progress: Told) -> Imported:
        checked, file = self._checked, self._checked.file
        topic = self._channel.topic(file.data_type)
        highest = self._held.highest(
            topic,
            symbol=file.symbol,
            source=checked.source,
            start_ns=checked.start_ns,
            last_ns=checked.last_ns,
        )
        lettered = (
            self._held.dead_lines(topic, symbol=file.symbol, source=checked.source) if checked.bad_lines else set()
        )
        sent = letters = 0
        if highest < checked.last_record or checked.bad_lines:
            for read in rows_after(checked, highest, self._settings):
                new = [bad for bad in read.bad if bad.line > highest and bad.line not in lettered]
                self._send_letters(new)
                self._channel.send(file.data_type, read.rows)
                sent += len(read.rows)
                letters += len(new)
                on_progress(file, sent, checked.records)
        self._channel.flush()
        if sent or self._end_key not in self._held.keys(self._channel.topic("status")):
            self._channel.mark_end(file.data_type, self._end())
        on_progress(file, checked.records, checked.records)
        return Imported(file, checked.records, checked.records - sent, sent, checked.bad_lines, letters)

    def _send_letters(self, bad: list[BadLine]) -> None:
        if bad:
            file = self._checked.file
            self._channel.send_bad_lines(file.data_type, file.symbol, self._checked.source, bad)
            self._channel.flush()

    @property
    def _end_key(self) -> bytes:
        return end_key(self._checked.source, self._checked.file.symbol, self._checked.file.data_type)

    def _end(self) -> pl.DataFrame:
        return pl.DataFrame(
            {
                "source": [self._checked.source],
                "symbol": [self._checked.file.symbol],
                "last_sequence": [self._checked.last_record],
                "last_source_sequence": [self._checked.last_record],
                "records": [self._checked.records],
            }
        )
