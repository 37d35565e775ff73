"""Creates topics, and tells which log a topic is and what its partitions hold."""

from __future__ import annotations

from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # documented there, not in its __all__
    AdminClient,
    NewTopic,
    OffsetSpec,
)

from k2.common.clock import SystemClock
from k2.common.errors import ConfigurationError, LogIdentityError, UnavailableError
from k2.kafka.client_config import common_properties
from k2.kafka.errors import DEPENDENCY, translate
from k2.kafka.ports import LogIdentity, LogRange

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from concurrent.futures import Future

    from k2.common.clock import Clock
    from k2.kafka.settings import KafkaSettings
    from k2.kafka.topics import Topic

__all__ = ["LogAdmin", "LogIdentity", "LogRange"]

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.05
_DESCRIBED_SECONDS: Final = 3.0
"""How long a topic's number of partitions is taken for granted: longer than the pauses of who asks for identities."""
_STARTS_SECONDS: Final = 1.0
"""How long the start of a partition is taken for granted, which retention alone moves."""
_LEADERLESS: Final = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
    }
)
_EARLIEST: Final = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # confluent's, without annotations
_LATEST: Final = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # the same


class _Known(NamedTuple):
    """A number, and until when (monotonic seconds) it is taken for granted."""

    number: int
    until: float


