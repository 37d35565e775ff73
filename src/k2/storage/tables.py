"""The market tables: creating and evolving them, their heads, and the logs registered in them."""

from __future__ import annotations

import contextlib
import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pyiceberg.exceptions import CommitFailedException, NoSuchTableError

from k2.common.errors import CorruptionError, LogIdentityError, UnavailableError
from k2.schemas.records import DEAD_LETTERS, GAPS, QUOTES, TRADES, RecordType
from k2.storage.catalog import close_catalog, create_namespace, metadata_location, open_catalog
from k2.storage.dropped_days import DroppedDays, dropped_days
from k2.storage.failures import as_k2_error, translated
from k2.storage.file_io import local_path
from k2.storage.retries import attempts
from k2.storage.seam import SUMMARY_KEY, LogPartition, Seam
from k2.storage.snapshots import append
from k2.storage.table_creation import create_table, evolve_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from k2.common.clock import Clock
    from k2.storage.settings import CatalogSettings

NAMESPACE: Final = "market"
LOG_PREFIX: Final = "k2.log."
SCHEMA_PREFIX: Final = "k2.schema."
TIERS_PREFIX: Final = "k2.tiers."
GIVEN_UP_PREFIX: Final = "k2.given_up."
SETTLED_PREFIX: Final = "k2.settled."
MAIN_TABLES: Final[Mapping[str, RecordType]] = {record_type.name: record_type for record_type in (TRADES, QUOTES)}
"""Tables that have a seam, by short name: `trades`, `quotes`."""
SIDE_TABLES: Final[Mapping[str, RecordType]] = {DEAD_LETTERS.name: DEAD_LETTERS, GAPS.name: GAPS}
"""Event tables: idempotent by coordinate, so their snapshots carry no seam and position nobody."""


@dataclass(frozen=True, slots=True)
class RegisteredLog:
    """One topic of one cluster, as a table knows it; rows refer to it by `log_id`."""

    log_id: int
    cluster_id: str
    topic_id: str
    topic: str
    partitions: int
    starts: Mapping[int, int]
    """Per partition, the first offset that the table was to hold."""


@dataclass(frozen=True, slots=True)
class GivenUp:
    """Records that somebody decided to leave out: a seam was moved forward over the offsets [start, end).

    `name` is the table's property that says so.
    """

    name: str
    key: LogPartition
    start: int
    end: int
    records: int


@dataclass(frozen=True, slots=True)
class TableHead:
    """The newest snapshot of a main table, from metadata alone.

    `snapshot_id` is None, and the seam empty, while the table has no snapshot. `schemas` holds the Avro text of each
    schema id that the table has met.
    """

    table_name: str
    snapshot_id: int | None
    seam: Seam
    logs: tuple[RegisteredLog, ...]
    schemas: Mapping[int, str]
    metadata_location: str
    given_up: tuple[GivenUp, ...] = ()
    settled: Mapping[LogPartition, frozenset[int]] = field(default_factory=dict)
    """Offsets of dead letters that the ledger counts as duplicates already; their events may still have to say so."""
    tier_maps: Mapping[str, str] = field(default_factory=dict)
    """The text of each tier map by which something was ever deferred, by its id."""
    dropped: tuple[DroppedDays, ...] = ()
    """The days that retention has taken out, the oldest drop first."""
    table_uuid: str = ""
    """Tells it from every other table, whatever their names."""

    def log_of(self, topic: str) -> RegisteredLog | None:
        """Return the newest registered log of the topic called `topic`, or None."""
        return next((log for log in reversed(self.logs) if log.topic == topic), None)


