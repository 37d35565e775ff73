"""What PostgreSQL, a REST catalog and an S3 store answer when something is wrong, and K2's error for each."""

from __future__ import annotations

import gc
import inspect
import socket
from collections.abc import Iterator
from http import HTTPStatus

import pg8000
import pytest
import sqlalchemy.exc

from k2.common.errors import ConfigurationError, K2Error, UnavailableError
from k2.storage.catalog import open_catalog
from k2.storage.failures import as_k2_error
from k2.storage.settings import CatalogSettings
from k2.testing.http_faults import HttpFault, HttpFaults

DOING = "committing batch b1 to trades"


def refused_by_postgres(state: str) -> Exception:
    orig = pg8000.ProgrammingError({"S": "ERROR", "C": state, "M": "what the server says"})
    return sqlalchemy.exc.ProgrammingError("UPDATE iceberg_tables", {"password": "sesame"}, orig)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("08006", UnavailableError),  # connection failure
        ("25006", UnavailableError),  # read only: a standby, until the failover is over
        ("40001", UnavailableError),  # serialization failure
        ("53300", UnavailableError),  # too many connections
        ("55P03", UnavailableError),  # lock not available
        ("57014", UnavailableError),  # statement timeout
        ("57P01", UnavailableError),  # the server is being shut down
        ("57P03", UnavailableError),  # ... or started
        ("58030", UnavailableError),  # the server's disk
        ("28P01", ConfigurationError),  # wrong password
        ("3D000", ConfigurationError),  # no such database
        ("42501", ConfigurationError),  # not allowed
        ("42P01", ConfigurationError),  # no such table
    ],
)
def test_what_postgresql_says_decides_between_later_and_never(state: str, expected: type[K2Error]) -> None:
    error = as_k2_error(refused_by_postgres(state), DOING)

    assert isinstance(error, expected)
    assert f"what the server says (SQLSTATE {state})" in str(error)
    assert "sesame" not in str(error)


@pytest.mark.parametrize(
    "kind",
    [found for _, found in inspect.getmembers(pg8000, inspect.isclass) if issubclass(found, pg8000.Error)],
    ids=lambda kind: kind.__name__,
)
def test_every_error_of_the_driver_is_mapped(kind: type[Exception]) -> None:
    wrapped = sqlalchemy.exc.DBAPIError.instance("SELECT 1", {}, kind("network error"), pg8000.Error)

    assert isinstance(as_k2_error(wrapped, DOING), (UnavailableError, ConfigurationError))


def test_a_broken_connection_to_postgresql_is_for_later() -> None:
    wrapped = sqlalchemy.exc.InterfaceError("COMMIT", {}, pg8000.InterfaceError("network error"))

    assert isinstance(as_k2_error(wrapped, DOING), UnavailableError)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ACCESS_DENIED", ConfigurationError),
        ("INVALID_ACCESS_KEY_ID", ConfigurationError),
        ("NO_SUCH_BUCKET", ConfigurationError),
        ("REQUEST_TIME_TOO_SKEWED", ConfigurationError),
        ("SIGNATURE_DOES_NOT_MATCH", ConfigurationError),
        ("INTERNAL_FAILURE", UnavailableError),
        ("NETWORK_CONNECTION", UnavailableError),
        ("SLOW_DOWN", UnavailableError),
        ("UNKNOWN (HTTP status 503)", UnavailableError),
    ],
)
def test_what_the_object_store_says_decides_between_later_and_never(code: str, expected: type[K2Error]) -> None:
    error = OSError(f"When completing upload for key 'x' in bucket 'b': AWS Error {code} during PutObject operation")

    assert isinstance(as_k2_error(error, DOING), expected)


@pytest.mark.parametrize("status", [status for status in HTTPStatus if status >= HTTPStatus.BAD_REQUEST])
def test_every_status_of_a_rest_catalog_is_mapped(faults: HttpFaults, status: HTTPStatus) -> None:
    faults.set(HttpFault.ANSWER, status=status)
    later = status >= HTTPStatus.INTERNAL_SERVER_ERROR and status is not HTTPStatus.NOT_IMPLEMENTED
    later |= status is HTTPStatus.TOO_MANY_REQUESTS

    with pytest.raises(UnavailableError if later else ConfigurationError, match="K2_CATALOG__URI"):
        open_catalog(rest_at(faults.port))


@pytest.mark.parametrize("fault", [HttpFault.REFUSE, HttpFault.SILENCE], ids=lambda fault: fault.name)
def test_a_rest_catalog_that_breaks_off_or_keeps_silent_is_for_later(faults: HttpFaults, fault: HttpFault) -> None:
    faults.set(fault)

    with pytest.raises(UnavailableError):
        open_catalog(rest_at(faults.port, request_timeout_seconds=0.2))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pg8000 leaves the socket open
def test_a_postgresql_that_keeps_silent_is_for_later() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"postgresql://k2:sesame@127.0.0.1:{silent.getsockname()[1]}/k2"

        with pytest.raises(UnavailableError) as caught:
            open_catalog(CatalogSettings(uri=uri, request_timeout_seconds=0.2))

    assert "sesame" not in str(caught.value)
    del caught
    gc.collect()


def rest_at(port: int, **limits: float) -> CatalogSettings:
    return CatalogSettings(type="rest", uri=f"http://127.0.0.1:{port}", **limits)


@pytest.fixture(scope="module")
def faults() -> Iterator[HttpFaults]:
    with HttpFaults(upstream_port=9) as faults:
        yield faults
