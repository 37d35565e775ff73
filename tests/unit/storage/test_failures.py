"""Every error of the libraries has one of K2's; one left unmapped fails here."""

from __future__ import annotations

import errno
import inspect
import os
import sqlite3
from typing import TYPE_CHECKING

import pyarrow as pa
import pydantic
import pytest
import requests.exceptions
import sqlalchemy.exc
from pyiceberg import exceptions as iceberg

from k2.common.errors import ConfigurationError, CorruptionError, FencedError, K2Error, UnavailableError
from k2.storage.failures import as_k2_error, translated
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MarketTables
from k2.testing.manual_clock import ManualClock

if TYPE_CHECKING:
    from pathlib import Path

DOING = "loading the table market.trades"
MISTAKES = {
    # What only a mistake in K2's own code can raise: it must surface as it is.
    "AmbiguousColumnError", "AwaitRequired", "Base20DeprecationWarning", "CircularDependencyError", "CompileError",
    "ConditionalCheckFailedException", "DynamoDbError", "EmulatedDBAPIException", "GenericDynamoDbError",
    "IdentifierError", "IllegalStateChangeError", "InvalidRequestError", "MissingGreenlet",
    "MonkeyPatchBinaryExpression", "MultipleResultsFound", "NamespaceAlreadyExistsError", "NamespaceNotEmptyError",
    "NoDBAPILoaded", "NoInspectionAvailable", "NoReferenceError", "NoReferencedColumnError", "NoReferencedTableError",
    "NoResultFound", "NoSuchColumnError", "NoSuchIdentifierError", "NoSuchPlanTaskError",
    "NoSuchTableError:sqlalchemy", "NoSuchViewError", "SQLAlchemyError", "StatementError", "TableAlreadyExistsError",
    "UnboundExecutionError", "UnmappedColumnError", "UnreflectableTableError", "UnsupportedCompilationError",
    "ViewAlreadyExistsError",
}  # fmt: skip


def classes(module: object) -> list[type[Exception]]:
    return [
        found
        for _, found in inspect.getmembers(module, inspect.isclass)
        if issubclass(found, Exception) and not issubclass(found, Warning) and found.__module__ == module.__name__
    ]


def made(kind: type[Exception]) -> Exception:
    if issubclass(kind, sqlalchemy.exc.DBAPIError):
        return kind("SELECT 1", {}, sqlite3.OperationalError("database is locked"))
    try:
        return kind("something happened")
    except TypeError:  # it wants arguments of its own
        error = kind.__new__(kind)
        error.args = ("something happened",)
        return error


@pytest.mark.parametrize("kind", classes(iceberg), ids=lambda kind: kind.__name__)
def test_every_error_of_pyiceberg_is_mapped_or_is_a_mistake_of_ours(kind: type[Exception]) -> None:
    assert (as_k2_error(made(kind), DOING) is None) == (kind.__name__ in MISTAKES)


@pytest.mark.parametrize("kind", classes(sqlalchemy.exc), ids=lambda kind: kind.__name__)
def test_every_error_of_sqlalchemy_is_mapped_or_is_a_mistake_of_ours(kind: type[Exception]) -> None:
    name = "NoSuchTableError:sqlalchemy" if kind is sqlalchemy.exc.NoSuchTableError else kind.__name__

    assert (as_k2_error(made(kind), DOING) is None) == (name in MISTAKES)


@pytest.mark.parametrize("kind", classes(requests.exceptions), ids=lambda kind: kind.__name__)
def test_every_error_of_requests_is_mapped(kind: type[Exception]) -> None:
    assert isinstance(as_k2_error(made(kind), DOING), (UnavailableError, ConfigurationError))


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "free space"),
        (errno.EROFS, "mount it writable"),
        (errno.EACCES, "right to write"),
        (errno.EIO, "check it"),
        (errno.EMFILE, "ulimit"),
        (errno.ETIMEDOUT, "retry"),
    ],
)
def test_errors_of_the_system_name_the_path_and_the_remedy(number: int, advice: str) -> None:
    error = as_k2_error(OSError(number, os.strerror(number), "/lake/x.parquet"), "writing a data file")

    assert isinstance(error, UnavailableError)
    assert "/lake/x.parquet" in str(error)
    assert os.strerror(number) in str(error)
    assert advice in str(error)


@pytest.mark.parametrize(
    "error", [pa.ArrowInvalid("bad magic"), FileNotFoundError(2, "gone", "/lake/x"), EOFError("short")], ids=repr
)
def test_missing_or_damaged_files_are_named(error: Exception) -> None:
    found = as_k2_error(error, "reading a manifest", path="/lake/x")

    assert isinstance(found, CorruptionError)
    assert found.path == "/lake/x"


def test_metadata_that_does_not_parse_is_damage() -> None:
    class Model(pydantic.BaseModel):
        number: int

    with (
        pytest.raises(CorruptionError, match=r"market\.trades is missing or damaged"),
        translated(DOING, path="market.trades"),
    ):
        Model.model_validate_json("{}")


def test_errors_of_k2_pass_through() -> None:
    error = FencedError("somebody else")

    with pytest.raises(FencedError) as caught, translated(DOING):
        raise error

    assert caught.value is error


def test_mistakes_in_the_code_are_not_disguised() -> None:
    with pytest.raises(ZeroDivisionError), translated(DOING):
        _ = 1 // 0


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("sqlite:////nowhere/at/all/catalog.db", UnavailableError),
        ("nosuchdatabase://somewhere/x", ConfigurationError),
        ("not a uri", ConfigurationError),
        ("oracle://somewhere/x", ConfigurationError),
    ],
)
def test_a_wrong_catalog_is_one_clear_error(tmp_path: Path, uri: str, expected: type[K2Error]) -> None:
    settings = CatalogSettings(uri=uri, warehouse=f"file://{tmp_path}")

    with pytest.raises(expected, match="catalog"):
        MarketTables(settings, ManualClock()).ensure()


def test_a_password_in_the_uri_is_not_told(tmp_path: Path) -> None:
    settings = CatalogSettings(uri="nosuchdatabase://user:sesame@somewhere/x", warehouse=f"file://{tmp_path}")

    with pytest.raises(ConfigurationError) as caught:
        MarketTables(settings, ManualClock()).ensure()

    assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(settings)


def test_a_catalog_that_is_down_at_first_is_opened_and_filled_once_it_is_there(tmp_path: Path) -> None:
    home = tmp_path / "mounted later"
    tables = MarketTables(
        CatalogSettings(uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse"), ManualClock()
    )
    tables.ensure_in_time()
    with pytest.raises(UnavailableError, match="catalog"):
        tables.head("trades")

    home.mkdir()

    assert tables.head("trades").snapshot_id is None
    tables.close()


def test_a_catalog_that_refuses_is_told_at_once_even_if_it_may_be_down(tmp_path: Path) -> None:
    settings = CatalogSettings(uri="nosuchdatabase://somewhere/x", warehouse=f"file://{tmp_path}")

    with pytest.raises(ConfigurationError):
        MarketTables(settings, ManualClock()).ensure_in_time()
