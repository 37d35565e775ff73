"""Opens the Iceberg catalog that the settings name: SQLite or PostgreSQL through SQL, or REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import bindparam, column, select
from sqlalchemy import table as sql_table

from k2.storage.failures import translated
from k2.storage.limited_catalogs import LimitedRestCatalog, LimitedSqlCatalog

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from k2.storage.settings import CatalogSettings

_POSTGRESQL: Final = "postgresql+pg8000"
_TABLES: Final = sql_table(
    "iceberg_tables",
    column("catalog_name"),
    column("table_namespace"),
    column("table_name"),
    column("metadata_location"),
)
"""Where SQL catalogs of every implementation keep the pointer to a table's metadata."""
_POINTER: Final = select(_TABLES.c.metadata_location).where(
    _TABLES.c.catalog_name == bindparam("catalog"),
    _TABLES.c.table_namespace == bindparam("namespace"),
    _TABLES.c.table_name == bindparam("table"),
)
"""Built once: each question asks for it more than once, and to build it takes as long as to run it."""


def open_catalog(settings: CatalogSettings) -> Catalog:
    """Open the catalog; UnavailableError if it does not answer, ConfigurationError if it refuses."""
    with translated(f"opening the {settings.type} catalog {settings.name!r} (K2_CATALOG__URI)"):
        properties = {**store_properties(settings), "type": settings.type, "uri": _with_driver(settings.uri)}
        if settings.type == "rest":
            return LimitedRestCatalog(settings, properties)
        return LimitedSqlCatalog(settings, properties)


def store_properties(settings: CatalogSettings) -> dict[str, str]:
    """Return what PyIceberg needs to reach the warehouse and to prove who it is; what is unset is left out."""
    known = {
        "warehouse": settings.warehouse,
        "py-io-impl": "k2.storage.file_io.SyncedFileIO",
        "token": settings.token.get_secret_value(),
        "credential": settings.credential.get_secret_value(),
        "s3.endpoint": settings.s3_endpoint,
        "s3.region": settings.s3_region,
        "s3.access-key-id": settings.s3_access_key_id,
        "s3.secret-access-key": settings.s3_secret_access_key.get_secret_value(),
        "s3.session-token": settings.s3_session_token.get_secret_value(),
        "s3.connect-timeout": str(settings.connect_timeout_seconds),
        "s3.request-timeout": str(settings.request_timeout_seconds),
    }
    return {name: value for name, value in known.items() if value} | settings.properties


def metadata_location(catalog: Catalog, namespace: str, table_name: str) -> str | None:
    """Return where a table's metadata is now, without reading it; None if this kind of catalog cannot tell."""
    if not isinstance(catalog, SqlCatalog):
        return None
    with catalog.engine.connect() as connection:
        values = {"catalog": catalog.name, "namespace": namespace, "table": table_name}
        location: str | None = connection.execute(_POINTER, values).scalar_one_or_none()
    return location


def close_catalog(catalog: Catalog) -> None:
    """Close the connections of the catalog."""
    if isinstance(catalog, SqlCatalog):
        catalog.engine.dispose()
    catalog.close()


def create_namespace(catalog: Catalog, namespace: str) -> None:
    """Create the namespace; that another process was faster is no error, in whatever words a catalog says it."""
    try:
        catalog.create_namespace(namespace)
    except Exception:  # SQL catalogs report the violated key of their database, of which each has its own error
        if not catalog.namespace_exists(namespace):
            raise


def _with_driver(uri: str) -> str:
    """Name K2's driver where a PostgreSQL URI names none; SQLAlchemy's own choice is one that K2 does not bring."""
    scheme, separator, rest = uri.partition("://")
    return f"{_POSTGRESQL}{separator}{rest}" if scheme in {"postgresql", "postgres"} else uri
