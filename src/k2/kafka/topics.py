"""Exchanges and topics, read from topics.yaml and checked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, time
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from k2.common.errors import ConfigurationError
from k2.common.strict_yaml import explain, read_yaml
from k2.schemas.identity import IdentityRules
from k2.schemas.records import RECORD_TYPES, RecordType

if TYPE_CHECKING:
    from collections.abc import Mapping

PACKAGED: Final = Path(__file__).parents[1] / "config" / "topics.yaml"
DEAD_LETTER_SUFFIX: Final = ".dlq"
MARKET_DATA_TYPES: Final = tuple(RECORD_TYPES)
_DAY_MS: Final = 86_400_000
_COMPACTED_SOON: Final = {"cleanup.policy": "compact,delete", "segment.ms": "3600000"}
_NAME: Final = r"^[a-z][a-z0-9_-]{0,31}$"
_DEAD_LETTER_BYTES_MAX: Final = 2 * 1024 * 1024
"""A dead letter is a message of at most 1 MiB (the broker's default) plus headers."""

DEGRADATION_TOPIC: Final = "k2.degradation"
"""What level each worker has taken, by the worker's name."""
DRILLS_TOPIC: Final = "k2.drills"
"""Which drills were asked for: their audit."""
RELEASES_TOPIC: Final = "k2.releases"
"""Which halted streams were let go on: their audit."""

SequenceScope = Literal["symbol", "channel", "none"]


@dataclass(frozen=True, slots=True)
class BarHours:
    """What an exchange's bars are cut by, and which of its prints they count by default; see topics.yaml."""

    sessions: tuple[tuple[time, time], ...] = ()
    hours: tuple[tuple[time, time], ...] = ()
    conditions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Exchange:
    """One venue. `sequence_scope` says where its sequence numbers run."""

    name: str
    asset_class: str
    timezone: str
    sequence_scope: SequenceScope
    partitions: int
    deduplicate: bool = True
    """Whether records that were stored within the last 24 h are dropped."""
    lines: tuple[str, ...] = ()
    """The feeds that bring one and the same stream, by the beginning of their `source`."""
    sessions: tuple[tuple[time, time], ...] = ()
    """When it trades from Monday to Friday, in its time zone; without any, always."""
    closed: tuple[date, ...] = ()
    """Days without a session."""
    bars: BarHours = BarHours()


@dataclass(frozen=True)
class Topic:
    """One topic as it should be; `config` holds Kafka's topic properties."""

    name: str
    asset_class: str
    data_type: str
    exchange: str
    partitions: int
    config: Mapping[str, str]

    @property
    def dead_letter_name(self) -> str:
        """Name of the topic that takes this topic's undecodable records."""
        return self.name + DEAD_LETTER_SUFFIX

    @property
    def subject(self) -> str:
        """Name under which the schemas of this topic's values are registered."""
        return f"{self.name}-value"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _DataType(_Strict):
    retention_days: float | None = Field(default=None, gt=0, le=36500)
    compacted: bool = False

    @model_validator(mode="after")
    def _either(self) -> _DataType:
        if self.compacted == (self.retention_days is not None):
            raise ValueError("either retention_days or compacted: true")
        return self


def _from_to(texts: list[str]) -> tuple[tuple[time, time], ...]:
    """Read spans of one day; ValueError if one is none."""
    try:
        spans = tuple((time.fromisoformat(a), time.fromisoformat(b)) for a, b in (each.split("-") for each in texts))
    except (ValueError, AttributeError, TypeError):
        raise ValueError('a list of sessions such as "10:00-16:00"') from None
    edges = [edge for span in spans for edge in span]
    if any(edge.tzinfo for edge in edges) or edges != sorted(set(edges)):
        raise ValueError("sessions of one day in their order, each of which ends after it begins")
    return spans


class _Bars(_Strict):
    sessions: tuple[tuple[time, time], ...] = ()
    hours: tuple[tuple[time, time], ...] = ()
    conditions: tuple[str, ...] | None = None

    _read = field_validator("sessions", "hours", mode="before")(_from_to)


class _Exchange(_Strict):
    asset_class: str = Field(pattern=_NAME)
    timezone: str
    sequence_scope: SequenceScope
    partitions: int = Field(ge=1, le=1000, strict=True)
    deduplicate: bool = True
    lines: tuple[str, ...] = ()
    sessions: tuple[tuple[time, time], ...] = ()
    closed: tuple[date, ...] = ()
    bars: _Bars = Field(default_factory=_Bars)

    _read = field_validator("sessions", mode="before")(_from_to)

    @model_validator(mode="after")
    def _lines_are_numbered(self) -> _Exchange:
        if self.lines and (self.sequence_scope == "none" or len(set(self.lines)) < 2 or "" in self.lines):  # noqa: PLR2004 - a pair
            raise ValueError("lines: two names or more, no two the same, of a venue that numbers its messages")
        return self

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone in the IANA database") from None
        return name


class _Control(_Strict):
    """Days that K2's own topics keep what its processes tell each other."""

    degradation_days: float = Field(default=1, gt=0, le=36500)
    drills_days: float = Field(default=365, gt=0, le=36500)
    releases_days: float = Field(default=365, gt=0, le=36500)


class _DataTypes(_Strict):
    trades: _DataType
    quotes: _DataType
    status: _DataType
    instruments: _DataType
    dead_letters: _DataType


class _File(_Strict):
    version: Literal[1]
    data_types: _DataTypes
    control: _Control = Field(default_factory=_Control)
    exchanges: dict[str, _Exchange] = Field(min_length=1)

    @field_validator("exchanges")
    @classmethod
    def _named(cls, exchanges: dict[str, _Exchange]) -> dict[str, _Exchange]:
        for name in exchanges:
            if not re.match(_NAME, name):
                raise ValueError(f"{name!r} is no exchange name: lower-case letters, digits, _ and -, at most 32")
        return exchanges


@dataclass(frozen=True)
class TopicCatalog:
    """All exchanges and topics that a platform has."""

    exchanges: Mapping[str, Exchange]
    all_topics: tuple[Topic, ...]
    """Every topic, also those of status, reference data and dead letters, and the two of K2 itself."""

    @classmethod
    def load(cls, path: Path | None = None) -> TopicCatalog:
        """Read the file at `path`, or the one that comes with K2.

        Raises:
            ConfigurationError: the file cannot be read, or says something impossible; the text names what.
        """
        source = path or PACKAGED
        return _catalog(_read(source))

    def identity_rules(self, *, enabled: bool = True) -> IdentityRules:
        """Return which exchanges number their messages, and of which no duplicates are looked for: all, if disabled."""
        return IdentityRules(
            numbered=frozenset(name for name, each in self.exchanges.items() if each.sequence_scope != "none"),
            unchecked=frozenset(name for name, each in self.exchanges.items() if not (enabled and each.deduplicate)),
        )

    @property
    def lines(self) -> dict[str, tuple[str, ...]]:
        """Return the lines of each exchange that has some."""
        return {name: each.lines for name, each in self.exchanges.items() if each.lines}

    @property
    def market_topics(self) -> tuple[Topic, ...]:
        """The topics of trades and quotes, which ingestion reads."""
        return tuple(topic for topic in self.all_topics if topic.data_type in MARKET_DATA_TYPES)

    @property
    def control_topics(self) -> tuple[Topic, ...]:
        """The topics on which K2's processes tell each other of overload and halts; nothing in them is market data."""
        own = (DEGRADATION_TOPIC, DRILLS_TOPIC, RELEASES_TOPIC)
        return tuple(topic for topic in self.all_topics if topic.name in own)

    @property
    def sequence_columns(self) -> dict[str, str]:
        """The market topics whose numbers can be watched, each with the column that tells its streams apart.

        Numbers that run per channel are left out where the topic has several partitions: a channel's messages lie in
        all of them, and no order of the log says which came first.
        """
        columns = {"symbol": "symbol", "channel": "channel"}
        return {
            topic.name: columns[scope]
            for topic in self.market_topics
            if (scope := self.exchanges[topic.exchange].sequence_scope) in columns
            and (scope == "symbol" or topic.partitions == 1)
        }

    @property
    def watched(self) -> dict[str, frozenset[str]]:
        """By data type, the exchanges whose numbers are watched."""
        names = self.sequence_columns
        return {
            kind: frozenset(
                each.exchange for each in self.market_topics if each.data_type == kind and each.name in names
            )
            for kind in MARKET_DATA_TYPES
        }

    @property
    def retention_ms(self) -> dict[str, int]:
        """How long each topic keeps its records, in milliseconds; those that keep them for good are left out."""
        return {
            each.name: int(each.config["retention.ms"]) for each in self.all_topics if "retention.ms" in each.config
        }

    def topic(self, exchange: str, data_type: str) -> Topic:
        """Return an exchange's topic of one data type; ConfigurationError if there is none."""
        for topic in self.all_topics:
            if topic.exchange == exchange and topic.data_type == data_type:
                return topic
        raise ConfigurationError(
            f"expected an exchange and data type of topics.yaml ({', '.join(self.exchanges)}; "
            f"{', '.join(MARKET_DATA_TYPES)}), found {exchange!r} and {data_type!r}"
        )

    def by_name(self, name: str) -> Topic:
        """Return the topic called `name`; ConfigurationError if there is none."""
        for topic in self.all_topics:
            if topic.name == name:
                return topic
        raise ConfigurationError(f"expected a topic of topics.yaml, found {name!r}; `k2 topics` lists them")

    def record_type(self, topic: Topic) -> RecordType:
        """Return the record type that a topic's messages have; ConfigurationError for other topics."""
        record_type = RECORD_TYPES.get(topic.data_type)
        if record_type is None:
            raise ConfigurationError(f"expected a topic of {' or '.join(RECORD_TYPES)}, found {topic.name!r}")
        return record_type


def exchange_of(topic_name: str) -> str:
    """Return the exchange that a topic's name says: the last part of market.{asset class}.{data type}.{exchange}."""
    return topic_name.removesuffix(DEAD_LETTER_SUFFIX).rpartition(".")[2]


def _read(path: Path) -> _File:
    content = read_yaml(path, "topics file")
    try:
        return _File.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError("\n".join(explain(path, problem) for problem in error.errors())) from None


def _catalog(file: _File) -> TopicCatalog:
    exchanges = {name: _exchange(name, each) for name, each in file.exchanges.items()}
    topics = [topic for exchange in exchanges.values() for topic in _topics_of(exchange, file)]
    return TopicCatalog(MappingProxyType(exchanges), (*topics, *_control_topics(file.control)))


def _exchange(name: str, said: _Exchange) -> Exchange:
    fields = {field: getattr(said, field) for field in _Exchange.model_fields}
    return Exchange(name, **{**fields, "bars": BarHours(**dict(said.bars))})


def _topics_of(exchange: Exchange, file: _File) -> list[Topic]:
    def make(data_type: str, partitions: int) -> Topic:
        name = f"market.{exchange.asset_class}.{data_type}.{exchange.name}"
        config = _topic_config(getattr(file.data_types, data_type))
        return Topic(name, exchange.asset_class, data_type, exchange.name, partitions, config)

    def dead_letters(topic: Topic) -> Topic:
        config = _topic_config(file.data_types.dead_letters)
        config["max.message.bytes"] = str(_DEAD_LETTER_BYTES_MAX)
        return Topic(topic.dead_letter_name, exchange.asset_class, "dead_letters", exchange.name, 1, config)

    market = [make(data_type, exchange.partitions) for data_type in MARKET_DATA_TYPES]
    return [*market, *map(dead_letters, market), make("status", 1), make("instruments", 1)]


def _control_topics(control: _Control) -> tuple[Topic, ...]:
    """Return K2's own topics: of levels the newest of each worker, all drills and releases; old ones are forgotten."""
    levels = _topic_config(_DataType(retention_days=control.degradation_days)) | _COMPACTED_SOON
    drills = _topic_config(_DataType(retention_days=control.drills_days))
    releases = _topic_config(_DataType(retention_days=control.releases_days))
    return (
        Topic(DEGRADATION_TOPIC, "", "degradation", "", 1, levels),
        Topic(DRILLS_TOPIC, "", "drills", "", 1, drills),
        Topic(RELEASES_TOPIC, "", "releases", "", 1, releases),
    )


def _topic_config(data_type: _DataType) -> dict[str, str]:
    config = {"message.timestamp.type": "LogAppendTime"}
    if data_type.compacted:
        return config | {"cleanup.policy": "compact"}
    retention_ms = int((data_type.retention_days or 0) * _DAY_MS)
    return config | {"cleanup.policy": "delete", "retention.ms": str(retention_ms)}
