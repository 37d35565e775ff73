"""Where a partition is read on: its topic must be the table's log, or a new one; the head's seam tells the offset."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from k2.common.errors import ConfigurationError, LogIdentityError, UnavailableError
from k2.common.logging import get_logger
from k2.ingestion.identity import ShortLogError, check_seam, check_unchanged, find_log
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from k2.common.clock import Clock
    from k2.kafka.ports import LogIdentity, LogRange, TopicPartition
    from k2.storage.tables import RegisteredLog, TableHead

log = get_logger(__name__)


class Tables(Protocol):
    """The tables' heads and registered logs."""

    def head(self, table_name: str) -> TableHead:
        """Return the newest snapshot's head."""
        ...

    def register_log(
        self,
        table_name: str,
        *,
        cluster_id: str,
        topic_id: str,
        topic: str,
        starts: Mapping[int, int],
        accept_new_log: bool = False,
    ) -> RegisteredLog:
        """Register a topic's log; idempotent."""
        ...


class Cluster(Protocol):
    """What the cluster holds."""

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        ...

    def ranges(self, topics: str | Iterable[str]) -> dict[TopicPartition, LogRange]:
        """Return what each partition holds; a topic that does not exist is left out."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """Where one partition is read on."""

    table: str
    log: LogPartition
    offset: int


@dataclass(frozen=True, slots=True)
class Positions:
    """Of the partitions asked for: where they are read on, the topics refused, and those to ask for again."""

    found: dict[TopicPartition, Position] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    unchecked: dict[str, str] = field(default_factory=dict)


class Positioner:
    """Positions partitions by the seams of their tables' heads; holds who the topics were when it did."""

    def __init__(
        self,
        tables: Tables,
        cluster: Cluster,
        table_of: Mapping[str, str],
        *,
        clock: Clock,
        log_end_grace_seconds: float,
    ) -> None:
        self._tables = tables
        self._cluster = cluster
        self._table_of = table_of
        self._clock = clock
        self._grace_seconds = log_end_grace_seconds
        self._identities: dict[str, LogIdentity] = {}
        self._short_since: dict[str, float] = {}
        self._short_for_good: dict[str, str] = {}
        self._accepted: set[str] = set()

    def accept_new_logs(self, topics: Iterable[str]) -> None:
        """Let these topics be registered as new logs of their tables; ConfigurationError for one that is not read."""
        topics = set(topics)
        unknown = sorted(topics - set(self._table_of))
        if unknown:
            raise ConfigurationError(
                f"expected topics that are ingested ({', '.join(sorted(self._table_of))}), found {', '.join(unknown)}"
            )
        self._accepted = topics

    def position(self, partitions: Iterable[TopicPartition]) -> Positions:
        """Find the positions; what one topic meets does not touch the others."""
        wanted: dict[str, list[int]] = {}
        for topic, partition in partitions:
            wanted.setdefault(topic, []).append(partition)
        positions = Positions()
        heads: dict[str, TableHead] = {}
        for topic, numbers in wanted.items():
            try:
                positions.found.update(self._position_topic(topic, numbers, heads))
            except LogIdentityError as error:
                self._refuse(topic, error, positions)
            except UnavailableError as error:
                positions.unchecked[topic] = str(error)
            except Exception as error:  # the edge of a loop: one topic's surprise must not stop the others
                log.exception("positioning_failed", topic=topic)
                positions.unchecked[topic] = f"{type(error).__name__}: {error}"
        return positions

    def check_topics(self, topics: set[str]) -> None:
        """See that topics are still who they were when they were positioned; LogIdentityError, UnavailableError."""
        check_unchanged([self._identities[topic] for topic in sorted(topics)], self._cluster.identities(topics))

    def _position_topic(
        self, topic: str, numbers: list[int], heads: dict[str, TableHead]
    ) -> dict[TopicPartition, Position]:
        if topic in self._short_for_good:
            raise LogIdentityError(self._short_for_good[topic])
        table = self._table_of[topic]
        identity = self._cluster.identities([topic]).get(topic)
        if identity is None:
            raise UnavailableError(
                f"topic {topic} does not exist: create it with `k2 topics create`", dependency="kafka"
            )
        ranges = {number: extent for (name, number), extent in self._cluster.ranges(topic).items() if name == topic}
        head = heads.get(table) or self._tables.head(table)
        registered = self._find(table, identity, head)
        if registered is None:
            registered = self._register(table, identity, ranges)
            head = self._tables.head(table)
        heads[table] = head
        check_seam(table, registered, head.seam, ranges)
        self._short_since.pop(topic, None)
        self._identities[topic] = identity
        keys = {number: LogPartition(registered.log_id, number) for number in numbers}
        return {
            (topic, number): Position(table, key, head.seam.partitions[key].next_offset) for number, key in keys.items()
        }

    def _find(self, table: str, identity: LogIdentity, head: TableHead) -> RegisteredLog | None:
        try:
            return find_log(table, identity, head.logs)
        except LogIdentityError as error:
            if identity.topic not in self._accepted:
                raise
            log.warning("new_log_accepted", table=table, topic=identity.topic, reason=str(error))
            return None

    def _register(self, table: str, identity: LogIdentity, ranges: Mapping[int, LogRange]) -> RegisteredLog:
        registered = self._tables.register_log(
            table,
            cluster_id=identity.cluster_id,
            topic_id=identity.topic_id,
            topic=identity.topic,
            starts={number: extent.start for number, extent in ranges.items()},
            accept_new_log=identity.topic in self._accepted,
        )
        log.info("log_registered", table=table, topic=identity.topic, log_id=registered.log_id)
        return registered

    def _refuse(self, topic: str, error: LogIdentityError, positions: Positions) -> None:
        """Refuse a topic; a log that seems short is given time, since a broker that recovers may show an old end."""
        reason = str(error)
        if not isinstance(error, ShortLogError):
            positions.refused[topic] = reason
            return
        since = self._short_since.setdefault(topic, self._clock.monotonic())
        if self._clock.monotonic() - since < self._grace_seconds:
            positions.unchecked[topic] = reason
            return
        # It may grow past the seam again, with other records: from here on only a restart looks again.
        self._short_for_good[topic] = reason
        positions.refused[topic] = reason
