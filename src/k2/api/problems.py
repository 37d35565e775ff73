"""Which HTTP status each error is, and the problem document (RFC 9457) that says so."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from starlette.responses import JSONResponse

from k2.common.errors import (
    AccountingError,
    ConfigurationError,
    CorruptionError,
    ExpiredError,
    FencedError,
    K2Error,
    LogIdentityError,
    MemberFencedError,
    OverloadedError,
    QueryError,
    ReadLimitError,
    RecordError,
    UnavailableError,
)
from k2.storage.seam import SeamError

if TYPE_CHECKING:
    from starlette.requests import Request

STATUS_OF: Final[dict[type[K2Error], int]] = {
    ExpiredError: 410,
    QueryError: 422,
    ReadLimitError: 422,
    ConfigurationError: 400,
    MemberFencedError: 503,
    RecordError: 422,
    OverloadedError: 503,
    UnavailableError: 503,
    FencedError: 503,
    LogIdentityError: 409,
    CorruptionError: 500,
    AccountingError: 500,
    SeamError: 500,
    K2Error: 500,
}
"""Every error of K2 by its nearest entry; the order of a class's bases decides."""


TITLE_OF: Final[dict[type[K2Error], str]] = {
    ExpiredError: "No longer kept",
    QueryError: "The question cannot be answered as asked",
    ReadLimitError: "More would have to be read than was allowed",
    ConfigurationError: "The platform is set up wrongly",
    MemberFencedError: "Another worker has taken over",
    RecordError: "A record is bad",
    OverloadedError: "K2 is busy",
    UnavailableError: "A dependency is out of reach",
    FencedError: "Another writer has taken over",
    LogIdentityError: "The log is not the one that the table was built from",
    CorruptionError: "A data file is missing or damaged",
    AccountingError: "The rows do not add up",
    SeamError: "The seam is broken",
    K2Error: "K2 failed",
}
"""What each status means, in a few words that stay the same from one problem to the next."""


class HttpProblemError(Exception):
    """A request that is refused before it reaches the engine."""

    def __init__(
        self, status: int, title: str, detail: str, headers: dict[str, str] | None = None, *, reason: str | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail
        self.headers = headers or {}
        self.reason = reason
        """A word for programs, where they do something other than with other problems of the status."""


def status_of(error: K2Error) -> int:
    """Return the status of an error: that of its nearest base in the table."""
    return STATUS_OF[nearest(error)]


def nearest(error: K2Error) -> type[K2Error]:
    """Return the entry of an error in the tables of statuses and titles."""
    return next(base for base in type(error).__mro__ if base in STATUS_OF)


def problem(request: Request, refused: HttpProblemError) -> JSONResponse:
    """Return the problem document of a refusal; it names the request."""
    body = {
        "type": "about:blank",
        "title": refused.title,
        "status": refused.status,
        "detail": refused.detail,
        "request_id": getattr(request.state, "request_id", ""),
    }
    if refused.status == HTTPStatus.SERVICE_UNAVAILABLE:
        refused.headers.setdefault("Retry-After", "1")
    if refused.reason is not None:
        body["reason"] = refused.reason
        getattr(request.state, "facts", {})["reason"] = refused.reason
    return JSONResponse(body, refused.status, refused.headers, media_type="application/problem+json")


def problem_of(request: Request, error: K2Error) -> JSONResponse:
    """Return the problem document of an error of K2."""
    headers, reason = {}, None
    if isinstance(error, UnavailableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_seconds)))
        reason = error.reason or f"{error.dependency}_unavailable"
    title = TITLE_OF[nearest(error)]
    return problem(request, HttpProblemError(status_of(error), title, str(error), headers, reason=reason))