class LogAdmin:
    """The cluster's administrator: one connection, every call bounded by the request timeout."""

    def __init__(self, settings: KafkaSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._seconds = settings.request_timeout_seconds
        self._client = AdminClient(common_properties(settings, client_id="k2-admin"))
        self._partitions: dict[str, _Known] = {}
        self._starts: dict[tuple[str, int], _Known] = {}

    def create_topics(self, topics: Iterable[Topic]) -> list[str]:
        """Create the topics that do not exist and return their names, in the given order.

        Raises:
            ConfigurationError: a topic exists with another number of partitions; none is created then.
            UnavailableError: the cluster does not answer in time.
        """
        wanted = list(topics)
        present = self._descriptions([topic.name for topic in wanted])
        for topic in wanted:
            _check_partitions(topic, present.get(topic.name))
        missing = [topic for topic in wanted if topic.name not in present]
        if not missing:
            return []
        replicas = self._settings.replication_factor
        new = [NewTopic(t.name, t.partitions, replicas, config=dict(t.config)) for t in missing]
        created = [
            name
            for name, future in self._client.create_topics(new, request_timeout=self._seconds).items()
            if self._was_created(name, future)
        ]
        self._wait_for_leaders([topic.name for topic in missing])
        return [topic.name for topic in missing if topic.name in created]

    def identities(self, topics: Iterable[str]) -> dict[str, LogIdentity]:
        """Return who each topic is; a topic that does not exist is left out."""
        descriptions = self._described(list(topics))
        if not descriptions:
            return {}
        cluster_id = self.cluster_id()
        return {
            name: LogIdentity(cluster_id, str(d.topic_id), name, len(d.partitions)) for name, d in descriptions.items()
        }

    def cluster_id(self) -> str:
        """Return the cluster's id."""
        future = self._client.describe_cluster(request_timeout=self._seconds)
        return str(self._wait(future, "asking the cluster who it is").cluster_id)

    def ranges(self, topics: str | Iterable[str]) -> dict[tuple[str, int], LogRange]:
        """Return the offsets [start, last stable offset) of each partition; unknown topics are left out.

        The ends are those of now; a start may be older by a moment.
        """
        names = [topics] if isinstance(topics, str) else list(topics)
        try:
            return self._patiently(lambda: self._extents(self._keys(names)))
        except LogIdentityError:  # a topic went away since it was described
            self._partitions.clear()
            self._starts.clear()
            return self._patiently(lambda: self._extents(self._keys(names)))

    def close(self) -> None:
        """Give up the connections."""
        del self._client

    def _keys(self, names: list[str]) -> list[tuple[str, int]]:
        """Return the partitions of the topics that exist; a description serves for a moment: questions are many."""
        now = self._clock.monotonic()
        known = {name: at.number for name in names if (at := self._partitions.get(name)) and at.until > now}
        described = self._described([name for name in names if name not in known])
        known |= {name: len(description.partitions) for name, description in described.items()}
        return [(name, number) for name in names if name in known for number in range(known[name])]

    def _described(self, names: list[str]) -> dict[str, Any]:
        """Return the descriptions of the topics that exist, and remember their partitions."""
        until = self._clock.monotonic() + _DESCRIBED_SECONDS
        descriptions = self._descriptions(names)
        for name, description in descriptions.items():
            self._partitions[name] = _Known(len(description.partitions), until)
        return descriptions

    def _extents(self, keys: list[tuple[str, int]]) -> dict[tuple[str, int], LogRange]:
        """Ask for the ends, and at the same time for the starts that are not known."""
        now = self._clock.monotonic()
        starts = {key: at.number for key in keys if (at := self._starts.get(key)) and at.until > now}
        asked_starts = self._ask_offsets([key for key in keys if key not in starts], _EARLIEST)
        ends = self._offsets(self._ask_offsets(keys, _LATEST))
        if any(ends[key] < start for key, start in starts.items()):
            # Logs that were made anew: what was known is of other ones.
            asked_starts, starts = self._ask_offsets(keys, _EARLIEST), {}
        for key, start in self._offsets(asked_starts).items():
            starts[key] = start
            self._starts[key] = _Known(start, now + _STARTS_SECONDS)
        return {key: LogRange(starts[key], max(ends[key], starts[key])) for key in keys}

    def _offsets(self, futures: Mapping[TopicPartition, Future[Any]]) -> dict[tuple[str, int], int]:
        return {
            (at.topic, at.partition): int(self._wait(future, f"asking for the offsets of {at.topic}").offset)
            for at, future in futures.items()
        }

    def _ask_offsets(self, keys: list[tuple[str, int]], spec: OffsetSpec) -> dict[TopicPartition, Future[Any]]:
        if not keys:
            return {}
        request = {TopicPartition(topic, partition): spec for topic, partition in keys}
        futures: dict[TopicPartition, Future[Any]] = self._client.list_offsets(
            request, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=self._seconds
        )
        return futures

    def _descriptions(self, names: list[str]) -> dict[str, Any]:
        """Return confluent's TopicDescription by name, without the topics that do not exist."""
        if not names:
            return {}
        found = {}
        futures = self._client.describe_topics(TopicCollection(names), request_timeout=self._seconds)
        for name, future in futures.items():
            try:
                found[name] = self._wait(future, f"asking for the topic {name}")
            except LogIdentityError:  # what `translate` makes of "unknown topic"
                continue
        return {name: found[name] for name in names if name in found}

    def _wait_for_leaders(self, names: list[str]) -> None:
        """Wait until the new topics can be used: the cluster answers before all of it knows them."""
        deadline = self._clock.monotonic() + self._seconds
        while True:
            known = self._descriptions(names)
            if len(known) == len(names) and all(p.leader is not None for d in known.values() for p in d.partitions):
                return
            if self._clock.monotonic() > deadline:
                raise self._no_answer(f"waiting for the leaders of {', '.join(names)}")
            self._clock.sleep(_PAUSE_SECONDS)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while a partition changes its leader, as it does for a moment after a start or a creation."""
        deadline = self._clock.monotonic() + self._seconds
        while True:
            try:
                return ask()
            except UnavailableError as error:
                cause = error.__cause__
                leaderless = isinstance(cause, KafkaException) and cause.args[0].code() in _LEADERLESS
                if not leaderless or self._clock.monotonic() > deadline:
                    raise
            self._clock.sleep(_PAUSE_SECONDS)

    def _was_created(self, name: str, future: Future[None]) -> bool:
        try:
            future.result(self._seconds)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return False
            raise translate(error, f"creating the topic {name}") from error
        except FutureTimeoutError:
            raise self._no_answer(f"creating the topic {name}") from None
        return True

    def _wait(self, future: Future[T], doing: str) -> T:
        try:
            return future.result(self._seconds)
        except KafkaException as error:
            raise translate(error, doing) from error
        except FutureTimeoutError:
            raise self._no_answer(doing) from None

    def _no_answer(self, doing: str) -> UnavailableError:
        return UnavailableError(
            f"{doing}: no answer from {self._settings.bootstrap_servers} within {self._seconds} s; is the broker of "
            "K2_KAFKA__BOOTSTRAP_SERVERS up? (`k2 status`)",
            dependency=DEPENDENCY,
        )


def _check_partitions(topic: Topic, description: Any) -> None:
    if description is None or len(description.partitions) == topic.partitions:
        return
    raise ConfigurationError(
        f"expected {topic.partitions} partitions in {topic.name}, found {len(description.partitions)}: the number is "
        "fixed when a topic is created, since another one would move symbols; correct topics.yaml, or use a new topic"
    )
