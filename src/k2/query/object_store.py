"""Lets DuckDB read one place of an S3 store: its httpfs extension from a wheel, one secret, a limit on every wait."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import duckdb

from k2.common.errors import ConfigurationError
from k2.query.sql_text import quoted_text

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEME: Final = "s3://"
_PACKAGE: Final = "duckdb_extension_httpfs"


@dataclass(frozen=True, slots=True)
class S3Access:
    """How an S3 store is reached; an empty endpoint is that of AWS."""

    endpoint: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    timeout_seconds: float


def open_object_store(database: duckdb.DuckDBPyConnection, access: S3Access, directories: Sequence[str]) -> None:
    """Load the extension and give the secret for `directories`; to be done before the configuration is locked.

    Raises:
        ConfigurationError: the extension's wheel is not installed, or the access key is not set.
    """
    if not (access.access_key_id and access.secret_access_key):
        raise ConfigurationError(
            f"expected the key of the S3 store of {directories[0]}, found none: set K2_CATALOG__S3_ACCESS_KEY_ID and "
            "K2_CATALOG__S3_SECRET_ACCESS_KEY"
        )
    extension = _extension(directories[0])
    try:
        for statement in (
            "SET allow_persistent_secrets = false",
            f"LOAD {quoted_text(str(extension))}",
            f"SET http_timeout = {max(1, round(access.timeout_seconds))}",
            _secret(access, directories),
        ):
            database.execute(statement)
    except duckdb.Error as error:
        # Without its cause, whose text may show the statement, and with it the secret.
        raise ConfigurationError(
            f"DuckDB cannot be set up to read {directories[0]} ({type(error).__name__}): expected the wheel "
            f"duckdb-extension-httpfs=={duckdb.__version__} and the settings K2_CATALOG__S3_* as S3 knows them"
        ) from None


def _extension(place: str) -> Path:
    spec = importlib.util.find_spec(_PACKAGE)
    for directory in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(directory) / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
        if path.is_file():
            return path
    raise ConfigurationError(
        f"expected the package duckdb-extension-httpfs=={duckdb.__version__}, by which questions read {place}, found "
        "none: install K2 with its extra `s3`"
    )


def _secret(access: S3Access, directories: Sequence[str]) -> str:
    options = {
        "KEY_ID": quoted_text(access.access_key_id),
        "SECRET": quoted_text(access.secret_access_key),
        "REGION": quoted_text(access.region),
        "SCOPE": f"[{', '.join(map(quoted_text, directories))}]",
    }
    if access.session_token:
        options["SESSION_TOKEN"] = quoted_text(access.session_token)
    if access.endpoint:
        url = urlsplit(access.endpoint)
        options |= {
            "ENDPOINT": quoted_text(url.netloc + url.path.rstrip("/")),
            "URL_STYLE": quoted_text("path"),
            "USE_SSL": str(url.scheme == "https").lower(),
        }
    return f"CREATE TEMPORARY SECRET warehouse (TYPE s3, {', '.join(f'{k} {v}' for k, v in options.items())})"
