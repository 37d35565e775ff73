"""Gives each stream what is new of its symbols: one thread looks at the log for all, and writes each row once."""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from k2.api.formats import table_lines
from k2.api.problems import HttpProblemError
from k2.api.streams.position import Position, behind
from k2.api.streams.subscription import Batch, Subscription
from k2.common.errors import K2Error, OverloadedError, UnavailableError
from k2.common.logging import get_logger
from k2.query.merging import FROM_LOG, answer_schema, merged
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import polars as pl

    from k2.api.ports import AnswersStreams, Follows
    from k2.api.settings import ApiSettings
    from k2.api.streams.subscription import StreamRequest
    from k2.common.clock import Clock
    from k2.query.certificate import AsOf
    from k2.query.live.follower import Advance, Ends

log = get_logger(__name__)


class LiveHub:
    """The streams that are open. Its thread runs while there are any; `step` may be called by hand instead."""

    def __init__(self, engine: AnswersStreams, settings: ApiSettings, clock: Clock, *, threaded: bool = True) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._threaded = threaded
        self._followers: dict[str, Follows] = {}
        self._following = threading.Lock()
        self._open: dict[Subscription, str] = {}
        self._changing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self.is_ending = False
        self.counts: Counter[str] = Counter()

    @contextmanager
    def subscribed(self, request: StreamRequest, key_id: str, wake: Callable[[], None]) -> Iterator[Subscription]:
        """Give a subscription, until the block ends.

        Raises:
            OverloadedError, HttpProblemError: there are too many streams, of all keys or of this one.
        """
        subscription = Subscription(request, self._settings, wake)
        with self._changing:
            self._admit(key_id)
            self._open[subscription] = key_id
            self.counts["opened"] += 1
            if self._threaded and self._thread is None:
                self._thread = threading.Thread(target=self._run, name="k2-streams", daemon=True)
                self._thread.start()
        self._wake.set()
        try:
            yield subscription
        finally:
            with self._changing:
                del self._open[subscription]

    @property
    def streams(self) -> int:
        """Return how many streams are open."""
        return len(self._open)

    def trouble(self, data_type: str) -> str | None:
        """Return why nothing new comes of a data type now; None while the log is followed."""
        follower = self._followers.get(data_type)
        return None if follower is None else follower.trouble

    def begin(self, request: StreamRequest, *, with_history: bool, since: AsOf | None = None) -> Position:
        """Return where a stream begins: with history, behind the prefix of a token, or where the hub stands.

        Raises:
            QueryError: there is no such exchange, or the token is of an answer about something else.
            UnavailableError: the catalog or the log is out of reach, or the tail begins just now.
        """
        with self._following:
            follower = self._follower(request.data_type)
            follower.check_exchange(request.exchange)
            prefix = follower.prefix(request.exchange)
            homes = follower.homes(request.symbols) if since is not None else frozenset()
        if since is not None:
            return Position(behind(since, prefix, homes), start_ns=request.start_ns).whole
        position = Position(prefix, start_ns=request.start_ns)
        return position if with_history else position.whole

    def join(self, subscription: Subscription, position: Position) -> Ends:
        """Give the subscription what comes from here on; return where that is.

        Raises:
            UnavailableError: as of `begin`; or the stream is ahead of a tail that has just begun.
        """
        with self._following:
            ends = self._follower(subscription.request.data_type).ends(subscription.request.exchange)
            if position.is_ahead_of(ends):
                raise UnavailableError(
                    "expected the tail to have come as far as the stream has been, found it behind: it has just begun",
                    dependency="kafka",
                )
            subscription.begin(ends)
            self.counts["caught_up"] += 1
            return ends

    def step(self) -> None:
        """Look at the log once for all streams."""
        for data_type in tuple(RECORD_TYPES):
            with self._following:
                taking = self._taking(data_type)
                if taking:
                    follower = self._followers[data_type]
                    advance = follower.step({symbol for each in taking for symbol in each.symbols})
                    self._deliver(data_type, taking, advance, follower.known_commit())

    def end(self) -> None:
        """Have every stream say that it ends, and end."""
        self.is_ending = True
        self._stop.set()
        self._wake.set()
        with self._changing:
            subscriptions = tuple(self._open)
        for each in subscriptions:
            each.wake()

    def _admit(self, key_id: str) -> None:
        settings = self._settings
        if self.is_ending or len(self._open) >= settings.streams_max:
            self.counts["refused"] += 1
            raise OverloadedError(
                f"{len(self._open)} streams are open, of at most {settings.streams_max} (K2_API__STREAMS_MAX): come "
                "again later, or follow several symbols in one stream",
                dependency="api",
                retry_after_seconds=settings.retry_after_seconds,
                reason="streams",
            )
        if sum(key == key_id for key in self._open.values()) >= settings.key_streams_max:
            self.counts["refused"] += 1
            raise HttpProblemError(
                429,
                "Too much of one key",
                f"expected at most {settings.key_streams_max} streams of one key (K2_API__KEY_STREAMS_MAX): follow "
                "several symbols in one stream",
                {"Retry-After": "1"},
                reason="key_streams",
            )

    def _follower(self, data_type: str) -> Follows:
        """Return the follower; one that nobody needed for a while goes on from where the tail is."""
        follower = self._followers.get(data_type)
        if follower is None:
            follower = self._followers[data_type] = self._engine.live(data_type)
        if not self._taking(data_type):
            follower.jump()
        return follower

    def _taking(self, data_type: str) -> list[Subscription]:
        with self._changing:
            return [each for each in self._open if each.request.data_type == data_type and not each.is_behind]

    def _deliver(self, data_type: str, taking: Sequence[Subscription], advance: Advance, commit: int) -> None:
        if not advance.spans:
            return
        written = WrittenRows(data_type, advance.rows)
        for each in taking:
            request = each.request
            exchange = request.exchange
            spans = {at: span for at, span in advance.spans.items() if exchange in (None, span.exchange)}
            if spans:
                body, rows = written.of(request)
                each.add(Batch(body, rows, spans, commit), advance.undecided)

    def _run(self) -> None:
        while not self.is_ending:
            if not self._open:
                self._wake.clear()
                if not self._open and not self.is_ending:
                    self._wake.wait()
                continue
            began = self._clock.monotonic()
            try:
                self.step()
            except K2Error as error:
                log.warning("streams_cannot_look", reason=str(error))
            except Exception:  # the loop's edge: a hub that ended would leave all streams silent
                log.exception("streams_failed_to_look")
            self._stop.wait(max(0.0, began + self._settings.stream_batch_seconds - self._clock.monotonic()))


