"""Where a stream stands: the log prefix that it has sent or is sending, and the text of it that a client gives back."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from k2.common.errors import QueryError
from k2.query.certificate import AsOf
from k2.query.request import RowKey, Since
from k2.storage.seam import LogPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from k2.query.live.follower import Ends, Span

VERSION: Final = 1
_INT64: Final = range(-(2**63), 2**63)
_CHECKSUM_BYTES: Final = 4
_DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True, slots=True)
class Position:
    """A stream's place. It sends the rows of `prefix` that lie past `since`, in order; those up to `after` are sent.

    `prefix` is a token: what has been sent once all of it is sent are the rows of its raw answer, from `start_ns` on,
    less those below the offsets at which the stream began.
    """

    prefix: AsOf
    since: Since | None = None
    """None while nothing of an earlier prefix was sent: the stream sends history."""
    after: RowKey | None = None
    start_ns: int | None = None
    bars_from_ns: int | None = None
    """End of the last bar that was sent; None for a stream without bars."""

    @property
    def is_whole(self) -> bool:
        """Say whether all of the prefix has been sent."""
        return self.since is not None and self.since.ends == _ends(self.prefix)

    @property
    def whole(self) -> Position:
        """Return the place once all of the prefix has been sent."""
        commit = self.prefix.commit_sequence if self.since is None else self.since.commit_sequence
        return replace(self, since=Since(_ends(self.prefix), commit), after=None)

    def is_ahead_of(self, ends: Ends) -> bool:
        """Say whether the prefix reaches beyond other ends somewhere."""
        places = ends.places
        return any(
            end > places[key].end
            for at, number, _, end in self.prefix.partitions
            if (key := LogPartition(at, number)) in places
        )

    def widened(self, ends: Ends) -> Position:
        """Return the place with a prefix that reaches up to other ends, where they are higher."""
        places = {LogPartition(at, number): (seam, end) for at, number, seam, end in self.prefix.partitions}
        for key, span in ends.places.items():
            seam, end = places.get(key, (span.begins, span.begins))
            places[key] = seam, max(end, span.end)
        return replace(self, prefix=_with(self.prefix, places))

    def passed(self, spans: Mapping[LogPartition, Span], commit_sequence: int) -> Position:
        """Return the place after all of these spans, which follow on what was sent; all of the prefix has been."""
        assert self.since is not None
        places = {LogPartition(at, number): (seam, end) for at, number, seam, end in self.prefix.partitions}
        for key, span in spans.items():
            seam, _ = places.get(key, (span.begins, span.begins))
            places[key] = seam, span.end
        prefix = _with(self.prefix, places)
        known = max(self.since.commit_sequence, commit_sequence)
        return replace(self, prefix=prefix, since=Since(_ends(prefix), known), after=None)

    def to_text(self, subject: str) -> str:
        """Return the opaque text that the parameter `cursor` and the header Last-Event-ID take."""
        prefix, since = self.prefix, self.since
        body = [
            VERSION,
            subject,
            prefix.exchange,
            prefix.commit_sequence,
            prefix.partitions,
            prefix.deferred,
            None if since is None else since.commit_sequence,
            None if since is None or self.is_whole else since.ends,
            None if self.after is None else astuple(self.after),
            self.start_ns,
            self.bars_from_ns,
        ]
        text = json.dumps(body, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(_checksum(text) + text).decode().rstrip("=")


def position_of(text: str, subject: str, data_type: str) -> Position:
    """Read what `to_text` wrote of a stream about the same.

    Raises:
        QueryError: it is something else, was damaged, or is of another stream.
    """
    try:
        whole = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
        if whole[:_CHECKSUM_BYTES] != _checksum(whole[_CHECKSUM_BYTES:]):
            raise _not_a_cursor()
        body = json.loads(whole[_CHECKSUM_BYTES:])
        if not isinstance(body, list) or body[0] != VERSION:
            raise _not_a_cursor()
        if body[1] != subject:
            raise QueryError(
                "expected the cursor of a stream of the same table, symbols, exchange and bars, found one of another: "
                "ask as then, or begin anew with from="
            )
        return _read(body, data_type)
    except (ValueError, TypeError, IndexError, RecursionError) as error:
        raise _not_a_cursor() from error


def behind(token: AsOf, now: AsOf, homes: Collection[LogPartition]) -> AsOf:
    """Return the prefix of a certificate's token for a stream: of partitions that the answer did not read, as of now.

    Raises:
        QueryError: the answer was about another table, exchange or symbol, or about what was known at a time.
    """
    known = {LogPartition(at, number): (seam, end) for at, number, seam, end in token.partitions}
    logs = {key.log_id for key in known}
    if (token.data_type, token.exchange) != (now.data_type, now.exchange) or token.known_at_ns is not None:
        raise QueryError(
            f"expected the token of an answer about {now.data_type} of {now.exchange or 'all exchanges'} as known now, "
            f"found one about {token.data_type} of {token.exchange or 'all exchanges'!r}: take another, or a time"
        )
    if any(home.log_id in logs and home not in known for home in homes):
        raise QueryError("expected the token of an answer about the symbols of the stream, found one about others")
    for at, number, _, end in now.partitions:
        if at in logs:
            known.setdefault(LogPartition(at, number), (end, end))
    return _with(token, known)


def subject_of(*values: object) -> str:
    """Return a digest of what a stream is about."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _read(body: list[Any], data_type: str) -> Position:
    exchange, commit, partitions, deferred, known, since, after, start_ns, bars_from_ns = body[2:]
    numbers = [commit, known, start_ns, bars_from_ns, *(after or ())]
    numbers += [each for entry in (*partitions, *deferred, *(since or ())) for each in entry]
    if not all(each is None or (type(each) is int and each in _INT64) for each in numbers):
        raise _not_a_cursor()
    places = tuple((a, b, c, d) for a, b, c, d in partitions)
    ranges = tuple((a, b, c, d) for a, b, c, d in deferred)
    prefix = AsOf(data_type, exchange, commit, places, ranges)
    ends = _ends(prefix) if since is None else tuple((a, b, c) for a, b, c in since)
    return Position(
        prefix,
        None if known is None else Since(ends, known),
        None if after is None else RowKey(*after),
        start_ns,
        bars_from_ns,
    )


def _ends(prefix: AsOf) -> tuple[tuple[int, int, int], ...]:
    return tuple((log_id, partition, end) for log_id, partition, _, end in prefix.partitions)


def _with(prefix: AsOf, places: Mapping[LogPartition, tuple[int, int]]) -> AsOf:
    entries: Iterable[tuple[int, int, int, int]] = (
        (key.log_id, key.partition, seam, end) for key, (seam, end) in sorted(places.items())
    )
    return replace(prefix, partitions=tuple(entries))


def _checksum(text: bytes) -> bytes:
    """Return what finds a cursor that was damaged on its way: it would name another place, and rows would be missed."""
    return zlib.crc32(text).to_bytes(_CHECKSUM_BYTES)


def _not_a_cursor() -> QueryError:
    return QueryError("expected the id of an event of a stream as its cursor, found something else")
