"""Follows the tail for many readers at once: which rows of their symbols have come since the last look, each once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import polars as pl

from k2.common.errors import ConfigurationError, CorruptionError, QueryError, UnavailableError
from k2.query.certificate import AsOf, PartitionRead
from k2.query.deferred import concerning
from k2.schemas.records import ORDER, RECORD_TYPES
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from k2.kafka.ports import TopicPartition
    from k2.kafka.topics import Topic
    from k2.query.chunks import View
    from k2.query.following import Followed
    from k2.query.kafka_tail import KafkaTail
    from k2.query.ports import Plans
    from k2.query.tail_duplicates import TailDuplicates
    from k2.storage.planning import PinnedSnapshot

_PARTITION: Final = ("log_id", "log_partition")


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets [start, end) of one partition; `begins` is the first offset that its table was to hold."""

    exchange: str
    begins: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Where a reader of everything stands: of each partition the offset where it begins and the next one to come.

    The table's rows up to the commit `commit_sequence` all lie below the next offsets.
    """

    places: Mapping[LogPartition, Span]
    commit_sequence: int


@dataclass(frozen=True, slots=True)
class Advance:
    """What one look has found. Each span begins where the one before it ended, unless the tail was outrun."""

    spans: Mapping[LogPartition, Span]
    rows: pl.DataFrame
    """The symbols' rows of the spans in order, as an answer shows them raw; none of the undecided symbols."""
    undecided: frozenset[str] = frozenset()
    """Symbols of which memory does not tell what repeats an earlier record: the engine does."""


@dataclass(slots=True)
class _Look:
    """One look in the making."""

    views: dict[LogPartition, View] = field(default_factory=dict)
    spans: dict[LogPartition, Span] = field(default_factory=dict)


