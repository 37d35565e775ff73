"""Cursors: the place where the next page begins, in the log prefix of the first page, bound to its question."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Final

from k2.common.errors import QueryError
from k2.query.request import QueryRequest, RowKey

if TYPE_CHECKING:
    from k2.query.request import Answer

VERSION: Final = 2
_INT64: Final = range(-(2**63), 2**63)
_DIGEST_CHARACTERS: Final = 16
_CHECKSUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page begins. `subject` and `extent` are digests of what the first page asked for, and in what range."""

    subject: str
    extent: str
    as_of: str | None
    start_ns: int | None
    end_ns: int | None
    after: RowKey

    def to_text(self) -> str:
        """Return the opaque text that the parameter `cursor` takes."""
        body = [VERSION, self.subject, self.extent, self.as_of, self.start_ns, self.end_ns, *astuple(self.after)]
        text = json.dumps(body, separators=(",", ":"))
        return base64.urlsafe_b64encode(_checksum(text.encode()) + text.encode()).decode().rstrip("=")

    @classmethod
    def from_text(cls, text: str) -> Cursor:
        """Read what `to_text` wrote; QueryError if it is something else."""
        try:
            whole = base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4))
            if whole[:_CHECKSUM_BYTES] != _checksum(whole[_CHECKSUM_BYTES:]):
                raise _not_a_cursor()
            body = json.loads(whole[_CHECKSUM_BYTES:])
            version, subject, extent, as_of, start_ns, end_ns, *place = body
        except (ValueError, TypeError, RecursionError) as error:
            raise _not_a_cursor() from error
        numbers = [number for number in (start_ns, end_ns, *place) if number is not None]
        texts = [subject, extent, *([] if as_of is None else [as_of])]
        if version != VERSION or len(place) != len(RowKey.__slots__) or None in place:
            raise _not_a_cursor()
        if not all(type(number) is int and number in _INT64 for number in numbers):
            raise _not_a_cursor()
        if not all(isinstance(item, str) for item in texts):
            raise _not_a_cursor()
        return cls(subject, extent, as_of, start_ns, end_ns, RowKey(*place))


def continued(request: QueryRequest, text: str | None) -> tuple[QueryRequest, str]:
    """Return the request for the page that a cursor names, and the digest of the range that its first page asked for.

    Raises:
        QueryError: it is no cursor, or one of another question. The range may be left out or given again as it was.
    """
    if text is None:
        return request, _extent(request)
    cursor = Cursor.from_text(text)
    ranged = (request.start_ns, request.end_ns, request.window_minutes, request.as_of) != (None, None, None, None)
    if cursor.subject != _subject(request) or (ranged and cursor.extent != _extent(request)):
        raise QueryError(
            "expected cursor with the question of its first page (symbol, exchange, range, lake_only, on_degrade, "
            "known_at, amendments, gaps, deferred), found another question: ask that one from its first page"
        )
    request = replace(
        request,
        window_minutes=None,
        start_ns=cursor.start_ns,
        end_ns=cursor.end_ns,
        as_of=cursor.as_of,
        after=cursor.after,
    )
    return request, cursor.extent


def next_cursor(asked: QueryRequest, extent: str, answer: Answer) -> str | None:
    """Return the cursor of the page after `answer`; None after the last one.

    It fixes the range and, where the answer is complete, the log prefix: pages neither overlap nor skip while records
    arrive. Of an answer that is not complete it fixes the place only: pages do not overlap, late records may be missed.
    """
    if answer.next_after is None:
        return None
    certificate = answer.certificate
    cursor = Cursor(
        _subject(asked), extent, certificate.as_of, certificate.start_ns, certificate.end_ns, answer.next_after
    )
    return cursor.to_text()


def _subject(request: QueryRequest) -> str:
    subject = (request.data_type, request.symbol, request.exchange, request.lake_only, request.on_degrade)
    return _digest(*subject, request.known_at_ns, request.amendments, request.gaps, request.deferred)


def _extent(request: QueryRequest) -> str:
    anchor = None if request.window_minutes is None else request.anchor
    return _digest(request.start_ns, request.end_ns, request.window_minutes, anchor, request.as_of)


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:_DIGEST_CHARACTERS]


def _checksum(text: bytes) -> bytes:
    """Return what finds a cursor that was damaged on its way: it would name another place, and pages would skip."""
    return zlib.crc32(text).to_bytes(_CHECKSUM_BYTES)


def _not_a_cursor() -> QueryError:
    return QueryError("expected cursor to be the next_cursor of an answer, found something else")
