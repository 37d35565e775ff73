"""Follows a topic of one partition on a thread of its own: from some way back to its end, and whatever comes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from k2.common.errors import K2Error, LogIdentityError
from k2.common.logging import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader, LogRange, TopicPartition

log = get_logger(__name__)

_MESSAGES: Final = 1_000
_POLL_SECONDS: Final = 0.25
_PARTITION: Final = 0


class LogEnds(Protocol):
    """Tells what the partitions of a topic hold."""

    def ranges(self, topics: str) -> dict[TopicPartition, LogRange]:
        """Return the offsets of each partition; none for a topic that does not exist."""
        ...


class Message(NamedTuple):
    """One message; `is_new` says that it was not in the log yet when reading began."""

    key: bytes | None
    value: bytes | None
    ts_log_ms: int
    is_new: bool


class TopicFollower:
    """Hands on each message in the log's order. After a failure it begins again, so a message may come again."""

    def __init__(
        self,
        topic: str,
        take: Callable[[Message], None],
        *,
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        clock: Clock,
        pause_seconds: float,
        back_max: int | None = None,
    ) -> None:
        """Begin at most `back_max` offsets before the end, or at the log's start; `take` is called on the thread."""
        self._topic = topic
        self._take = take
        self._log_ends = log_ends
        self._open_reader = open_reader
        self._clock = clock
        self._pause_seconds = pause_seconds
        self._back_max = back_max
        self._reader: AssignedReader | None = None
        self._old_end = 0
        self._failing_since: float | None = clock.monotonic()
        self._is_told = False
        self._stop = threading.Event()
        self._caught_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"k2-follow-{topic}", daemon=True)

    def start(self) -> None:
        """Begin to follow; where the log is away, or the topic is not there yet, until it is."""
        self._thread.start()

    def close(self) -> None:
        """Stop following and give up the connection."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._give_up_reader()

    def wait_caught_up(self, timeout_seconds: float) -> bool:
        """Wait until all that was there at the beginning was taken; return whether that was in time."""
        return self._caught_up.wait(timeout_seconds)

    def failing_seconds(self) -> float:
        """Return for how long the log could not be followed; 0 while it can."""
        since = self._failing_since
        return 0.0 if since is None else self._clock.monotonic() - since

    def step(self) -> None:
        """Take what has come since the last step.

        Raises:
            K2Error: the log does not answer; the next step begins again.
        """
        try:
            if self._reader is None and not self._begin():
                self._stop.wait(self._pause_seconds)
                return
            assert self._reader is not None
            for batch in self._reader.poll(_MESSAGES, _POLL_SECONDS):
                for offset, at_ms, key, value in zip(
                    batch.offsets, batch.ts_log_ms, batch.keys, batch.values, strict=True
                ):
                    self._take(Message(key, value, at_ms, offset >= self._old_end))
        except K2Error as error:
            self._failed(error)
            raise
        self._failing_since, self._is_told = None, False
        if self._reader.position(self._topic, _PARTITION) >= self._old_end:
            self._caught_up.set()

    def _begin(self) -> bool:
        """Open a reader where reading begins; False where there is no such topic yet."""
        ranges = self._log_ends.ranges(self._topic)
        extent = ranges.get((self._topic, _PARTITION))
        if extent is None:
            self._caught_up.set()
            return False
        start = extent.start if self._back_max is None else max(extent.start, extent.end - self._back_max)
        self._old_end = extent.end
        reader = self._open_reader()
        reader.assign({(self._topic, _PARTITION): start})
        self._reader = reader
        return True

    def _failed(self, error: K2Error) -> None:
        self._give_up_reader()
        if self._failing_since is None:
            self._failing_since = self._clock.monotonic()
        if not self._is_told:  # once an outage
            self._is_told = True
            log.warning("topic_not_followed", topic=self._topic, reason=str(error))

    def _give_up_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            try:
                reader.close()
            except K2Error as error:
                log.debug("reader_not_closed", topic=self._topic, reason=str(error))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except K2Error as error:  # told by `step`; retention or a topic made again means a new beginning at once
                if not isinstance(error, LogIdentityError):
                    self._stop.wait(self._pause_seconds)
            except Exception:  # the edge of the thread: a surprise is told and ends nothing
                log.exception("topic_follower_failed", topic=self._topic)
                self._stop.wait(self._pause_seconds)


class Follows:
    """Has a follower of one topic; `start` and `close` are for whoever made it."""

    follower: TopicFollower

    def start(self) -> None:
        """Begin to read."""
        self.follower.start()

    def close(self) -> None:
        """Stop reading."""
        self.follower.close()
