"""Chooses the deferred range that is written next: the first one of a partition of this worker, urgent ones before.

A range is read from the very log that it was deferred in. What was deferred in a log whose topic is another one by now
is lost: its tasks are urgent, and their extent holds nothing.
A halted stream's range is written once the stream was released, or its time is over, or its records would be lost.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from k2.ingestion import events
from k2.ingestion.backfill.releasing import GoingOn
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
    """An entry of a partition's list that may be written, as a head had it, and the log that it is to be read from."""

    topic: str
    held: DeferredList
    extent: LogRange
    entry: DeferredRange
    urgent: bool = False

    @property
    def key(self) -> LogPartition:
        """The partition."""
        return self.held.key

    @property
    def place(self) -> TopicPartition:
        """Topic and number of the partition."""
        return self.topic, self.key.partition

    @property
    def offsets(self) -> int:
        """Offsets that are to be read until the list, or the halted stream, is written."""
        entries = (self.entry,) if self.entry.halted else self.held.entries
        return sum(entry.end - entry.start for entry in entries)

    def of(self, held: DeferredList) -> Task | None:
        """Return what there is to write next of the same list, or halted stream, in a later head."""
        if self.entry.halted is None:
            entry = next(iter(held.entries), None)
        else:
            halts = () if held.entries else held.halts
            entry = next((each for each in halts if each.halted == self.entry.halted), None)
        return None if entry is None else replace(self, held=held, entry=entry)


@dataclass(frozen=True, slots=True)
class _List:
    """All that is deferred of one partition."""

    topic: str
    held: DeferredList
    extent: LogRange
    urgent: bool

    @property
    def place(self) -> TopicPartition:
        """Topic and number of the partition."""
        return self.topic, self.held.key.partition


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
        going_on: GoingOn | None = None,
    ) -> None:
        self._table = table
        self._log_ends = log_ends
        self._owned = owned
        self._reader = reader
        self._retention = retention
        self._clock = clock
        self._observe = observer
        self._going_on = going_on or GoingOn()
        self._last: LogPartition | None = None
        self._told: dict[TopicPartition, bool] = {}
        self._logged: dict[TopicPartition, tuple[int, int]] = {}
        self._peek_at: dict[TopicPartition, float] = {}

    def choose(self, head: TableHead) -> Task | None:
        """Return what is to be written next; None where nothing of this worker is deferred.

        Raises:
            UnavailableError: the log does not answer.
        """
        lists = self._lists(head)
        self._tell(lists)
        tasks = [task for each in lists if (task := self._task(each)) is not None]
        if not tasks:
            return None
        chosen = min(tasks, key=lambda task: (not task.urgent, task.key != self._last, task.key))
        self._last = chosen.key
        return chosen

    def _lists(self, head: TableHead) -> list[_List]:
        owned = self._owned()
        topics = {log.log_id: log.topic for log in head.logs}
        keys = sorted({LogPartition(entry.log_id, entry.partition) for entry in head.seam.deferred})
        mine = [key for key in keys if owned.get((topics.get(key.log_id, ""), key.partition)) == key]
        lists = self._gone(head, keys, {topic: at.log_id for (topic, _), at in owned.items()}, topics)
        if not mine:
            return lists
        extents = self._log_ends.ranges({topics[key.log_id] for key in mine})
        for key in mine:
            topic, held = topics[key.log_id], DeferredList.of(head.seam, key)
            extent = extents.get((topic, key.partition))
            if extent is not None:
                lists.append(_List(topic, held, extent, self._left(topic, held, extent).is_near))
        return lists

    def _task(self, of: _List) -> Task | None:
        """Return what may be written of a partition: what overload deferred, then streams that go on."""
        ready = (each for each in of.held.halts if self._going_on.may_write(self._table, each))
        entry = next(iter((*of.held.entries, *ready)), None)
        if entry is None and of.urgent:  # rather with a gap in the table than lost
            entry = of.held.halts[0]
        return None if entry is None else Task(of.topic, of.held, of.extent, entry, of.urgent)

    def _gone(
        self, head: TableHead, keys: Iterable[LogPartition], read: Mapping[str, int], topics: Mapping[int, str]
    ) -> list[_List]:
        """Return what was deferred in older logs of the topics that this worker reads, whoever reads the partition."""
        lists = []
        for key in keys:
            topic = topics.get(key.log_id, "")
            if key.log_id < read.get(topic, 0):
                held = DeferredList.of(head.seam, key)
                end = max(entry.end for entry in held.ranges)
                lists.append(_List(topic, held, LogRange(end, end), urgent=True))
                self._told.setdefault((topic, key.partition), False)
        return lists

    def _left(self, topic: str, held: DeferredList, extent: LogRange) -> TimeLeft:
        place = (topic, held.key.partition)
        start = min(entry.start for entry in held.ranges)
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

    def _tell(self, lists: list[_List]) -> None:
        places = {each.place for each in lists}
        for each in lists:
            streams = len(each.held.halts)
            self._observe(events.DeferredOutstanding(self._table, *each.place, each.held.records, each.urgent, streams))
        for place in [place for place in self._told if place not in places]:
            del self._told[place]
            self._logged.pop(place, None)
            self._observe(events.DeferredOutstanding(self._table, *place, 0, near_retention=False))
