"""Opens the Iceberg catalog that the settings name: SQLite or PostgreSQL through SQL, or REST."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import column, event, select
from sqlalchemy import table as sql_table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from k2.storage.failures import translated

if TYPE_CHECKING:
    from k2.storage.settings import CatalogSettings

_OWN_TABLES: Final = 2
"""Tables that an SQL catalog creates for itself, one after the other."""
_TABLES: Final = sql_table(
    "iceberg_tables",
    column("catalog_name"),
    column("table_namespace"),
    column("table_name"),
    column("metadata_location"),
)
"""Where SQL catalogs of every implementation keep the pointer to a table's metadata."""


def open_catalog(settings: CatalogSettings) -> Catalog:
    """Open the catalog; UnavailableError if it does not answer, ConfigurationError if it refuses."""
    with translated(f"opening the {settings.type} catalog {settings.name!r} (K2_CATALOG__URI)"):
        properties = {
            **settings.properties,
            "type": settings.type,
            "uri": _with_timeout(settings),
            "warehouse": settings.warehouse,
            "py-io-impl": settings.properties.get("py-io-impl", "k2.storage.file_io.SyncedFileIO"),
        }
        catalog = _load(settings.name, properties)
        if isinstance(catalog, SqlCatalog) and catalog.engine.dialect.name == "sqlite":
            _use_write_ahead_log(catalog)
        return catalog


def metadata_location(catalog: Catalog, namespace: str, table_name: str) -> str | None:
    """Return where a table's metadata is now, without reading it; None if this kind of catalog cannot tell."""
    if not isinstance(catalog, SqlCatalog):
        return None
    with catalog.engine.connect() as connection:
        location: str | None = connection.execute(
            select(_TABLES.c.metadata_location).where(
                _TABLES.c.catalog_name == catalog.name,
                _TABLES.c.table_namespace == namespace,
                _TABLES.c.table_name == table_name,
            )
        ).scalar_one_or_none()
    return location


def create_namespace(catalog: Catalog, namespace: str) -> None:
    """Create the namespace; that another process was faster is no error, in whatever words a catalog says it."""
    try:
        catalog.create_namespace(namespace)
    except Exception:  # SQL catalogs report the violated key of their database, of which each has its own error
        if not catalog.namespace_exists(namespace):
            raise


def close_catalog(catalog: Catalog) -> None:
    """Close the connections of the catalog."""
    if isinstance(catalog, SqlCatalog):
        catalog.engine.dispose()
    catalog.close()


def _load(name: str, properties: dict[str, str]) -> Catalog:
    """Load the catalog; where two processes create its own tables at once, the slower one finds them made."""
    for _ in range(_OWN_TABLES):
        try:
            return load_catalog(name, **properties)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            if "already exists" not in str(error):
                raise
    return load_catalog(name, **properties)


def _with_timeout(settings: CatalogSettings) -> str:
    if not settings.uri.startswith("sqlite"):
        return settings.uri
    url = make_url(settings.uri)
    if "timeout" not in url.query:
        url = url.update_query_dict({"timeout": str(settings.busy_timeout_seconds)})
    return url.render_as_string(hide_password=False)


def _use_write_ahead_log(catalog: SqlCatalog) -> None:
    """Let readers go on while a commit swaps the pointer; every commit is synced to disk."""

    def set_pragmas(connection: Any, _record: object) -> None:  # Any: the DB-API has no type for connections
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.close()

    event.listen(catalog.engine, "connect", set_pragmas)
    catalog.engine.dispose()
