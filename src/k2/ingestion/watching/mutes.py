"""Notices streams that fall silent beyond what their own rhythm makes likely: a symbol, or all symbols of a partition.

Time is the log's append time, counted while the venue is open. A partition's newest record tells how late it is for the
others; once a partition has no record left to read, the machine's clock does. While a whole partition is silent, its
symbols are not told of one by one. Records that were received long before the log has them (an import, a replay of
history) have no rhythm, and are not looked at.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from k2.common.logging import get_logger
from k2.common.units import NS_PER_SECOND
from k2.ingestion import events
from k2.ingestion.watching.open_hours import CLOSED, OpenHours
from k2.ingestion.watching.rhythm import RhythmRules, Rhythms
from k2.kafka.topics import exchange_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from k2.common.clock import Clock
    from k2.ingestion.duplicates.deduplicator import Part
    from k2.storage.seam import LogPartition

    Ints = NDArray[np.int64]

log = get_logger(__name__)

_NOT_NOW_NS: Final = 2**62
"""A time from which on silence is counted that never comes."""
_FEED: Final = None
"""Stands for all symbols of a partition."""


@dataclass(slots=True)
class _Group:
    """One partition of one exchange's trades or quotes; the first of its streams is all of them together."""

    exchange: str
    codes: dict[str | None, int] = field(default_factory=dict)
    names: list[str | None] = field(default_factory=list)
    muted: dict[int, int] = field(default_factory=dict)
    """Since when, in open nanoseconds, the streams that were told of are silent."""
    base_ns: int = -(2**62)
    """Silence is counted from here at the earliest: the end of the partition's own."""

    @property
    def streams(self) -> Ints:
        """Return the numbers of the streams, all together first."""
        return np.fromiter(self.codes.values(), np.int64, len(self.codes))


class MuteWatch:
    """Watches every stream of every table; the worker's threads may share it."""

    def __init__(
        self,
        hours: Mapping[str, OpenHours],
        *,
        rules: RhythmRules,
        streams_max: int,
        live_seconds_max: float,
        clock: Clock,
        observer: events.Observer,
    ) -> None:
        """Begin; an exchange without `hours` is always open. Streams beyond `streams_max` are not watched."""
        self._hours = dict(hours)
        self._rhythms = Rhythms(rules)
        self._streams_max = streams_max
        self._live_ns_max = int(live_seconds_max * NS_PER_SECOND)
        self._clock = clock
        self._observe = observer
        self._groups: dict[tuple[str, str, int], _Group] = {}
        self._streams = 0
        self._is_full = False
        self._lock = threading.Lock()

    def committed(self, table: str, parts: Mapping[LogPartition, Part]) -> None:
        """Learn from a batch, and see who is silent by its end; see BatchWatcher."""
        with self._lock:
            for at, part in parts.items():
                if part.frames:
                    self._learn(table, at.partition, part.frames)

    def skipped(self, table: str) -> None:
        """Count no silence until a batch is shown again, and only from its beginning on; see BatchWatcher."""
        with self._lock:
            for (of_table, _, _), group in self._groups.items():
                if of_table == table:
                    group.base_ns = _NOT_NOW_NS

    def __call__(self, event: events.Event, /) -> None:
        """See who is silent by now, where a partition has no record left to read."""
        if isinstance(event, events.LagMeasured) and event.records == 0:
            with self._lock:
                group = self._groups.get((event.table, exchange_of(event.topic), event.partition))
                if group is not None:
                    self._check(event.table, event.partition, group, self._clock.time_ns())

    def _learn(self, table: str, partition: int, frames: Sequence[pl.DataFrame]) -> None:
        exchange = frames[0]["exchange"][0]
        group = self._groups.setdefault((table, exchange, partition), _Group(exchange))
        logged_ns = pl.col("ts_log").dt.epoch("ns")
        rows = pl.concat([frame.select("symbol", "ts_recv_ns", time_ns=logged_ns) for frame in frames])
        newest_ns = int(rows["time_ns"].to_numpy().max())
        moments = self._hours_of(exchange).at(rows["time_ns"].to_numpy())
        rows = rows.with_columns(session=pl.Series(moments.session), open_ns=pl.Series(moments.open_ns)).filter(
            pl.col("session") != CLOSED, pl.col("time_ns") - pl.col("ts_recv_ns") <= self._live_ns_max
        )
        if rows.height:
            if group.base_ns == _NOT_NOW_NS:
                group.base_ns = int(rows["open_ns"].to_numpy().min())
            for name in [_FEED, *rows["symbol"].unique(maintain_order=True).to_list()]:
                self._number(group, name)
        self._arrived(table, partition, group, rows)
        self._check(table, partition, group, newest_ns)

    def _arrived(self, table: str, partition: int, group: _Group, rows: pl.DataFrame) -> None:
        if rows.is_empty() or _FEED not in group.codes:
            return
        codes = pl.DataFrame({"symbol": list(group.codes), "code": list(group.codes.values())})
        both = pl.concat([rows.with_columns(symbol=pl.lit(None, pl.String)), rows])
        known = both.join(codes, on="symbol", how="inner", nulls_equal=True).sort("code", "open_ns")
        firsts = known.group_by("code", maintain_order=True).agg(pl.col("open_ns").first()).rows()
        for code, first_ns in firsts:
            since_ns = group.muted.pop(code, None)
            if since_ns is not None:
                self._tell_end(table, partition, group, code, first_ns, since_ns)
        self._rhythms.heard(*(known[name].cast(pl.Int64).to_numpy() for name in ("code", "open_ns", "session")))

    def _check(self, table: str, partition: int, group: _Group, now_ns: int) -> None:
        moment = self._hours_of(group.exchange).at(np.array([now_ns], np.int64))
        if moment.session[0] == CLOSED or not group.codes:
            return
        streams = group.streams
        since = np.maximum(self._rhythms.last_ns[streams], max(int(moment.since_ns[0]), group.base_ns))
        silent = int(moment.open_ns[0]) - since
        over = silent > self._rhythms.limit_ns[streams]
        feed = int(streams[0])
        if feed in group.muted:
            return
        for place in np.flatnonzero(over).tolist():
            code = int(streams[place])
            if code in group.muted:
                continue
            group.muted[code] = int(since[place])
            self._observe(
                events.StreamSilent(
                    table,
                    group.exchange,
                    partition,
                    group.names[place],
                    float(silent[place]) / NS_PER_SECOND,
                    float(self._rhythms.limit_ns[code]) / NS_PER_SECOND,
                )
            )
            if code == feed:
                return

    def _tell_end(self, table: str, partition: int, group: _Group, code: int, heard_ns: int, since_ns: int) -> None:
        name = next(name for name, each in group.codes.items() if each == code)
        if name is _FEED:
            group.base_ns = heard_ns
        seconds = (heard_ns - since_ns) / NS_PER_SECOND
        self._observe(events.StreamHeard(table, group.exchange, partition, name, seconds))

    def _number(self, group: _Group, name: str | None) -> None:
        if name in group.codes:
            return
        if self._streams >= self._streams_max:
            if not self._is_full:
                self._is_full = True
                log.warning("mute_watch_full", streams=self._streams, meaning="streams met from now on are not watched")
            return
        group.codes[name] = self._streams
        group.names.append(name)
        self._streams += 1
        self._rhythms.make_room(self._streams)

    def _hours_of(self, exchange: str) -> OpenHours:
        return self._hours.setdefault(exchange, OpenHours())
