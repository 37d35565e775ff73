"""Translates the errors of PyIceberg, SQLAlchemy, Arrow and the system into K2's, by what the caller does next."""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pyarrow as pa
import pydantic
import requests
import sqlalchemy.exc
from pyiceberg import exceptions as iceberg

from k2.common.errors import ConfigurationError, CorruptionError, K2Error, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNAVAILABLE: Final[tuple[type[Exception], ...]] = (
    sqlalchemy.exc.OperationalError,
    sqlalchemy.exc.InterfaceError,
    sqlalchemy.exc.InternalError,
    sqlalchemy.exc.TimeoutError,
    sqlalchemy.exc.DisconnectionError,
    sqlalchemy.exc.PendingRollbackError,
    sqlalchemy.exc.ResourceClosedError,
    iceberg.CommitFailedException,
    iceberg.CommitStateUnknownException,
    iceberg.ServiceUnavailableError,
    iceberg.ServerError,
    iceberg.TooManyRequestsError,
    iceberg.AuthorizationExpiredError,
    iceberg.WaitingForLockException,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
)
"""Down or busy: the same call may succeed later."""

CONFIGURATION: Final[tuple[type[Exception], ...]] = (
    sqlalchemy.exc.ArgumentError,
    sqlalchemy.exc.NoSuchModuleError,
    sqlalchemy.exc.ProgrammingError,
    sqlalchemy.exc.DBAPIError,
    iceberg.NoSuchTableError,
    iceberg.NoSuchNamespaceError,
    iceberg.NoSuchPropertyException,
    iceberg.NotInstalledError,
    iceberg.UnauthorizedError,
    iceberg.ForbiddenError,
    iceberg.OAuthError,
    iceberg.BadRequestError,
    iceberg.SignError,
    iceberg.ResolveError,
    iceberg.RESTError,
    requests.exceptions.RequestException,
    ImportError,
    NotImplementedError,  # what PyIceberg makes of HTTP 501
)
"""The catalog answers, and refuses: another address, key or name is needed."""

CORRUPT: Final[tuple[type[Exception], ...]] = (
    pydantic.ValidationError,
    iceberg.ValidationError,
    iceberg.ValidationException,
    pa.ArrowInvalid,
    FileNotFoundError,
    UnicodeDecodeError,
    EOFError,
)
"""A stored file is not what was written."""

_LATER: Final = ("08", "25006", "40", "53", "55", "57", "58", "XX")
"""SQLSTATEs under which the same statement may succeed later: connection, a standby, conflict, resources, operator."""
_REFUSED_BY_STORE: Final = re.compile(
    "AWS Error (ACCESS_DENIED|INCOMPLETE_SIGNATURE|INVALID_ACCESS_KEY_ID|INVALID_CLIENT_TOKEN_ID|INVALID_SIGNATURE"
    "|MISSING_AUTHENTICATION_TOKEN|NO_SUCH_BUCKET|OPT_IN_REQUIRED|REQUEST_EXPIRED|REQUEST_TIME_TOO_SKEWED"
    "|SIGNATURE_DOES_NOT_MATCH|UNRECOGNIZED_CLIENT)"
)
"""Arrow has one class, OSError, for all that an S3 store answers; which it was stands in the text."""

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_ADVICE: Final = {
    errno.ENOSPC: "free space on that file system",
    errno.EDQUOT: "raise the quota or free space",
    errno.EROFS: "mount it writable, or set K2_CATALOG__WAREHOUSE to another place",
    errno.EACCES: "give this user the right to write there, or set K2_CATALOG__WAREHOUSE to another place",
    errno.EPERM: "give this user the right to write there, or set K2_CATALOG__WAREHOUSE to another place",
    errno.EIO: "the device reports an error: check it before anything else",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


@contextmanager
def translated(doing: str, *, path: str | None = None) -> Iterator[None]:
    """Raise K2's error in place of a library's; `doing` says what was tried, `path` which file or table."""
    try:
        yield
    except K2Error:
        raise
    except Exception as error:
        known = as_k2_error(error, doing, path=path)
        if known is None:
            raise
        raise known from error


def as_k2_error(error: Exception, doing: str, *, path: str | None = None) -> K2Error | None:
    """Return K2's error for a library's, or None for one that is no failure of storage (a mistake in the code)."""
    if isinstance(error, K2Error):
        return error
    if _is_unavailable(error):
        return UnavailableError(
            f"{doing}: the catalog or store does not answer: {_first_line(error)}", dependency="catalog"
        )
    if isinstance(error, CONFIGURATION):
        return ConfigurationError(
            f"{doing}: refused: {_first_line(error)}; check the settings K2_CATALOG__*, then run `k2 up`"
        )
    if isinstance(error, CORRUPT):
        where = path or getattr(error, "filename", None) or "unknown file"
        return CorruptionError(f"{doing}: {where} is missing or damaged: {_first_line(error)}", path=str(where))
    if isinstance(error, OSError):
        return _refused_by_store(error, doing) or _unavailable_file(error, doing, path)
    return None


def sqlstate_of(error: sqlalchemy.exc.DBAPIError) -> str | None:
    """Return what PostgreSQL calls the error, five characters; None where the driver alone has failed."""
    words = getattr(error.orig, "args", ())
    if words and isinstance(words[0], dict):  # pg8000
        return words[0].get("C")
    return getattr(error.orig, "sqlstate", None)  # psycopg


def _is_unavailable(error: Exception) -> bool:
    state = sqlstate_of(error) if isinstance(error, sqlalchemy.exc.DBAPIError) else None
    return isinstance(error, UNAVAILABLE) if state is None else state.startswith(_LATER)


def _refused_by_store(error: OSError, doing: str) -> ConfigurationError | None:
    if _REFUSED_BY_STORE.search(str(error)) is None:
        return None
    return ConfigurationError(
        f"{doing}: the object store refuses: {_first_line(error)}; check K2_CATALOG__WAREHOUSE and the settings "
        "K2_CATALOG__S3_*, and this machine's clock"
    )


def _unavailable_file(error: OSError, doing: str, path: str | None) -> UnavailableError:
    where = error.filename or path or "a file"
    number = error.errno or 0
    advice = _ADVICE.get(number, "retry; if it stays, check the file system or object store")
    reason = error.strerror or _first_line(error)
    return UnavailableError(f"{doing}: {where}: {reason}; {advice}", dependency="warehouse", retry_after_seconds=5.0)


def _first_line(error: Exception) -> str:
    text = str(error)
    if isinstance(error, sqlalchemy.exc.DBAPIError) and error.orig is not None:
        words = error.orig.args
        message = words[0].get("M") if words and isinstance(words[0], dict) else None
        text = f"{message} (SQLSTATE {sqlstate_of(error)})" if message else text
    return (text.splitlines() or [""])[0][:300] or type(error).__name__
