"""Brings mapped files into the log, each record once: resumes after what the platform holds, adds nothing twice."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import polars as pl

from k2.feeds.channel import end_key
from k2.feeds.mapped.files import check_mapped, read_again
from k2.feeds.resuming import ResumingOutlet
from k2.kafka.producer import partition_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from k2.feeds.asx_lines import BadLine
    from k2.feeds.bad_lines import BadLines
    from k2.feeds.channel import Channel
    from k2.feeds.held import HeldSource
    from k2.feeds.mapped.files import CheckedMapped, MappedFile
    from k2.feeds.settings import FeedSettings

    Told = Callable[[Path, int, int | None], None]

_KEY_DIGITS = 16


@dataclass(frozen=True, slots=True)
class ImportedFile:
    """What became of one file: of `records` records, `held` were there before and `sent` were added.

    Of `bad_lines` lines that are no record, `dead_letters` were sent to the dead-letter topic now, the others before.
    """

    file: MappedFile
    records: int
    symbols: int
    held: int
    sent: int
    bad_lines: int
    dead_letters: int


def check_all(
    files: Iterable[MappedFile], settings: FeedSettings, *, bad_lines: BadLines, on_progress: Told
) -> list[CheckedMapped]:
    """Read every file before anything is sent; ConfigurationError for the first that is not what it should be."""
    checked = []
    for file in files:
        checked.append(check_mapped(file, settings, bad_lines=bad_lines))
        on_progress(file.path, 0, checked[-1].records)
    return checked


def import_all(
    files: Iterable[CheckedMapped], *, channel: Channel, held: HeldSource, on_progress: Told
) -> list[ImportedFile]:
    """Import each checked file; `on_progress(path, done, records)` is told after each block."""
    importer = _Importer(channel, held)
    return [importer.run(checked, on_progress) for checked in files]


class _Importer:
    """Files on their way into the log.

    A file's records of one partition are sent in its order, so the highest line held there says that all before it are.
    A block's dead letters are acknowledged before its rows are sent. So whatever bad line lies below a row that is held
    has its dead letter, also when the dead-letter topic has forgotten it; only those above are looked up there.
    """

    def __init__(self, channel: Channel, held: HeldSource) -> None:
        self._channel = channel
        self._held = held

    def run(self, checked: CheckedMapped, on_progress: Told) -> ImportedFile:
        mapping = checked.file.mapping
        highest = self._highest(checked)
        lettered = self._lettered(checked)
        outlet = ResumingOutlet(self._channel, {mapping.data_type: highest})
        done = letters = 0
        for read in read_again(checked):
            new = [bad for bad in read.bad if bad.line > max(highest) and bad.line not in lettered]
            self._send_letters(checked, new)
            outlet.send(mapping.data_type, read.rows)
            done += read.rows.height
            letters += len(new)
            on_progress(checked.file.path, done, checked.records)
        self._channel.flush()
        self._mark_ends(checked, is_sent=outlet.sent > 0)
        return ImportedFile(
            checked.file,
            checked.records,
            checked.sessions["symbol"].n_unique(),
            outlet.left_out,
            outlet.sent,
            checked.bad_lines,
            letters,
        )

    def _highest(self, checked: CheckedMapped) -> list[int]:
        """Return the highest line held per partition; of a symbol that is the mapping's own, in its partition alone."""
        mapping = checked.file.mapping
        topic = self._channel.topic(mapping.data_type)
        if mapping.symbol is None:
            return self._held.highest_by_partition(
                topic, source=checked.source, start_ns=checked.start_ns, end_ns=checked.last_ns + 1
            )
        highest = [0] * topic.partitions
        highest[partition_for(mapping.symbol.encode(), topic.partitions)] = self._held.highest(
            topic,
            symbol=mapping.symbol,
            source=checked.source,
            start_ns=checked.start_ns,
            last_ns=checked.last_ns,
        )
        return highest

    def _lettered(self, checked: CheckedMapped) -> set[int]:
        if not checked.bad_lines:
            return set()
        topic = self._channel.topic(checked.file.mapping.data_type)
        return self._held.dead_lines(topic, symbol=_letter_key(checked), source=checked.source)

    def _send_letters(self, checked: CheckedMapped, bad: list[BadLine]) -> None:
        if bad:
            data_type = checked.file.mapping.data_type
            self._channel.send_bad_lines(data_type, _letter_key(checked), checked.source, bad)
            self._channel.flush()

    def _mark_ends(self, checked: CheckedMapped, *, is_sent: bool) -> None:
        """Mark how far the venue's numbers went; of records without numbers there is nothing to miss."""
        data_type = checked.file.mapping.data_type
        ends = _ends(checked)
        if not is_sent:
            unmarked = [
                symbol for symbol in ends["symbol"] if end_key(checked.source, symbol, data_type) not in self._marked
            ]
            ends = ends.filter(pl.col("symbol").is_in(pl.Series(unmarked, dtype=pl.String).implode()))
        if ends.height:
            self._channel.mark_end(data_type, ends)

    @cached_property
    def _marked(self) -> set[bytes]:
        return self._held.keys(self._channel.topic("status"))


def _letter_key(checked: CheckedMapped) -> str:
    """Return the key of a file's dead letters: its symbol, or where its lines have several, the file itself."""
    return checked.file.mapping.symbol or checked.source[:_KEY_DIGITS]


def _ends(checked: CheckedMapped) -> pl.DataFrame:
    """Return how far each numbered symbol came: in its last session, for each has numbers of its own."""
    newest = pl.col("sequence").sort_by("trading_date").last()
    return (
        checked.sessions.group_by("symbol")
        .agg(newest.alias("last_sequence"), pl.col("source_sequence").max(), pl.col("records").sum())
        .filter(pl.col("last_sequence").is_not_null())
        .sort("symbol")
        .select(
            pl.lit(checked.source).alias("source"),
            "symbol",
            "last_sequence",
            pl.col("source_sequence").alias("last_source_sequence"),
            "records",
        )
    )
