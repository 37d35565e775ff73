"""What one stream is about, and what waits for its reader: bounded, with a policy for readers that are slow."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from k2.api.settings import ApiSettings
    from k2.query.live.follower import Ends, Span
    from k2.query.request import DataType
    from k2.storage.seam import LogPartition

OnSlow = Literal["wait", "drop", "disconnect"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRequest:
    """What a client wants to follow."""

    data_type: DataType
    symbols: tuple[str, ...]
    exchange: str | None = None
    start_ns: int | None = None
    """Only events from this time on; None for all that the log gets from the beginning of the stream on."""
    bars: str | None = None
    """Interval of the bars that are told once they are final; None for no bars."""
    follow: bool = True
    """Go on for ever, or end at the newest record."""
    on_slow: OnSlow = "wait"
    """A reader that does not keep up: reads from the table what it missed, is told what was left out, or is ended."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one look at the log as JSON objects joined by commas, and the offsets that they cover."""

    body: bytes
    rows: int
    spans: Mapping[LogPartition, Span]
    commit_sequence: int
    is_left_out: bool = False
    """Whether these rows were dropped since the reader was slow."""


@dataclass(slots=True)
class _Waiting:
    """What waits for the reader."""

    batches: deque[Batch] = field(default_factory=deque)
    rows: int = 0
    size_bytes: int = 0

    def add(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.rows += 0 if batch.is_left_out else batch.rows
        self.size_bytes += len(batch.body)

    def all_left_out(self, last: Batch) -> None:
        """Forget all rows; keep how many there were, and what they covered."""
        batches = [*self.batches, last]
        spans: dict[LogPartition, Span] = {}
        for batch in batches:
            spans = _joined(spans, batch.spans)
        self.batches = deque()
        self.rows = self.size_bytes = 0
        self.add(Batch(b"", sum(batch.rows for batch in batches), spans, last.commit_sequence, is_left_out=True))


class Subscription:
    """What waits for one reader. The hub's thread adds, the reader takes; `wake` is called when there is something.

    While `is_behind`, nothing is added: the reader has to ask the engine up to where the hub stands, and join again.
    """

    def __init__(self, request: StreamRequest, settings: ApiSettings, wake: Callable[[], None]) -> None:
        self.request = request
        self.symbols = frozenset(request.symbols)
        self.is_behind = True
        self.is_too_slow = False
        self._reads_live = False
        self._settings = settings
        self.wake = wake
        self._lock = threading.Lock()
        self._ends: dict[LogPartition, int] = {}
        self._waiting = _Waiting()

    def begin(self, ends: Ends) -> None:
        """Follow the hub from here on; the reader reads what lies below by itself."""
        with self._lock:
            self._ends = {at: span.end for at, span in ends.places.items()}
            self._waiting = _Waiting()
            self.is_behind = False
            self._reads_live = False

    def add(self, batch: Batch, undecided: frozenset[str]) -> None:
        """Take what the hub has found, if it follows on what was found before."""
        with self._lock:
            if self.is_behind or self.is_too_slow:
                return
            if not self._follows(batch.spans) or not self.symbols.isdisjoint(undecided):
                self.is_behind = True
                self.wake()
                return
            self._ends.update({at: span.end for at, span in batch.spans.items()})
            if not batch.rows and self._waiting.batches:
                last = self._waiting.batches.pop()
                commit = batch.commit_sequence
                self._waiting.batches.append(
                    replace(last, spans=_joined(last.spans, batch.spans), commit_sequence=commit)
                )
                return
            self._take(batch)
        if batch.rows:
            self.wake()

    def take(self) -> list[Batch]:
        """Return all that waits; the reader has caught up with the hub once it was here."""
        with self._lock:
            self._reads_live = True
            taken = list(self._waiting.batches)
            self._waiting = _Waiting()
            return taken

    def _take(self, batch: Batch) -> None:
        """Keep a batch, or do with a slow reader as its policy says."""
        settings, waiting = self._settings, self._waiting
        rows, size_bytes = waiting.rows + batch.rows, waiting.size_bytes + len(batch.body)
        if rows <= settings.stream_buffer_rows_max and size_bytes <= settings.stream_buffer_bytes_max:
            waiting.add(batch)
        elif not self._reads_live or self.request.on_slow == "wait":
            self.is_behind = True  # also while the reader is at what lies below: it is not slow, there is much
        elif self.request.on_slow == "drop":
            waiting.all_left_out(batch)
        else:
            self.is_too_slow = True

    def _follows(self, spans: Mapping[LogPartition, Span]) -> bool:
        return all(self._ends.get(at, span.begins) == span.start for at, span in spans.items())


def _joined(spans: Mapping[LogPartition, Span], more: Mapping[LogPartition, Span]) -> dict[LogPartition, Span]:
    joined = dict(spans)
    for at, span in more.items():
        joined[at] = replace(span, start=joined[at].start) if at in joined else span
    return joined
