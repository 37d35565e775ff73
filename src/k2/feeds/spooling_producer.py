"""A producer that never waits for the log: messages go to a spool on disk, and from there to the log, in their order.

Each is sent once. Where a run ended with messages on their way, the log is asked what it holds of them before they are
sent again. One race is left: a request of the run before that the broker takes up only after it was asked. Ingestion
drops what that doubles, as it drops any record sent twice.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

from k2.common.errors import ConfigurationError, K2Error, UnavailableError
from k2.common.logging import get_logger
from k2.feeds.spool_files import Block
from k2.kafka.ports import NotYetAcknowledgedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from k2.common.clock import Clock
    from k2.feeds.settings import SpoolSettings
    from k2.feeds.spool import Position, Spool
    from k2.kafka.ports import AssignedReader, LogRange, Producing, TopicPartition

log = get_logger(__name__)

_WAIT_SECONDS: Final = 0.1
_FLUSH_SECONDS: Final = 1.0
_POLL_MESSAGES: Final = 10_000
_NAP_SECONDS: Final = 0.02
_CLOSE_SECONDS: Final = 30.0


class LogEnds(Protocol):
    """Tells what partitions hold."""

    def ranges(self, topics: str | Sequence[str]) -> dict[TopicPartition, LogRange]:
        """Return the offsets of each partition of some topics."""
        ...


class SpoolingProducer:
    """Takes messages from one thread, sends them on its own; what `send` took, the spool holds until the log has it."""

    def __init__(
        self,
        spool: Spool,
        *,
        topics: Sequence[str],
        make_producer: Callable[[Callable[[str, int, int], None]], Producing],
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        settings: SpoolSettings,
        clock: Clock,
    ) -> None:
        """Put it together, for messages to `topics`; `make_producer` is given what hears of each delivery."""
        self._spool = spool
        self._topics = tuple(topics)
        self._log_ends = log_ends
        self._open_reader = open_reader
        self._settings = settings
        self._clock = clock
        self._make_producer = make_producer
        self._producer: Producing | None = None
        self._ends: dict[TopicPartition, int] = {}
        self._held: Counter[tuple[str, bytes | None]] = Counter()
        """What the log held already when sending began, of what the spool may hold."""
        self._last: Position | None = None
        self._unflushed = self._skipped = 0
        self._is_sure = False
        self._next_is_after_all = False
        self._is_failing = False
        self._refusal: K2Error | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="k2-spool", daemon=True)
        self.acknowledged = 0

    def start(self) -> None:
        """Begin to send what the spool holds."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Messages that the log has not acknowledged yet."""
        return self._spool.messages

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        *,
        headers: Sequence[Mapping[str, bytes]] | None = None,
    ) -> None:
        """Put the messages into the spool; never waits for the log.

        Raises:
            OverloadedError: the spool is full; none of the messages is taken, and they are counted.
            ConfigurationError: messages with headers, which a spool does not keep; or the log refuses this feed.
        """
        if headers is not None or topic not in self._topics:
            raise ConfigurationError(
                f"expected messages without headers for {', '.join(self._topics)}, found "
                f"{'some with headers' if headers is not None else topic}: send them without a spool"
            )
        if self._refusal is not None:
            raise self._refusal
        self._spool.append(Block(topic, list(keys), list(values), self._next_is_after_all))
        self._next_is_after_all = False

    def flush(self, timeout_seconds: float) -> None:  # noqa: ARG002 - nothing is waited for
        """Let what follows be sent only once all before it is acknowledged by the log; do not wait for that."""
        self._next_is_after_all = True
        self._spool.sync()

    def drain(self, timeout_seconds: float, *, is_stopped: Callable[[], bool] = lambda: False) -> int:
        """Wait until the log has everything, or for so long; return how many messages are left."""
        deadline = self._clock.monotonic() + timeout_seconds
        while self.waiting and self._refusal is None and not is_stopped() and self._clock.monotonic() < deadline:
            self._clock.sleep(_NAP_SECONDS)
        return self.waiting

    def close(self) -> None:
        """Stop sending; what the log has not acknowledged stays in the spool."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            log.warning("spool_left_to_the_end_of_the_process", messages_waiting=self._spool.messages)
            return
        self._give_up_producer()
        self._spool.close()

    def step(self) -> None:
        """Send on what has come, or wait for it a moment.

        Raises:
            K2Error: the log does not take it; the next step finds out what it holds, and begins again.
        """
        try:
            if not self._is_sure:
                self._become_sure()
            self._send_next()
        except NotYetAcknowledgedError as error:  # the producer goes on trying
            self._tell(error)
        except K2Error:
            self._give_up_producer()
            self._is_sure = False
            raise

    def _send_next(self) -> None:
        found = None if self._unflushed >= self._settings.unacknowledged_max else self._spool.read(_WAIT_SECONDS)
        if found is None:
            self._acknowledge()
            return
        block, position = found
        if block.is_after_all:
            self._flush()
        new = self._without_held(block)
        if len(new):
            self._open_producer().send(new.topic, new.keys, new.values)
        self._unflushed += len(block)
        self._skipped += len(block) - len(new)
        self._last = position
        if not self._spool.has_more():
            self._acknowledge()

    def _acknowledge(self) -> None:
        """Wait until all that was sent is in the log, and note it."""
        if self._last is None:
            return
        self._flush()
        self._spool.acknowledge(self._last, self._unflushed, self._ends)
        self.acknowledged += self._unflushed - self._skipped
        self._last, self._unflushed, self._skipped = None, 0, 0
        if not self._spool.messages:
            self._held.clear()
        if self._is_failing:
            self._is_failing = False
            log.info("spool_sent", messages_waiting=self._spool.messages)

    def _flush(self) -> None:
        while self._producer is not None:
            try:
                self._producer.flush(_FLUSH_SECONDS)
            except NotYetAcknowledgedError as error:
                self._tell(error)
                if self._stop.is_set():
                    raise
            else:
                return

    def _become_sure(self) -> None:
        """Begin with the first message that is not acknowledged, and find out what the log holds from there on."""
        ranges = self._log_ends.ranges(self._topics)
        self._last, self._unflushed, self._skipped = None, 0, 0
        self._spool.rewind()
        self._ends = dict(self._spool.note.ends)  # deliveries after the note are found in the log as well
        if self._spool.messages and self._ends:
            self._held = self._values_since(self._ends, ranges)
        else:
            self._held = Counter()
            self._ends = {at: extent.end for at, extent in ranges.items()}
            self._spool.acknowledge(self._spool.note.position, 0, self._ends)
        self._is_sure = True

    def _values_since(
        self, starts: Mapping[TopicPartition, int], ranges: Mapping[TopicPartition, LogRange]
    ) -> Counter[tuple[str, bytes | None]]:
        """Return what the log holds from `starts` on; of a partition that is another one now, all."""
        unread = {
            at: (max(start, extent.start) if (start := starts.get(at, 0)) <= extent.end else extent.start, extent.end)
            for at, extent in ranges.items()
        }
        unread = {at: (start, end) for at, (start, end) in unread.items() if start < end}
        found: Counter[tuple[str, bytes | None]] = Counter()
        deadline = self._clock.monotonic() + self._settings.resume_seconds
        if not unread:
            return found
        reader = self._open_reader()
        try:
            reader.assign({at: start for at, (start, _) in unread.items()})
            while any(reader.position(*at) < end for at, (_, end) in unread.items()):
                for batch in reader.poll(_POLL_MESSAGES, _WAIT_SECONDS):
                    found.update((batch.topic, value) for value in batch.values)
                if self._clock.monotonic() > deadline:
                    raise UnavailableError(
                        f"expected the log to say within {self._settings.resume_seconds:g} s what it holds of the "
                        "spool, found it silent: is the broker up? (`k2 status`)",
                        dependency="kafka",
                    )
        finally:
            reader.close()
        return found

    def _without_held(self, block: Block) -> Block:
        if not self._held:
            return block
        kept = []
        for at, value in enumerate(block.values):
            key = (block.topic, value)
            if self._held.get(key, 0):
                self._held[key] -= 1
            else:
                kept.append(at)
        return Block(block.topic, [block.keys[at] for at in kept], [block.values[at] for at in kept])

    def _open_producer(self) -> Producing:
        if self._producer is None:
            self._producer = self._make_producer(self._delivered)
        return self._producer

    def _delivered(self, topic: str, partition: int, offset: int) -> None:
        at = (topic, partition)
        self._ends[at] = max(self._ends.get(at, 0), offset + 1)

    def _give_up_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()

    def _tell(self, error: K2Error) -> None:
        if not self._is_failing:  # once an outage
            self._is_failing = True
            log.warning("spool_waits_for_the_log", messages_waiting=self._spool.messages, reason=str(error))

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except UnavailableError as error:
                self._tell(error)
                self._stop.wait(self._settings.retry_pause_seconds)
            except K2Error as error:  # no pause helps: whoever sends next is told
                self._refusal = error
                log.error("spool_refused", messages_waiting=self._spool.messages, reason=str(error))  # noqa: TRY400 - expected
                return
            except Exception:  # the edge of the thread: a surprise is told, and nothing of the spool is lost
                log.exception("spool_failed", messages_waiting=self._spool.messages)
                self._is_sure = False
                self._stop.wait(self._settings.retry_pause_seconds)
