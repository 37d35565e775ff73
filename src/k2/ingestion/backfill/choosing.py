"""Chooses the deferred range that is written next: the first one of a partition of this worker, urgent ones before.

A range is read from the very log that it was deferred in. What was deferred in a log whose topic is another one by now
is lost: its tasks are urgent, and their extent holds nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from k2.ingestion import events
from k2.kafka.ports import LogRange
from k2.storage.deferral import DeferredList
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from k2.common.clock import Clock
    from k2.ingestion.backfill.reading import RangeReader
    from k2.ingestion.backfill.retention import RetentionWatch, TimeLeft
    from k2.kafka.ports import TopicPartition
    from k2.storage.seam import DeferredRange
    from k2.storage.tables import TableHead

_PEEK_AGAIN_SECONDS: Final = 60.0


class LogEnds(Protocol):
    """Where the log begins and ends."""

    def ranges(self, topics: str | Iterable[str]) -> Mapping[TopicPartition, LogRange]:
        """Return what each partition holds; a topic that does not exist is left out."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """The first entry of a partition's list, as a head had it, and the log that it is to be read from."""

    topic: str
    held: DeferredList
    extent: LogRange
    urgent: bool = False

    @property
    def key(self) -> LogPartition:
        """The partition."""
        return self.held.key

    @property
    def entry(self) -> DeferredRange:
        """The range to write."""
        return self.held.entries[0]

    @property
    def place(self) -> TopicPartition:
        """Topic and number of the partition."""
        return self.topic, self.key.partition

    @property
    def offsets(self) -> int:
        """Offsets that the whole list spans."""
        return sum(entry.end - entry.start for entry in self.held.entries)


class Chooser:
    """Looks at the lists of the partitions that this worker owns, and tells of them."""

    def __init__(
        self,
        table: str,
        *,
        log_ends: LogEnds,
        owned: Callable[[], Mapping[TopicPartition, LogPartition]],
        reader: RangeReader,
        retention: RetentionWatch,
        clock: Clock,
        observer: events.Observer,
    ) -> None:
        self._table = table
        self._log_ends = log_ends
        self._owned = owned
        self._reader = reader
        self._retention = retention
        self._clock = clock
        self._observe = observer
        self._last: LogPartition | None = None
        self._told: dict[TopicPartition, bool] = {}
        self._logged: dict[TopicPartition, tuple[int, int]] = {}
        self._peek_at: dict[TopicPartition, float] = {}

    def choose(self, head: TableHead) -> Task | None:
        """Return what is to be written next; None where nothing of this worker is deferred.

        Raises:
            UnavailableError: the log does not answer.
        """
        tasks = self._tasks(head)
        self._tell(tasks)
        if not tasks:
            return None
        chosen = min(tasks, key=lambda task: (not task.urgent, task.key != self._last, task.key))
        self._last = chosen.key
        return chosen

    def _tasks(self, head: TableHead) -> list[Task]:
        owned = self._owned()
        topics = {log.log_id: log.topic for log in head.logs}
        keys = sorted({LogPartition(entry.log_id, entry.partition) for entry in head.seam.deferred})
        mine = [key for key in keys if owned.get((topics.get(key.log_id, ""), key.partition)) == key]
        tasks = self._gone(head, keys, {topic: at.log_id for (topic, _), at in owned.items()}, topics)
        if not mine:
            return tasks
        extents = self._log_ends.ranges({topics[key.log_id] for key in mine})
        for key in mine:
            topic, held = topics[key.log_id], DeferredList.of(head.seam, key)
            extent = extents.get((topic, key.partition))
            if extent is not None:
                left = self._left(topic, held, extent)
                tasks.append(Task(topic, held, extent, left.is_near))
        return tasks

    def _gone(
        self, head: TableHead, keys: Iterable[LogPartition], read: Mapping[str, int], topics: Mapping[int, str]
    ) -> list[Task]:
        """Return what was deferred in older logs of the topics that this worker reads, whoever reads the partition."""
        tasks = []
        for key in keys:
            topic = topics.get(key.log_id, "")
            if key.log_id < read.get(topic, 0):
                held = DeferredList.of(head.seam, key)
                end = held.entries[-1].end
                tasks.append(Task(topic, held, LogRange(end, end), urgent=True))
                self._told.setdefault((topic, key.partition), False)
        return tasks

    def _left(self, topic: str, held: DeferredList, extent: LogRange) -> TimeLeft:
        place, start = (topic, held.key.partition), held.entries[0].start
        known_at, logged_ms = self._logged.get(place, (-1, None))
        left = self._retention.left(topic, start, logged_ms, extent)
        if known_at < 0 or (left.is_near and known_at != start):  # log times grow: an earlier record's is the worse one
            left = self._retention.left(topic, start, self._peek(place, max(start, extent.start)) or logged_ms, extent)
        before = self._told.get(place)
        if left.is_near and not before:
            self._observe(events.DeferredNearRetention(self._table, *place, held.records, start, left.hours))
        self._told[place] = left.is_near
        return left

    def _peek(self, place: TopicPartition, start: int) -> int | None:
        """Look up the log time of a record; one that does not come at once is looked for again later."""
        now = self._clock.monotonic()
        if now < self._peek_at.get(place, now):
            return None
        found = self._reader.logged_ms(place, start)
        if found is None:
            self._peek_at[place] = now + _PEEK_AGAIN_SECONDS
        else:
            self._logged[place] = start, found
        return found

    def _tell(self, tasks: list[Task]) -> None:
        places = {task.place for task in tasks}
        for task in tasks:
            self._observe(events.DeferredOutstanding(self._table, *task.place, task.held.records, task.urgent))
        for place in [place for place in self._told if place not in places]:
            del self._told[place]
            self._logged.pop(place, None)
            self._observe(events.DeferredOutstanding(self._table, *place, 0, near_retention=False))
