"""Looks at tables and topics again and again, in its own thread, so that a slow catalog never holds up the tail."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from k2.common.errors import K2Error
from k2.common.logging import get_logger
from k2.query.following import Followed, Refused, decide

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from k2.kafka.registry import CachedSchemas
    from k2.kafka.topics import Topic
    from k2.query.ports import Heads, LogFacts, Plans
    from k2.storage.tables import TableHead

log = get_logger(__name__)


class PinnedHeads:
    """Reads the heads of tables by pinning their newest snapshots: the next question finds them read already."""

    def __init__(self, planner: Plans) -> None:
        self._planner = planner

    def head(self, table_name: str) -> TableHead:
        """Return the head of the newest snapshot, whatever of its files is damaged."""
        return self._planner.pin(table_name, partial=True).head


class LearningHeads:
    """Reads the heads of tables, and gives the schemas that they have recorded to those who decode."""

    def __init__(self, tables: Heads, schemas: Mapping[str, CachedSchemas]) -> None:
        self._tables = tables
        self._schemas = schemas

    def head(self, table_name: str) -> TableHead:
        """Return the head of the newest snapshot."""
        head = self._tables.head(table_name)
        self._schemas[table_name].learn(head.schemas)
        return head


@dataclass(frozen=True, slots=True)
class WatchedState:
    """What one look at the tables and the topics found. Never changes."""

    heads: Mapping[str, TableHead] = field(default_factory=dict)
    followed: Mapping[str, Followed] = field(default_factory=dict)
    refused: Mapping[str, Refused] = field(default_factory=dict)


class TopicWatch:
    """Keeps the newest `state` of the topics; `trouble` says why the last look failed, if it did."""

    def __init__(self, topics: Sequence[Topic], *, log_facts: LogFacts, tables: Heads, interval_seconds: float) -> None:
        self._topics = tuple(topics)
        self._log_facts = log_facts
        self._tables = tables
        self._interval_seconds = interval_seconds
        self.state = WatchedState()
        self.trouble: K2Error | None = None
        self._looks = 0
        self._in_vain = -1
        """How many looks had ended when somebody last gave up waiting."""
        self._looked = threading.Condition()
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="k2-tail-watch", daemon=True)
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            self._thread = None

    def look(self) -> None:
        """Look once: sets `state`, or raises what kept it from looking."""
        heads = {name: self._tables.head(name) for name in sorted({topic.data_type for topic in self._topics})}
        names = [topic.name for topic in self._topics]
        identities = self._log_facts.identities(names)
        # After the heads: a range that was read before a commit could end below the seam of that commit.
        ranges = self._log_facts.ranges([name for name in names if name in identities])
        decisions = [
            decide(topic, heads[topic.data_type], identities[topic.name], ranges)
            for topic in self._topics
            if topic.name in identities
        ]
        followed = {decision.topic.name: decision for decision in decisions if isinstance(decision, Followed)}
        refused = {decision.topic.name: decision for decision in decisions if isinstance(decision, Refused)}
        for name in refused.keys() - self.state.refused.keys():
            log.info("tail_leaves_out_a_topic", topic=name, reason=refused[name].reason)
        self.state = WatchedState(heads, followed, refused)

    def look_again(self, seconds: float) -> None:
        """Have the thread look now, and wait for it at most `seconds`; without a thread, look here.

        Nobody waits for what is out of reach: where the last look failed, or somebody has waited for the look under
        way in vain, the thread goes on by itself, and this returns at once.
        """
        if self._thread is None:
            self.look()
            return
        with self._looked:
            if self.trouble is not None or self._in_vain == self._looks:
                return
            # The look under way, if any, may have begun too early: the one after it counts.
            wanted = self._looks + 2
            self._wake.set()
            if not self._looked.wait_for(lambda: self._looks >= wanted or self._wake_again(), timeout=seconds):
                self._in_vain = self._looks

    def _wake_again(self) -> bool:
        self._wake.set()
        return False

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.look()
                self._settle(None)
            except K2Error as error:
                self._settle(error)
            except Exception as error:  # noqa: BLE001 - the loop's edge: a watch that ended would leave new topics unseen
                self._settle(K2Error(f"looking at tables and topics failed: {error!r}"))
            with self._looked:
                self._looks += 1
                self._looked.notify_all()
            self._wake.wait(self._interval_seconds)

    def _settle(self, trouble: K2Error | None) -> None:
        if trouble is not None and str(trouble) != str(self.trouble):
            log.warning("tail_cannot_look_at_topics", reason=str(trouble))
        self.trouble = trouble
