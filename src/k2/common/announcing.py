"""What processes tell each other: the level that a worker has taken, drills, and halted streams that are to go on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from k2.common.degradation import DegradationLevel
from k2.common.errors import RecordError
from k2.common.units import NS_PER_SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

_KINDS: Final[dict[str, Any]] = {"str": str, "int": int, "float": (int, float), "bool": bool}

T = TypeVar("T", "LevelAnnouncement", "DrillRequest", "ReleaseRequest")


@dataclass(frozen=True, slots=True)
class LevelAnnouncement:
    """The level of one worker, told at every change and every few seconds in between.

    `since_ns` and `at_ns` are UTC nanoseconds: when the level was taken, and when this was said.
    """

    worker: str
    level: DegradationLevel
    reason: str
    since_ns: int
    at_ns: int
    lag_records: int = 0
    drain_seconds: float = 0.0
    memory_percent: float = 0.0
    deferred_records: int = 0
    drill: bool = False

    def to_json(self) -> bytes:
        """Return the announcement as the value of a message."""
        return _to_json(self)

    @classmethod
    def from_json(cls, value: bytes) -> LevelAnnouncement:
        """Read the value of a message; fields of a later version are passed over.

        Raises:
            RecordError: it is no announcement.
        """
        return _from_json(cls, value)


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """A wish that every worker take at least a level until a time, to see what the platform does then.

    The sink may be made slow as well: each commit waits `sink_delay_seconds`, and as long as its rows take at
    `sink_rows_per_second` (0: no time). The newest request counts: one whose time is over ends the one before.
    """

    level: DegradationLevel
    until_ns: int
    requested_at_ns: int
    requested_by: str
    sink_delay_seconds: float = 0.0
    sink_rows_per_second: float = 0.0
    note: str = ""
    """What it is for, as people read it in the list of drills."""

    def runs_at(self, now_ns: int, *, seconds_max: float) -> bool:
        """Say whether its time is not over yet; it never takes longer than `seconds_max`."""
        return now_ns < min(self.until_ns, self.requested_at_ns + int(seconds_max * NS_PER_SECOND))

    def to_json(self) -> bytes:
        """Return the request as the value of a message."""
        return _to_json(self)

    @classmethod
    def from_json(cls, value: bytes) -> DrillRequest:
        """Read the value of a message; fields of a later version are passed over.

        Raises:
            RecordError: it is no request.
        """
        return _from_json(cls, value)


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A wish that a halted stream go on: the one of a partition that is halted since an offset, and no other."""

    table: str
    log_id: int
    partition: int
    since: int
    stream: str
    requested_at_ns: int
    requested_by: str
    note: str = ""
    """Why it may go on, as people read it later."""

    def to_json(self) -> bytes:
        """Return the request as the value of a message."""
        return _to_json(self)

    @classmethod
    def from_json(cls, value: bytes) -> ReleaseRequest:
        """Read the value of a message; fields of a later version are passed over.

        Raises:
            RecordError: it is no request.
        """
        return _from_json(cls, value)


class Announcer(Protocol):
    """Where a worker says its level."""

    def announce(self, announcement: LevelAnnouncement) -> None:
        """Tell the others; never waits, and a failure is logged and not raised, since ingestion goes on."""
        ...


class LevelBoard(Protocol):
    """Where the level of the platform is read."""

    def current(self) -> LevelAnnouncement | None:
        """Return the announcement of the highest level that is still fresh; None where no worker is heard."""
        ...


class Drills(Protocol):
    """Where a worker hears of drills."""

    def wanted(self) -> DrillRequest | None:
        """Return the drill in force; None when there is none, or when its time is over."""
        ...


class DrillBook(Protocol):
    """Where people ask for drills, and where it is kept who asked for what."""

    def ask(self, request: DrillRequest) -> None:
        """Tell every worker; UnavailableError where that cannot be said."""
        ...

    def asked(self, requests_max: int) -> Sequence[DrillRequest]:
        """Return the newest requests, oldest first; UnavailableError where they cannot be read."""
        ...


class ReleaseBook(Protocol):
    """Where people let halted streams go on, and where it is kept who did."""

    def ask(self, request: ReleaseRequest) -> None:
        """Tell every worker; UnavailableError where that cannot be said."""
        ...

    def asked(self, requests_max: int) -> Sequence[ReleaseRequest]:
        """Return the newest requests, oldest first; UnavailableError where they cannot be read."""
        ...


def _to_json(value: LevelAnnouncement | DrillRequest | ReleaseRequest) -> bytes:
    return json.dumps(asdict(value), separators=(",", ":")).encode()


def _from_json(kind: type[T], value: bytes) -> T:
    try:
        body: dict[str, Any] = json.loads(value)
        return kind(**{each.name: _read(each.type, body[each.name]) for each in fields(kind) if each.name in body})
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"expected {kind.__name__} as JSON, found {value[:80]!r} ({error}): does another program write here?"
        ) from error


def _read(kind: Any, value: Any) -> Any:
    """Return a field's value; `kind` is the name of its type, ValueError for a value of another one."""
    if kind == DegradationLevel.__name__:
        return DegradationLevel(value)
    if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{value!r} is no {kind}")
    return value
