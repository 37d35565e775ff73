"""Reads the parameters of a question: times, windows, cursors; anything unknown is named and refused."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import astuple, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from k2.api.problems import HttpProblemError
from k2.query.request import QueryRequest, RowKey

if TYPE_CHECKING:
    from starlette.requests import Request

    from k2.query.request import Answer

_INTEGER: Final = re.compile(r"^-?\d{1,19}$")
_FRACTION: Final = re.compile(r"\.(\d{1,9})")
SECOND_NS: Final = 1_000_000_000


def refuse_unknown(request: Request, known: frozenset[str]) -> None:
    """Refuse a parameter that the route does not have, and one that is given twice."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            raise HttpProblemError(
                400, "Unknown parameter", f"expected one of {', '.join(sorted(known))}; found {name[:64]!r}"
            )
        if names.count(name) > 1:
            raise HttpProblemError(
                400, "Repeated parameter", f"expected {name} once, found it {names.count(name)} times"
            )


def nanoseconds(name: str, text: str | None) -> int | None:
    """Return UTC nanoseconds from an ISO 8601 time (without a zone: UTC) or an integer of nanoseconds."""
    if text is None:
        return None
    if _INTEGER.match(text):
        return int(text)
    fraction = _FRACTION.search(text)
    try:
        # A plus sign that was not escaped arrives as a space.
        moment = datetime.fromisoformat(_FRACTION.sub("", text.replace(" ", "+") if "T" in text else text))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) * SECOND_NS + (int(fraction[1].ljust(9, "0")) if fraction else 0)
    except (ValueError, OverflowError) as error:
        raise HttpProblemError(
            422,
            "Bad time",
            f"expected {name} as ISO 8601 (2014-03-10T10:00:00+11:00; no zone means UTC) or nanoseconds, "
            f"found {text[:64]!r}",
        ) from error


def cursor_of(request: QueryRequest, answer: Answer) -> str | None:
    """Return the cursor of the page after `answer`; it fixes the range and the log prefix, so pages never overlap."""
    if answer.next_after is None:
        return None
    certificate = answer.certificate
    body = [certificate.as_of, certificate.start_ns, certificate.end_ns, *astuple(answer.next_after), request.lake_only]
    return base64.urlsafe_b64encode(json.dumps(body, separators=(",", ":")).encode()).decode().rstrip("=")


def continued(request: QueryRequest, cursor: str | None) -> QueryRequest:
    """Return the request for the page that `cursor` names."""
    if cursor is None:
        return request
    try:
        body = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        as_of, start_ns, end_ns, event, log_id, partition, offset, lake_only = body
        after = RowKey(int(event), int(log_id), int(partition), int(offset))
    except (ValueError, TypeError) as error:
        raise HttpProblemError(
            422, "Bad cursor", "expected cursor to be the next_cursor of an answer, found something else"
        ) from error
    return replace(
        request,
        window_minutes=None,
        start_ns=start_ns,
        end_ns=end_ns,
        as_of=as_of,
        after=after,
        lake_only=bool(lake_only),
    )