class WrittenRows:
    """Rows of one look, each written as JSON once, whoever asks for it."""

    def __init__(self, data_type: str, rows: pl.DataFrame) -> None:
        self._rows = rows
        self._lines: list[bytes] = []
        self._of_symbol: dict[str, list[int]] = {}
        if rows.height:
            self._lines = json_lines(data_type, rows)
            for number, symbol in enumerate(rows["symbol"].to_list()):
                self._of_symbol.setdefault(symbol, []).append(number)
        self._exchanges = rows["exchange"].to_list()
        self._times = rows["ts_event_ns"].to_list()

    def of(self, request: StreamRequest) -> tuple[bytes, int]:
        """Return the rows of a stream, joined by commas, and how many they are."""
        found = [number for symbol in request.symbols for number in self._of_symbol.get(symbol, ())]
        if len(request.symbols) > 1:
            found.sort()
        exchange, start_ns = request.exchange, request.start_ns
        if exchange is not None:
            found = [number for number in found if self._exchanges[number] == exchange]
        if start_ns is not None:
            found = [number for number in found if self._times[number] >= start_ns]
        return b",".join([self._lines[number] for number in found]), len(found)


def json_lines(data_type: str, rows: pl.DataFrame) -> list[bytes]:
    """Return each row as a JSON object with all columns of an answer; of rows of the log no commit is known."""
    record_type = RECORD_TYPES[data_type]
    schema = answer_schema(record_type, [field.name for field in record_type.fields])
    return table_lines(merged(None, rows, schema).drop_columns([FROM_LOG]))