class MarketTables:
    """The tables of the namespace `market`. Names are short: `trades`, `quotes`, `dead_letters`.

    Threads may share it. The catalog is opened when it is first needed, and again after each time that it failed.
    """

    def __init__(self, settings: CatalogSettings, clock: Clock, *, catalog: Catalog | None = None) -> None:
        self._settings = settings
        self._clock = clock
        self._catalog = catalog
        self._ensured = True
        self._opening = threading.Lock()
        self._seen: dict[str, Table] = {}
        self._lock = threading.Lock()

    @property
    def catalog(self) -> Catalog:
        """The catalog; UnavailableError while it cannot be opened, ConfigurationError if it refuses."""
        with self._opening:
            if self._catalog is None:
                self._catalog = open_catalog(self._settings)
            return self._catalog

    def ensure_in_time(self) -> None:
        """Do what `ensure` does, now or, where the catalog is down, before the first load that it answers."""
        self._ensured = False
        with contextlib.suppress(UnavailableError):
            self._ensure_once()

    def ensure(self) -> list[str]:
        """Create what is missing, add the optional columns that records.py has grown; return the tables created."""
        created = []
        with translated(f"creating the namespace {NAMESPACE}"):
            if not self.catalog.namespace_exists(NAMESPACE):
                create_namespace(self.catalog, NAMESPACE)
        for name, record_type in {**MAIN_TABLES, **SIDE_TABLES}.items():
            with translated(f"creating or checking the table {NAMESPACE}.{name}"):
                if self._ensure_table(name, record_type):
                    created.append(name)
        return created

    def load(self, table_name: str) -> Table:
        """Load a table afresh; ConfigurationError if there is none, UnavailableError if the catalog is down."""
        self._ensure_once()
        identifier = f"{NAMESPACE}.{table_name}"
        with translated(f"loading the table {identifier}", path=identifier):
            return self.catalog.load_table(identifier)

    def latest(self, table_name: str) -> Table:
        """Return the table as it is now, to read only; parsed again only where its metadata has changed."""
        self._ensure_once()
        with translated(f"looking up the table {NAMESPACE}.{table_name}"):
            location = metadata_location(self.catalog, NAMESPACE, table_name)
        with self._lock:
            seen = self._seen.get(table_name)
        if seen is not None and location == seen.metadata_location:
            return seen
        table = self.load(table_name)
        with self._lock:
            self._seen[table_name] = table
        return table

    def locations(self) -> list[str]:
        """Return where each table keeps its files: a plain path where that is local, a URI elsewhere."""
        places = [self.load(name).location() for name in (*MAIN_TABLES, *SIDE_TABLES)]
        return [place if (path := local_path(place)) is None else str(path) for place in places]

    def head(self, table_name: str) -> TableHead:
        """Return the newest snapshot's head; SeamError if the table has snapshots and no seam."""
        return head_of(self.latest(table_name))

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
        """Register a topic's log, with the offsets at which the table begins to read it; idempotent.

        The entry and a snapshot whose seam has the log's partitions go in by one swap: two workers cannot take one id.

        Raises:
            LogIdentityError: the topic is registered with another cluster, topic id or number of partitions, and
                `accept_new_log` is not set.
            UnavailableError: the catalog did not answer, or too many others were registering.
        """
        doing = f"registering the log of {topic} in {NAMESPACE}.{table_name}"
        wanted = RegisteredLog(-1, cluster_id, topic_id, topic, len(starts), dict(starts))
        failure: Exception | None = None
        for _ in attempts(self._settings, self._clock):
            try:
                table = self.load(table_name)
                head = head_of(table)
                known = _registered(head, wanted, accept_new_log=accept_new_log)
                if known is not None:
                    return known
                log_id = len(head.logs)
                append(
                    table,
                    summary={SUMMARY_KEY: head.seam.with_log(log_id, starts).to_json()},
                    properties={f"{LOG_PREFIX}{log_id}": _log_text(wanted)},
                    merge_count=self._settings.manifests_merge_count,
                )
            except (UnavailableError, CommitFailedException) as error:
                failure = error
            except Exception as error:  # outcome unknown: the next look at the head tells
                failure = as_k2_error(error, doing)
                if not isinstance(failure, UnavailableError):
                    raise failure or error from error
        raise UnavailableError(f"{doing}: no success: {failure}", dependency="catalog") from failure

    def close(self) -> None:
        """Close the catalog's connections."""
        if self._catalog is not None:
            close_catalog(self._catalog)

    def _ensure_once(self) -> None:
        if not self._ensured:
            self.ensure()
            self._ensured = True

    def _ensure_table(self, name: str, record_type: RecordType) -> bool:
        """Create or evolve a table; several processes may start at the same moment."""
        failure: CommitFailedException | None = None
        for _ in attempts(self._settings, self._clock):
            try:
                return self._ensure_table_once(name, record_type)
            except CommitFailedException as error:  # another process was faster: look again
                failure = error
        raise UnavailableError(f"other processes changed the table each time: {failure}", dependency="catalog")

    def _ensure_table_once(self, name: str, record_type: RecordType) -> bool:
        identifier = f"{NAMESPACE}.{name}"
        try:
            table = self.catalog.load_table(identifier)
        except NoSuchTableError:
            created = create_table(self.catalog, identifier, record_type)
            table = self.catalog.load_table(identifier)
        else:
            created = False
        evolve_table(self.catalog, table, record_type)
        return created


def new_schema_properties(head: TableHead, texts: Mapping[int, str]) -> dict[str, str]:
    """Return the properties that record the schema texts which the table does not have yet."""
    return {f"{SCHEMA_PREFIX}{key}": text for key, text in texts.items() if key not in head.schemas}


