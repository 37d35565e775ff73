"""Reads the parameters of a question: times, windows; anything unknown is named and refused."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from k2.api.problems import HttpProblemError
from k2.common.errors import QueryError
from k2.common.units import NS_PER_SECOND
from k2.query.as_of import NOW
from k2.query.certificate import AsOf

if TYPE_CHECKING:
    from starlette.requests import Request

_INTEGER: Final = re.compile(r"-?\d{1,19}")
_AMBIGUOUS: Final = re.compile(r"-?\d{8,17}")
_BEGINS_LIKE_A_TIME: Final = re.compile(r"-?\d")
_FRACTION: Final = re.compile(r"[.,](\d+)")
_DIGITS_MAX: Final = 9
_NS_MAX: Final = 2**63 - 1


def refuse_unknown(request: Request, known: frozenset[str], *, lists: frozenset[str] = frozenset()) -> None:
    """Refuse a parameter that the route does not have, and one that is given twice, but for `lists`."""
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if name not in known:
            raise HttpProblemError(
                400, "Unknown parameter", f"expected one of {', '.join(sorted(known))}; found {name[:64]!r}"
            )
        if names.count(name) > 1 and name not in lists:
            raise HttpProblemError(
                400, "Repeated parameter", f"expected {name} once, found it {names.count(name)} times"
            )


def nanoseconds(name: str, text: str | None) -> int | None:
    """Return UTC nanoseconds from an ISO 8601 time (without a zone: UTC) or an integer of nanoseconds.

    A number of 8 to 17 digits is refused: a date without dashes, seconds, milliseconds or microseconds would be taken
    for a moment of the early seventies. Fewer digits, 0 among them, mean the beginning.

    Raises:
        QueryError: it is neither; the text calls it `name`.
    """
    if text is None:
        return None
    if _AMBIGUOUS.fullmatch(text):
        raise QueryError(
            f"expected {name} as nanoseconds since 1970, which have 18 or 19 digits, or as ISO 8601 with dashes "
            f"(2020-01-01), found {text!r}: is it a date, or in seconds, milliseconds or microseconds?"
        )
    try:
        value = int(text) if _INTEGER.fullmatch(text) else _from_iso(text)
    except (ValueError, OverflowError) as error:
        raise QueryError(
            f"expected {name} as ISO 8601 (2014-03-10T10:00:00+11:00; no zone means UTC; at most 9 digits of a second) "
            f"or nanoseconds since 1970, found {text[:64]!r}"
        ) from error
    if abs(value) > _NS_MAX:
        raise QueryError(f"expected {name} between the years 1678 and 2262, found {text[:64]!r}")
    return value


def knowledge(known_at: str | None, as_of: str | None) -> tuple[int | None, str | None]:
    """Return what a question goes back to: a time in nanoseconds, and what `as_of` names (a token, a snapshot, a tag).

    Either parameter may be a time or a token; `as_of` may be "now" as well, which is the same as nothing.

    Raises:
        QueryError: `known_at` is neither a time nor a token, or there are two different times or tokens.
    """
    if as_of is not None and _BEGINS_LIKE_A_TIME.match(as_of):
        at_ns, token = knowledge(known_at, None)
        as_of_ns = nanoseconds("as_of", as_of)
        if at_ns not in (None, as_of_ns):
            raise QueryError("expected one time, found another in known_at than in as_of: give one of them")
        return as_of_ns, token
    as_of = None if as_of == NOW else as_of
    if known_at is None:
        return None, as_of
    try:
        AsOf.from_token(known_at)
    except QueryError as error:
        try:
            return nanoseconds("known_at", known_at), as_of
        except QueryError as no_time:
            raise QueryError(f"{no_time}; nor is it the token of a certificate (as_of)") from error
    if as_of not in (None, known_at):
        raise QueryError("expected one token, found another in known_at than in as_of: give one of them")
    return None, known_at


def _from_iso(text: str) -> int:
    fraction = _FRACTION.search(text)
    digits = fraction[1] if fraction else ""
    if len(digits) > _DIGITS_MAX:
        raise ValueError("more digits than nanoseconds have")
    # A plus sign that was not escaped in a URL arrives as a space.
    whole = _FRACTION.sub("", text.replace(" ", "+") if "T" in text else text)
    moment = datetime.fromisoformat(whole)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * NS_PER_SECOND + int(digits.ljust(_DIGITS_MAX, "0"))
