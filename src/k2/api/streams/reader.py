"""Reads one stream: history and what was missed from the engine page by page, what is new from the hub."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import polars as pl
import pyarrow as pa

from k2.api.formats import table_lines
from k2.api.streams.events import Event, json_event
from k2.api.streams.position import Position, position_of, subject_of
from k2.common.errors import OverloadedError
from k2.query.request import QueryRequest, RowKey
from k2.schemas.records import ORDER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from k2.api.ports import AnswersStreams
    from k2.api.settings import ApiSettings
    from k2.api.streams.hub import LiveHub
    from k2.api.streams.subscription import Batch, StreamRequest, Subscription

Key = tuple[int, int, int, int]
SLOW_READER: Final = "slow_reader"
"""The word for programs in the refusal to go on with a reader that is too slow."""
_NO_KEY: Final = (2**63, 0, 0, 0)


@dataclass(slots=True)
class _Read:
    """What has been read of one symbol and not been sent, up to `last`; `is_all` where nothing follows."""

    rows: pa.Table | None = None
    last: RowKey | None = None
    is_all: bool = False

    @property
    def needs_more(self) -> bool:
        return not self.is_all and (self.rows is None or not self.rows.num_rows)


@dataclass(slots=True)
class _Reading:
    """The rows of a prefix in the making, merged over the symbols."""

    of_symbol: dict[str, _Read] = field(default_factory=dict)


class StreamReader:
    """Where one stream stands. `page` asks the engine and blocks; `drain` takes what waits, at once."""

    def __init__(
        self,
        request: StreamRequest,
        position: Position,
        *,
        engine: AnswersStreams,
        hub: LiveHub,
        subscription: Subscription,
        settings: ApiSettings,
    ) -> None:
        self.request = request
        self.position = position
        self._sent = position
        self._paging = threading.Lock()
        self._ready: list[Event] | None = None
        self.needs_page = True
        self._engine = engine
        self._hub = hub
        self._subscription = subscription
        self._settings = settings
        self._subject = subject(request)
        self._reading: _Reading | None = None
        self._has_joined = False

    @property
    def cursor(self) -> str:
        """Return where a client goes on that has got all events so far."""
        return self._sent.to_text(self._subject)

    def page(self) -> None:
        """Read the next rows of the prefix that is being sent; `ready` gives them, however often this is called.

        A call whose caller did not wait for its end goes on, so that another one may find its work done.

        Raises:
            K2Error: as the engine's `query`; the next call goes on at the same place.
        """
        with self._paging:
            if self._ready is None:
                self._ready = self._page()

    def ready(self) -> list[Event]:
        """Return what `page` has read; after the last rows of the prefix `needs_page` is off."""
        events, self._ready = self._ready or [], None
        self._sent = self.position
        return events

    def with_bars_up_to(self, at_ns: int) -> str:
        """Note that all bars up to a time are sent with the next event; return its cursor."""
        self.position = replace(self.position, bars_from_ns=at_ns)
        self._sent = self.position
        return self.cursor

    def drain(self) -> list[Event]:
        """Return the events of what waits.

        Raises:
            OverloadedError: the reader is too slow, and would rather be ended.
        """
        batches = self._subscription.take()
        if self._subscription.is_too_slow:
            raise OverloadedError(
                "the reader took too long (on_slow=disconnect): go on at the last event's id",
                dependency="api",
                reason=SLOW_READER,
            )
        events = [event for batch in batches for event in self._of_batch(batch)]
        self._sent = self.position
        if not batches and self._subscription.is_behind:
            self.needs_page = True
        return events

    def _page(self) -> list[Event]:
        if self._reading is None:
            if self.position.after is None:
                self.position = self.position.widened(self._hub.join(self._subscription, self.position))
                self._has_joined = True
            if not self.position.is_whole:
                self._reading = _Reading({symbol: _Read(last=self.position.after) for symbol in self.request.symbols})
        if self._reading is None:
            self._ended()
            return []
        rows, is_last = self._next(self._reading)
        events = list(self._events(rows))
        if is_last:
            self._reading = None
            self.position = self.position.whole
            self._ended()
            if events:
                events[-1] = replace(events[-1], cursor=self._text())
        return events

    def _text(self) -> str:
        return self.position.to_text(self._subject)

    def _ended(self) -> None:
        """Go on with what the hub gives; a prefix that was begun before joining is followed by another."""
        self.needs_page = not self._has_joined
        self._has_joined = False

    def _of_batch(self, batch: Batch) -> Iterator[Event]:
        before = self._text() if batch.is_left_out else None
        self.position = self.position.passed(batch.spans, batch.commit_sequence)
        if batch.is_left_out:
            ranges = [
                {"log_id": at.log_id, "log_partition": at.partition, "start": span.start, "end": span.end}
                for at, span in sorted(batch.spans.items())
            ]
            yield json_event("left_out", {"rows": batch.rows, "ranges": ranges, "cursor": before}, self._text())
        elif batch.rows:
            yield Event("rows", b"[" + batch.body + b"]", self._text(), batch.rows)

    def _next(self, reading: _Reading) -> tuple[pa.Table, bool]:
        """Return the next rows in order over all symbols, and whether nothing follows them.

        Of each symbol so much is read that no row of it can come before the last one returned.
        """
        for symbol, read in reading.of_symbol.items():
            if read.needs_more:
                self._read_on(symbol, read)
        bounds = [_key(read.last) for read in reading.of_symbol.values() if not read.is_all]
        bound = min(bounds, default=_NO_KEY)
        tables = [read.rows for read in reading.of_symbol.values() if read.rows is not None]
        rows = pa.concat_tables(tables).sort_by([(name, "ascending") for name in ORDER])
        count = _up_to(rows, bound)
        for read in reading.of_symbol.values():
            if read.rows is not None:
                read.rows = read.rows.slice(_up_to(read.rows, bound))
        return rows.slice(0, count), not bounds

    def _read_on(self, symbol: str, read: _Read) -> None:
        request, position = self.request, self.position
        answer = self._engine.query(
            QueryRequest(
                data_type=request.data_type,
                symbol=symbol,
                exchange=request.exchange,
                start_ns=position.start_ns,
                limit=self._settings.stream_page_rows,
                after=read.last,
                since=position.since,
                as_of=position.prefix.to_token(),
                amendments="raw",
                deferred="read",
            )
        )
        read.rows, read.last = answer.table, answer.next_after
        read.is_all = answer.next_after is None

    def _events(self, rows: pa.Table) -> Iterator[Event]:
        """Give the rows as events; the position moves with each of them."""
        most = self._settings.stream_event_rows_max
        for start in range(0, rows.num_rows, most):
            part = rows.slice(start, most)
            last = part.slice(part.num_rows - 1).select(list(ORDER)).to_pylist()[0]
            self.position = replace(self.position, after=RowKey(**last))
            yield Event("rows", b"[" + b",".join(table_lines(part)) + b"]", self._text(), part.num_rows)


def subject(request: StreamRequest) -> str:
    """Return the digest of what a stream is about; a cursor goes on only there."""
    return subject_of(request.data_type, sorted(request.symbols), request.exchange, request.bars)


def resumed(request: StreamRequest, cursor: str) -> Position:
    """Return the position that a cursor names; QueryError if it is none of this stream."""
    return position_of(cursor, subject(request), request.data_type)


def _key(key: RowKey | None) -> Key:
    assert key is not None
    return key.ts_event_ns, key.log_id, key.log_partition, key.log_offset


def _up_to(rows: pa.Table, bound: Key) -> int:
    """Return how many of the rows, which are in order, are not behind the bound."""
    if bound == _NO_KEY:
        return int(rows.num_rows)
    later = pl.lit(value=False)
    for name, value in reversed(list(zip(ORDER, bound, strict=True))):
        later = (pl.col(name) > value) | ((pl.col(name) == value) & later)
    keys = pl.DataFrame(pl.from_arrow(rows.select(list(ORDER))))
    return int(keys.filter(~later).height)