def head_of(table: Table, snapshot: Snapshot | None = None) -> TableHead:
    """Return the head of a main table as loaded; SeamError if it has snapshots and no seam.

    Of an older `snapshot` it has the seam, beside what the table has registered by now.
    """
    snapshot = snapshot or table.current_snapshot()
    summary = {} if snapshot is None or snapshot.summary is None else snapshot.summary.additional_properties
    properties = table.properties
    return TableHead(
        table_name=table.name()[-1],
        snapshot_id=None if snapshot is None else snapshot.snapshot_id,
        seam=Seam() if snapshot is None else Seam.from_summary(summary),
        logs=_logs(properties),
        schemas={
            int(key.removeprefix(SCHEMA_PREFIX)): text
            for key, text in properties.items()
            if key.startswith(SCHEMA_PREFIX)
        },
        metadata_location=table.metadata_location,
        given_up=_given_up(properties),
        settled=_settled(properties),
        tier_maps={
            key.removeprefix(TIERS_PREFIX): text for key, text in properties.items() if key.startswith(TIERS_PREFIX)
        },
        dropped=dropped_days(properties),
        table_uuid=str(table.metadata.table_uuid),
    )


def _given_up(properties: Mapping[str, str]) -> tuple[GivenUp, ...]:
    found = []
    for key, text in sorted(properties.items()):
        if key.startswith(GIVEN_UP_PREFIX):
            try:
                log_id, partition, start, end, records = json.loads(text)
            except ValueError as error:
                raise CorruptionError(
                    f"expected a range that was given up in {key}, found {text[:200]!r}", path=key
                ) from error
            if start < end:
                found.append(GivenUp(key, LogPartition(log_id, partition), start, end, records))
    return tuple(found)


def settled_property(key: LogPartition, offsets: Iterable[int]) -> dict[str, str]:
    """Return the property that says which dead letters of a partition were settled as duplicates."""
    return {f"{SETTLED_PREFIX}{key.log_id}.{key.partition}": json.dumps(sorted(offsets))}


def _settled(properties: Mapping[str, str]) -> dict[LogPartition, frozenset[int]]:
    found = {}
    for name, text in properties.items():
        if name.startswith(SETTLED_PREFIX):
            try:
                log_id, partition = map(int, name.removeprefix(SETTLED_PREFIX).split("."))
                found[LogPartition(log_id, partition)] = frozenset(map(int, json.loads(text)))
            except (ValueError, TypeError) as error:
                raise CorruptionError(
                    f"expected offsets that were settled in {name}, found {text[:200]!r}", path=name
                ) from error
    return found


def _logs(properties: Mapping[str, str]) -> tuple[RegisteredLog, ...]:
    logs = []
    for key, text in properties.items():
        if not key.startswith(LOG_PREFIX):
            continue
        try:
            body = json.loads(text)
            starts = {int(number): start for number, start in body["starts"].items()}
            logs.append(
                RegisteredLog(
                    log_id=int(key.removeprefix(LOG_PREFIX)),
                    cluster_id=body["cluster_id"],
                    topic_id=body["topic_id"],
                    topic=body["topic"],
                    partitions=body["partitions"],
                    starts=starts,
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CorruptionError(f"expected a registered log in {key}, found {text[:200]!r}", path=key) from error
    return tuple(sorted(logs, key=lambda log: log.log_id))


def _log_text(log: RegisteredLog) -> str:
    body = {
        "cluster_id": log.cluster_id,
        "topic_id": log.topic_id,
        "topic": log.topic,
        "partitions": log.partitions,
        "starts": {str(number): start for number, start in sorted(log.starts.items())},
    }
    return json.dumps(body, separators=(",", ":"))


def _registered(head: TableHead, wanted: RegisteredLog, *, accept_new_log: bool) -> RegisteredLog | None:
    """Return the log if it is registered; LogIdentityError if its topic is, with another identity."""
    for log in head.logs:
        if (log.cluster_id, log.topic_id) == (wanted.cluster_id, wanted.topic_id):
            if log.partitions != wanted.partitions:
                raise LogIdentityError(
                    f"expected {log.partitions} partitions of {log.topic} (log {log.log_id} of {head.table_name}), "
                    f"found {wanted.partitions}: a symbol's records may lie in two partitions; a person must accept it"
                )
            return log
    known = head.log_of(wanted.topic)
    if known is not None and not accept_new_log:
        raise LogIdentityError(
            f"{wanted.topic} is log {known.log_id} of {head.table_name}: expected cluster {known.cluster_id} and topic "
            f"id {known.topic_id}, found cluster {wanted.cluster_id} and topic id {wanted.topic_id}: the topic was "
            "created again, or this is another cluster; going on would mix two logs; a person must accept it"
        )
    return None
