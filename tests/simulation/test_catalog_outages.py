"""A catalog or store that is down, slow, locked or answers 500: what is not committed waits, and then lands once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pg8000.dbapi
import pytest

from k2.common.errors import ConfigurationError, UnavailableError
from k2.testing.http_faults import HttpFault, HttpFaults
from k2.testing.local_lake import LocalLake
from k2.testing.services.places import Services
from k2.testing.services.postgres import PASSWORD, USER

IMPATIENT = {"request_timeout_seconds": 1.0, "connect_timeout_seconds": 1.0, "busy_timeout_seconds": 0.2}
FAULTS = {
    "refuses": {"fault": HttpFault.REFUSE},
    "answers 500": {"fault": HttpFault.ANSWER, "status": 500},
    "keeps silent": {"fault": HttpFault.SILENCE},
}


def through_an_outage(lake: LocalLake, impatient: LocalLake, begin: Callable[[], None], end: Callable[[], None]):
    """Commit before, try during, and commit the same batch after an outage; nothing may be lost or doubled."""
    lake.commit("before", 0, 5)
    waiting = lake.batch("waiting", 5, 10)
    begin()

    with pytest.raises(UnavailableError):
        impatient.writer().commit(waiting)
    end()
    landed = lake.writer().commit(waiting)
    lake.commit("after", 10, 12)

    assert lake.coordinates() == [(0, 0, offset) for offset in range(12)]
    return landed


@contextmanager
def two_lakes(directory: Path, settings: dict[str, str]) -> Iterator[tuple[LocalLake, LocalLake]]:
    """Give a lake with the usual limits and one that gives up at once, of the same tables."""
    lake = LocalLake(directory, **settings).create()
    impatient = LocalLake(directory, **settings, **IMPATIENT, commit_attempts_max=1)
    yield lake, impatient
    impatient.close()
    lake.close()


@pytest.mark.platform
@pytest.mark.parametrize("fault", FAULTS)
def test_a_store_that_fails_keeps_the_backlog_and_takes_it_later(
    services: Services, tmp_path: Path, fault: str
) -> None:
    uri = {"uri": f"sqlite:///{tmp_path}/catalog.db"}
    with HttpFaults(services.s3.port) as faults:
        settings = {**uri, **services.warehouse_in_s3(port=faults.port)}
        with two_lakes(tmp_path, settings) as (lake, impatient):
            landed = through_an_outage(
                lake, impatient, lambda: faults.set(**FAULTS[fault]), lambda: faults.set(HttpFault.NONE)
            )

    assert faults.faulty_requests > 0
    assert not landed.found


@pytest.mark.platform
@pytest.mark.parametrize("fault", FAULTS)
def test_a_rest_catalog_that_fails_keeps_the_backlog_and_takes_it_later(
    services: Services, tmp_path: Path, fault: str
) -> None:
    with HttpFaults(services.rest.port) as faults:
        with two_lakes(tmp_path, services.rest.settings(port=faults.port)) as (lake, impatient):
            landed = through_an_outage(
                lake, impatient, lambda: faults.set(**FAULTS[fault]), lambda: faults.set(HttpFault.NONE)
            )
        services.empty_rest()

    assert not landed.found


@pytest.mark.platform
def test_a_rest_catalog_whose_replies_are_lost_has_the_batch_once(services: Services, tmp_path: Path) -> None:
    with HttpFaults(services.rest.port) as faults:
        with two_lakes(tmp_path, services.rest.settings(port=faults.port)) as (lake, impatient):
            landed = through_an_outage(
                lake,
                impatient,
                lambda: faults.set(HttpFault.LOSE_REPLY, writes_only=True),
                lambda: faults.set(HttpFault.NONE),
            )
        services.empty_rest()

    assert landed.found


@pytest.mark.platform
@pytest.mark.parametrize(("status", "later"), [(400, False), (403, False), (404, False), (429, True), (502, True)])
def test_what_a_rest_catalog_says_to_a_commit_decides_between_later_and_never(
    services: Services, tmp_path: Path, status: int, later: bool
) -> None:
    with HttpFaults(services.rest.port) as faults:
        with two_lakes(tmp_path, services.rest.settings(port=faults.port)) as (lake, impatient):
            batch = lake.batch("b1", 0, 5)
            faults.set(HttpFault.ANSWER, status=status, writes_only=True)

            with pytest.raises(UnavailableError if later else ConfigurationError):
                impatient.writer().commit(batch)
        services.empty_rest()


@pytest.mark.platform
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pg8000 leaves refused sockets open
@pytest.mark.parametrize("fault", ["killed", "stopped", "locked"])
def test_a_postgresql_that_fails_keeps_the_backlog_and_takes_it_later(
    services: Services, tmp_path: Path, fault: str
) -> None:
    postgres = services.postgres
    uri = postgres.new_database(f"outage-{fault}")
    other = pg8000.dbapi.connect(USER, "127.0.0.1", f"outage-{fault}", postgres.port, PASSWORD)
    begin, end = {
        "killed": (postgres.kill, postgres.start),
        "stopped": (postgres.pause, postgres.resume),
        "locked": (lambda: other.cursor().execute("LOCK TABLE iceberg_tables"), other.rollback),
    }[fault]

    with closing(other) if fault != "killed" else suppressed(other), two_lakes(tmp_path, {"uri": uri}) as lakes:
        through_an_outage(*lakes, begin, end)


@contextmanager
def suppressed(connection: pg8000.dbapi.Connection) -> Iterator[None]:
    """Close a connection whose server has gone."""
    yield
    with suppress(pg8000.Error):
        connection.close()


def test_a_locked_sqlite_catalog_keeps_the_backlog_and_takes_it_later(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)

    with closing(other), two_lakes(tmp_path, {}) as lakes:
        through_an_outage(*lakes, lambda: other.execute("BEGIN IMMEDIATE"), lambda: other.execute("ROLLBACK"))
