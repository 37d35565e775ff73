"""The level of the platform and its drills, on two topics: what workers announce, and what they are asked for."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from k2.common.announcing import DrillRequest, LevelAnnouncement
from k2.common.errors import K2Error, RecordError
from k2.common.logging import get_logger
from k2.common.units import NS_PER_MS, NS_PER_SECOND
from k2.kafka.topic_follower import Follows, Message, TopicFollower
from k2.kafka.topics import DEGRADATION_TOPIC, DRILLS_TOPIC

if TYPE_CHECKING:
    from collections.abc import Callable

    from k2.common.clock import Clock
    from k2.kafka.ports import AssignedReader, Producing
    from k2.kafka.settings import AnnouncingSettings
    from k2.kafka.topic_follower import LogEnds

log = get_logger(__name__)

T = TypeVar("T", LevelAnnouncement, DrillRequest)

SENT: Final = "sent"
FAILED: Final = "failed"
DROPPED: Final = "dropped"


class KafkaAnnouncer:
    """Says levels on `k2.degradation`. `announce` only queues: what the log does not take in time is given up.

    The next announcement says more than one that comes late, so none is sent again.
    """

    def __init__(
        self,
        make_producer: Callable[[], Producing],
        *,
        settings: AnnouncingSettings,
        on_outcome: Callable[[str, int], None] = lambda _outcome, _count: None,
    ) -> None:
        """Begin; `on_outcome` is told how many were SENT, FAILED or DROPPED, and must not wait."""
        self._make_producer = make_producer
        self._settings = settings
        self._on_outcome = on_outcome
        self._waiting: deque[LevelAnnouncement] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._is_failing = False
        self._producer: Producing | None = None
        self._thread: threading.Thread | None = None

    def announce(self, announcement: LevelAnnouncement) -> None:
        """Queue an announcement; never waits for the log."""
        with self._changed:
            if self._is_closed:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="k2-announcer", daemon=True)
                self._thread.start()
            dropped = len(self._waiting) >= self._settings.queued_max
            if dropped:
                self._waiting.popleft()
            self._waiting.append(announcement)
            self._changed.notify()
        if dropped:
            self._on_outcome(DROPPED, 1)

    def close(self) -> None:
        """Send what waits, within the limit for one announcement, and give up the connection."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(2 * self._settings.send_seconds_max)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._is_closed:
                    self._changed.wait()
                batch = list(self._waiting)
                self._waiting.clear()
            if not batch:
                break
            try:
                self._send(batch)
            except Exception:  # the edge of the thread: a surprise is told and ends nothing
                log.exception("announcer_failed")
        self._give_up_producer()

    def _send(self, batch: list[LevelAnnouncement]) -> None:
        try:
            if self._producer is None:
                self._producer = self._make_producer()
            self._producer.send(
                DEGRADATION_TOPIC, [each.worker.encode() for each in batch], [each.to_json() for each in batch]
            )
            self._producer.flush(self._settings.send_seconds_max)
        except K2Error as error:
            self._give_up_producer()
            tell = log.debug if self._is_failing else log.warning  # once an outage
            tell("levels_not_announced", announcements=len(batch), reason=str(error))
            self._is_failing = True
            self._on_outcome(FAILED, len(batch))
        else:
            self._is_failing = False
            self._on_outcome(SENT, len(batch))

    def _give_up_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.close()


class _Heard(NamedTuple):
    announcement: LevelAnnouncement
    at: float
    """When it was said, in this process's monotonic seconds."""


class KafkaLevelBoard(Follows):
    """Reads the levels of all workers from `k2.degradation`; `start` and `close` are for whoever made it.

    What comes while it reads is as new as that, whatever the worker's clock says; of what was there before, the log's
    own clock tells the age.
    """

    def __init__(
        self,
        *,
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        settings: AnnouncingSettings,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._heard: dict[str, _Heard] = {}
        """Replaced as a whole, so that any thread may read it."""
        self.follower = TopicFollower(
            DEGRADATION_TOPIC,
            self._take,
            log_ends=log_ends,
            open_reader=open_reader,
            clock=clock,
            pause_seconds=settings.retry_pause_seconds,
        )

    def wait_ready(self, timeout_seconds: float) -> bool:
        """Wait until what was announced before it began is read; return whether that was in time."""
        return self.follower.wait_caught_up(timeout_seconds)

    def current(self) -> LevelAnnouncement | None:
        """Return the announcement of the highest level that is still fresh; None where no worker is heard."""
        oldest = self._clock.monotonic() - self._settings.fresh_seconds
        fresh = [each for each in self._heard.values() if each.at >= oldest]
        return max(fresh, key=lambda each: (each.announcement.level, each.at)).announcement if fresh else None

    def _take(self, message: Message) -> None:
        now = self._clock.monotonic()
        heard = {name: each for name, each in self._heard.items() if each.at >= now - self._settings.fresh_seconds}
        said = None if message.value is None else _read(LevelAnnouncement.from_json, message.value, DEGRADATION_TOPIC)
        if message.value is None and message.key is not None:
            heard.pop(message.key.decode(errors="replace"), None)
        if said is not None:
            age_ns = 0 if message.is_new else max(0, self._clock.time_ns() - message.ts_log_ms * NS_PER_MS)
            heard[said.worker] = _Heard(said, now - age_ns / NS_PER_SECOND)
            if len(heard) > self._settings.workers_max:
                del heard[min(heard, key=lambda name: heard[name].at)]
        self._heard = heard


class KafkaDrills(Follows):
    """Reads the newest request for a drill from `k2.drills`; `start` and `close` are for whoever made it.

    No drill is in force while the log cannot be followed for longer than levels stay fresh: its end could not be heard.
    """

    def __init__(
        self,
        *,
        log_ends: LogEnds,
        open_reader: Callable[[], AssignedReader],
        settings: AnnouncingSettings,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._newest: DrillRequest | None = None
        self.follower = TopicFollower(
            DRILLS_TOPIC,
            self._take,
            log_ends=log_ends,
            open_reader=open_reader,
            clock=clock,
            pause_seconds=settings.retry_pause_seconds,
            back_max=settings.drills_read_max,
        )

    def wanted(self) -> DrillRequest | None:
        """Return the drill in force; None when there is none, or when its time is over."""
        newest = self._newest
        if newest is None or self.follower.failing_seconds() > self._settings.fresh_seconds:
            return None
        is_running = newest.runs_at(self._clock.time_ns(), seconds_max=self._settings.drill_seconds_max)
        return newest if is_running else None

    def _take(self, message: Message) -> None:
        asked = None if message.value is None else _read(DrillRequest.from_json, message.value, DRILLS_TOPIC)
        if asked is not None:
            self._newest = asked


def _read(read: Callable[[bytes], T], value: bytes, topic: str) -> T | None:
    try:
        return read(value)
    except RecordError as error:
        log.warning("message_unreadable", topic=topic, reason=str(error))
        return None
