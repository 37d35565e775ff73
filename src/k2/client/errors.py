"""What the API refuses, as exceptions that carry the status and the id of the request.

QueryError           └── RefusedQuestionError   the question is wrong; ask another
ConfigurationError   └── RefusedKeyError        the key is wrong
UnavailableError     └── ApiUnavailableError    K2 cannot answer now, or is not there; ask again later
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from k2.common.errors import ConfigurationError, QueryError, UnavailableError

if TYPE_CHECKING:
    import httpx2


class RefusedQuestionError(QueryError):
    """The API refuses the question."""

    def __init__(self, message: str, *, status: int, request_id: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class RefusedKeyError(ConfigurationError):
    """The API refuses the key."""

    def __init__(self, message: str, *, status: int, request_id: str | None) -> None:
        super().__init__(message)
        self.status = status
        self.request_id = request_id


class ApiUnavailableError(UnavailableError):
    """The API cannot answer now; `status` is None where there was no answer at all."""

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None, retry_after_seconds: float = 1
    ) -> None:
        super().__init__(message, dependency="api", retry_after_seconds=retry_after_seconds)
        self.status = status
        self.request_id = request_id


def error_of(response: httpx2.Response) -> RefusedQuestionError | RefusedKeyError | ApiUnavailableError:
    """Return the exception for an answer that is no success."""
    status = response.status_code
    document = _document(response)
    request_id = response.headers.get("K2-Request-Id")
    detail = document.get("detail") or f"the API answered {response.text[:200]!r}"
    text = f"{detail} (status {status}, request {request_id or 'unknown'})"
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return RefusedKeyError(text, status=status, request_id=request_id)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        pause = retry_after_seconds(response)
        return ApiUnavailableError(text, status=status, request_id=request_id, retry_after_seconds=pause)
    return RefusedQuestionError(text, status=status, request_id=request_id)


def unreachable(address: str, error: httpx2.HTTPError) -> ApiUnavailableError:
    """Return the exception for a connection that could not be had, or was cut."""
    return ApiUnavailableError(
        f"expected the API at {address}, found none ({error}): is the platform up? `k2 status` tells, `k2 up` starts it"
    )


def retry_after_seconds(response: httpx2.Response) -> float:
    """Return the pause that an answer asks for; one second where it names none in seconds."""
    text = response.headers.get("Retry-After", "")
    return float(text) if text.isdecimal() else 1.0


def _document(response: httpx2.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