class TailFollower:
    """Follows one data type. One thread at a time uses it."""

    def __init__(
        self,
        data_type: str,
        topics: Sequence[Topic],
        *,
        tail: KafkaTail,
        planner: Plans,
        duplicates: TailDuplicates,
    ) -> None:
        self._data_type = data_type
        self._exchanges = sorted({topic.exchange for topic in topics})
        self._tail = tail
        self._planner = planner
        self._duplicates = duplicates
        self._pinned: PinnedSnapshot | None = None
        self._ends: dict[LogPartition, int] = {}
        self._empty = tail.empty(data_type)

    @property
    def trouble(self) -> str | None:
        """Return why nothing comes now; None while the tail follows."""
        error = self._tail.trouble or self._tail.watch_trouble
        return None if error is None else str(error)

    def jump(self) -> None:
        """Go on from where the tail is now: nobody has followed meanwhile."""
        for (topic, number), followed in self._keys().items():
            view = self._tail.view((topic, number))
            if view is not None:
                at = LogPartition(followed.log.log_id, number)
                self._ends[at] = max(view.end, self._ends.get(at, 0))

    def check_exchange(self, exchange: str | None) -> None:
        """See that there is such an exchange; QueryError if not."""
        if exchange is not None and exchange not in self._exchanges:
            raise QueryError(f"expected an exchange of topics.yaml ({', '.join(self._exchanges)}), found {exchange!r}")

    def ends(self, exchange: str | None) -> Ends:
        """Return where this follower stands; of logs that nobody follows, where the table ends.

        Raises:
            UnavailableError: the catalog is down, or the tail has not come as far as the table yet.
        """
        head = self._pin().head
        logs = {log.log_id: log for log in head.logs}
        followed = {LogPartition(item.log.log_id, key[1]) for key, item in self._keys().items()}
        places = {}
        for at, known in head.seam.partitions.items():
            log = logs.get(at.log_id)
            place = None if log is None else log.topic.rpartition(".")[2]
            if log is None or place is None or exchange not in (None, place):
                continue
            end = known.next_offset
            if head.log_of(log.topic) == log:
                end = self._ends.get(at, -1) if at in followed else -1
                if end < known.next_offset:
                    raise UnavailableError(
                        f"expected the tail of {log.topic} partition {at.partition} at offset {known.next_offset}, "
                        f"where the table ends, found it at {max(end, 0)}: ask again in a moment"
                        f"{'' if self.trouble is None else f'; {self.trouble}'}",
                        dependency="kafka",
                    )
            places[at] = Span(place, log.starts.get(at.partition, 0), end, end)
        return Ends(places, head.seam.commit_sequence)

    def prefix(self, exchange: str | None) -> AsOf:
        """Return the prefix of the log up to where this follower stands, as a token holds it."""
        ends = self.ends(exchange)
        seam = self._pin_held().head.seam
        places = tuple(
            (at.log_id, at.partition, seam.partitions[at].next_offset, span.end)
            for at, span in sorted(ends.places.items())
        )
        deferred = tuple(
            (entry.log_id, entry.partition, entry.start, entry.end)
            for entry in seam.deferred
            if LogPartition(entry.log_id, entry.partition) in ends.places
        )
        return AsOf(self._data_type, exchange, seam.commit_sequence, places, deferred)

    def homes(self, symbols: Collection[str]) -> frozenset[LogPartition]:
        """Return the partitions in which the records of these symbols lie."""
        placement = self._tail.placement
        return frozenset(
            LogPartition(item.log.log_id, number)
            for (topic, number), item in self._keys().items()
            if topic in placement.strays
            or any(placement.own_partition(symbol, item.log.partitions) == number for symbol in symbols)
        )

    def known_commit(self) -> int:
        """Return the newest commit that is seen to lie below where this follower stands; 0 where none is."""
        head = self._tail.state.heads.get(self._data_type)
        if head is None:
            return 0
        newest = {log.log_id for log in head.logs if head.log_of(log.topic) == log}
        below = all(
            self._ends.get(at, -1) >= known.next_offset
            for at, known in head.seam.partitions.items()
            if at.log_id in newest
        )
        return head.seam.commit_sequence if below else 0

    def step(self, symbols: Collection[str]) -> Advance:
        """Return what has come since the last step. What cannot be decided without the catalog is left undecided."""
        with self._tail.lease():
            look = self._look()
            rows = self._rows(look, symbols)
            rows, undecided = self._decided(look, rows)
        self._ends.update({at: span.end for at, span in look.spans.items()})
        return Advance(look.spans, rows.sort(*ORDER), frozenset(undecided))

    def _keys(self) -> dict[TopicPartition, Followed]:
        followed = self._tail.state.followed
        return {
            (name, number): item
            for name, item in followed.items()
            if item.topic.data_type == self._data_type
            for number in range(item.log.partitions)
        }

    def _look(self) -> _Look:
        look = _Look()
        for (topic, number), followed in self._keys().items():
            at, view = LogPartition(followed.log.log_id, number), self._tail.view((topic, number))
            if view is None:
                continue
            begins = followed.log.starts.get(number, 0)
            reached = self._ends.get(at, begins)
            if view.end > reached:
                look.views[at] = view
                look.spans[at] = Span(followed.topic.exchange, begins, max(reached, view.start), view.end)
        return look

    def _rows(self, look: _Look, symbols: Collection[str]) -> pl.DataFrame:
        frames = [self._empty]
        wanted = pl.Series(sorted(symbols), dtype=pl.String).implode()
        for at, span in look.spans.items():
            held = look.views[at].slice(None, span.start, span.end)
            frames += [rows.filter(pl.col("symbol").is_in(wanted)) for rows in held.frames]
        return pl.concat(frames)

    def _decided(self, look: _Look, rows: pl.DataFrame) -> tuple[pl.DataFrame, set[str]]:
        """Return the rows that repeat no earlier one, and the symbols of which that cannot be told here."""
        named = self._duplicates.named(rows, RECORD_TYPES[self._data_type])
        if named.is_empty():
            return rows, set()
        suspects = rows[named["place"]]
        try:
            pinned = self._pin()
        except (UnavailableError, ConfigurationError, CorruptionError):
            if self._pinned is None:
                return self._less(rows, set(suspects["symbol"].to_list()))
            pinned = self._pinned  # its files are what they were, and the tail still holds what lies above its seam
        lows = {at: min(pinned.head.seam.next_offset(at) or 0, span.start) for at, span in look.spans.items()}
        blind = [at for at, low in lows.items() if look.views[at].start > low]
        undecided = self._held_back(pinned, look, suspects["symbol"].unique().to_list())
        if blind:
            places = pl.DataFrame([(at.log_id, at.partition) for at in blind], schema=_PARTITION, orient="row")
            casts = [pl.col(name).cast(pl.Int64) for name in _PARTITION]
            unseen = suspects.with_columns(casts).join(places, on=list(_PARTITION), how="semi")
            undecided |= set(unseen["symbol"].to_list())
        rows, undecided = self._less(rows, undecided)
        try:
            return self._without_repeated(look, pinned, lows, rows), undecided
        except (UnavailableError, CorruptionError, QueryError):
            return self._less(rows, undecided | set(suspects["symbol"].to_list()))

    def _without_repeated(
        self, look: _Look, pinned: PinnedSnapshot, lows: Mapping[LogPartition, int], rows: pl.DataFrame
    ) -> pl.DataFrame:
        """Compare with what the table and the tail hold of the same symbols and times: only that can be the same."""
        alike = pl.col("symbol").is_in(rows["symbol"].unique().implode()) & pl.col("ts_event_ns").is_in(
            rows["ts_event_ns"].unique().implode()
        )
        earlier = [
            frame.filter(alike)
            for at, low in lows.items()
            for frame in look.views[at].slice(None, low, look.spans[at].start).frames
        ]
        kept = self._duplicates.among(
            pl.concat([*earlier, rows]),
            RECORD_TYPES[self._data_type],
            pinned,
            symbols=rows["symbol"].unique().to_list(),
            on_damage=_refuse,
        )
        return rows.join(kept.select(*_PARTITION, "log_offset"), on=[*_PARTITION, "log_offset"], how="semi")

    def _held_back(self, pinned: PinnedSnapshot, look: _Look, symbols: Sequence[str]) -> set[str]:
        """Return the symbols of which earlier records are deferred: one of them may be what a new one repeats."""
        head = pinned.head
        if not head.seam.deferred:
            return set()
        topics = {log.log_id: log.topic for log in head.logs}
        read = [
            PartitionRead(at.log_id, topics[at.log_id], at.partition, span.start, span.end)
            for at, span in look.spans.items()
            if at.log_id in topics
        ]
        strays = self._tail.placement.strays
        return {symbol for symbol in symbols if concerning(head, symbol, read, strays)}

    @staticmethod
    def _less(rows: pl.DataFrame, symbols: set[str]) -> tuple[pl.DataFrame, set[str]]:
        if not symbols:
            return rows, symbols
        return rows.filter(~pl.col("symbol").is_in(pl.Series(sorted(symbols)).implode())), symbols

    def _pin(self) -> PinnedSnapshot:
        self._pinned = self._planner.pin(self._data_type)
        return self._pinned

    def _pin_held(self) -> PinnedSnapshot:
        assert self._pinned is not None
        return self._pinned


def _refuse(error: CorruptionError) -> None:
    raise error
