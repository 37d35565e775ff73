"""The certificate of an answer: which prefix of the log it is, and where each row came from."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from k2.common.errors import QueryError

VERSION: Final = 1
TOKEN_WITH_DEFERRED: Final = 2
"""Version of a token that names deferred ranges: a version of K2 that knows only 1 would leave out their records."""
TOKEN_KNOWN_AT: Final = 3
"""Version of a token that holds a time as well: a version of K2 that knows only 2 would show what came after it."""
_INT64: Final = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True, order=True)
class PartitionRead:
    """One partition of the log as an answer read it: the table below `seam`, the log in [seam, end)."""

    log_id: int
    topic: str
    partition: int
    seam: int
    end: int


@dataclass(frozen=True, slots=True)
class Deferred:
    """Offsets of which some records of the symbol are not written yet, since overload put them off.

    The rows of the answer lack them, unless they were `read` from the log.
    """

    log_id: int
    partition: int
    start: int
    end: int
    read: bool = False


@dataclass(frozen=True, slots=True)
class AsOf:
    """What a token holds: the log prefix of an answer, so that the same question gives the same rows again."""

    data_type: str
    exchange: str | None
    commit_sequence: int
    partitions: tuple[tuple[int, int, int, int], ...]
    """Of each partition read: log id, partition, seam, end."""
    deferred: tuple[tuple[int, int, int, int], ...] = ()
    """What was deferred in them: log id, partition, start, end. It belongs to the prefix, whenever it is written."""
    at_ns: int | None = None
    """When bars were answered: which of them were over then. Rows do not depend on it."""
    known_at_ns: int | None = None
    """What the log took at this time or later is left out of the answer."""

    def to_token(self) -> str:
        """Return the opaque text that `as_of` takes."""
        body = {
            "v": self._version,
            "t": self.data_type,
            "x": self.exchange,
            "c": self.commit_sequence,
            "p": [list(entry) for entry in self.partitions],
            **({"d": [list(entry) for entry in self.deferred]} if self.deferred else {}),
            **({} if self.at_ns is None else {"n": self.at_ns}),
            **({} if self.known_at_ns is None else {"k": self.known_at_ns}),
        }
        text = json.dumps(body, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @property
    def _version(self) -> int:
        if self.known_at_ns is not None:
            return TOKEN_KNOWN_AT
        return TOKEN_WITH_DEFERRED if self.deferred else VERSION

    @classmethod
    def from_token(cls, token: str) -> AsOf:
        """Read a token; QueryError if it is none."""
        try:
            text = base64.urlsafe_b64decode(token.encode() + b"=" * (-len(token) % 4))
            body = json.loads(text)
            if body["v"] not in {VERSION, TOKEN_WITH_DEFERRED, TOKEN_KNOWN_AT}:
                raise QueryError(
                    f"expected a token of version {VERSION} to {TOKEN_KNOWN_AT}, found {body['v']!r}: ask for a new one"
                )
            partitions, deferred = _places(body["p"]), _places(body.get("d", ()))
            at_ns, known_at_ns = (None if body.get(key) is None else int(body[key]) for key in ("n", "k"))
            places = (each for entry in (*partitions, *deferred) for each in entry)
            numbers = (int(body["c"]), at_ns or 0, known_at_ns or 0, *places)
            token_read = cls(str(body["t"]), body["x"], numbers[0], partitions, deferred, at_ns, known_at_ns)
        except (binascii.Error, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise QueryError("expected as_of to be the token of a certificate, found something else") from error
        if not all(number in _INT64 for number in numbers):
            raise QueryError("expected as_of to be the token of a certificate, found numbers beyond 64 bits")
        return token_read


def _places(entries: Any) -> tuple[tuple[int, int, int, int], ...]:  # Any: whatever the text holds
    return tuple((int(a), int(b), int(c), int(d)) for a, b, c, d in entries)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What an answer is made of. All offsets are next offsets: the row at `end` is not part of the answer."""

    table: str
    symbol: str
    exchange: str | None
    start_ns: int | None
    """The range that was read, half-open; a window is stated by the range that it came to."""
    end_ns: int | None
    snapshot_id: int | None
    """None when the table was out of reach."""
    commit_sequence: int | None
    partitions: tuple[PartitionRead, ...]
    rows: int
    rows_from_table: int
    rows_from_log: int
    undecodable: int
    """Records of the partitions read, from the seam on, that could not become rows: dead letters to be."""
    as_of: str | None
    """Token of the log prefix; None for an answer that lacks a part of it."""
    complete: bool
    """Whether every record of the log below each `end` that matches the question has gone into the answer, and each
    amendment has found its original."""
    reasons: tuple[str, ...] = ()
    """Why the answer is not complete, each with what is missing."""
    degradation_level: str = "NORMAL"
    """NORMAL, TABLE_ONLY (the log was out of reach), LOG_ONLY (the table was), or PARTIAL."""
    stale: bool = False
    """Whether the answer ends before the log's end because the log was out of reach (TABLE_ONLY)."""
    staleness_seconds: float | None = None
    """How far at most the answer's end is behind the log's: 0 where the log was asked; None where nothing tells."""
    platform_level: str | None = None
    """The level of degradation that the workers had taken, NORMAL to CIRCUIT_BREAK; None where none was heard."""
    platform_reason: str | None = None
    """Why they had taken it."""
    lake_only: bool = False
    truncated: bool = False
    """Whether a limit cut the answer; its pages continue."""
    duplicates_removed: int = 0
    amendments: str = "applied"
    """Whether trades are as CANCELs and CORRECTs leave them (`applied`), or every record as written (`raw`)."""
    known_at_ns: int | None = None
    """Only what the log had before this time has gone into the answer; None for all of it."""
    cancelled: int = 0
    """Trades of the range that are not shown, since they were cancelled."""
    corrected: int = 0
    """Trades of the range that are shown as their newest correction says."""
    originals_unknown: int = 0
    """Amendments of the range whose original the log does not hold; they make the answer incomplete."""
    gap_count: int | None = None
    """Gaps that overlap the range and lack numbers, as known below each `seam`; None where nobody watches numbers."""
    gaps: tuple[dict[str, Any], ...] | None = None
    """The newest of these gaps, at most K2_QUERY__GAPS_LISTED_MAX; None where nobody watches numbers."""
    rows_excluded: int = 0
    """Rows left out since their session has a gap in the range (`gaps=exclude`)."""
    deferred: tuple[Deferred, ...] = ()
    """Ranges that hold back records of the symbol; what was not read from them makes the answer incomplete."""
    bars: dict[str, Any] | None = None
    """Of an answer in bars: interval, alignment, which prints count and by which rules, and how many were left out.
    `rows` and the counts after it are then trades. None for other answers."""
    quotes: dict[str, Any] | None = None
    """Of trades with the quotes that stood: the certificate of the quotes read. None for other answers."""
    newest_record_age_seconds: float | None = None
    """Age of the newest record of the answer by its event time; None for an empty answer."""
    answered_at_ns: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each step took."""

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as plain values, ready for JSON."""
        body = asdict(self)
        body["v"] = VERSION
        return body

    def to_json(self) -> str:
        """Return the certificate as one line of JSON."""
        return json.dumps(self.to_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what `to_json` wrote; QueryError if it is something else."""
        try:
            body = json.loads(text)
            if body.pop("v") != VERSION:
                raise QueryError(f"expected a certificate of version {VERSION}: upgrade K2 to read this one")
            body["partitions"] = tuple(PartitionRead(**entry) for entry in body["partitions"])
            body["deferred"] = tuple(Deferred(**entry) for entry in body["deferred"])
            body["reasons"] = tuple(body["reasons"])
            body["gaps"] = None if body["gaps"] is None else tuple(body["gaps"])
            return cls(**body)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise QueryError("expected the JSON of a certificate, found something else") from error
