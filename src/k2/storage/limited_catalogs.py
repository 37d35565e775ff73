"""PyIceberg's catalogs with a limit on every wait: a server that keeps silent must not hold a writer for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.catalog.sql import SqlCatalog
from requests.adapters import HTTPAdapter
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from requests import PreparedRequest, Response, Session

    from k2.storage.settings import CatalogSettings

_LIMIT_ARGUMENTS: Final = {"pysqlite": "timeout", "pg8000": "timeout", "psycopg": "connect_timeout"}
"""What each driver calls its limit. Of PostgreSQL's, only pg8000 limits every wait; the other one the connecting."""


_OWN_TABLES: Final = 2
"""Tables that an SQL catalog creates for itself, one after the other."""


class LimitedSqlCatalog(SqlCatalog):
    """The SQL catalog; its connections have a limit from the first one on, and SQLite is made durable."""

    def __init__(self, settings: CatalogSettings, properties: dict[str, str]) -> None:
        self._settings = settings
        super().__init__(settings.name, **properties)

    def _init_catalog(self) -> None:
        dialect = self.engine.dialect
        limits = self._settings
        seconds = limits.busy_timeout_seconds if dialect.name == "sqlite" else limits.request_timeout_seconds
        argument = _LIMIT_ARGUMENTS.get(dialect.driver)

        def limit(_dialect: object, _record: object, _words: object, arguments: MutableMapping[str, Any]) -> None:
            if argument is not None:
                arguments.setdefault(argument, seconds)

        event.listen(self.engine, "do_connect", limit)
        if dialect.name == "sqlite":
            event.listen(self.engine, "connect", _use_write_ahead_log)
        for _ in range(_OWN_TABLES):
            try:
                return super()._init_catalog()
            except (IntegrityError, OperationalError, ProgrammingError) as error:
                # Where two processes create the catalog's own tables at once, the slower one finds them made.
                if "already exists" not in str(error):
                    raise
        return super()._init_catalog()


class LimitedRestCatalog(RestCatalog):
    """The REST catalog; PyIceberg's own waits for an answer without end."""

    def __init__(self, settings: CatalogSettings, properties: dict[str, str]) -> None:
        self._limits = (settings.connect_timeout_seconds, settings.request_timeout_seconds)
        super().__init__(settings.name, **properties)

    def _create_session(self) -> Session:
        session = super()._create_session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _LimitedAdapter(self._limits))
        return session


class _LimitedAdapter(HTTPAdapter):
    def __init__(self, limits: tuple[float, float]) -> None:
        super().__init__()
        self._limits = limits

    def send(self, request: PreparedRequest, *words: Any, **options: Any) -> Response:  # Any: handed through
        options["timeout"] = options.get("timeout") or self._limits
        return super().send(request, *words, **options)


def _use_write_ahead_log(connection: Any, _record: object) -> None:  # Any: the DB-API has no type for connections
    """Let readers go on while a commit swaps the pointer; every commit is synced to disk."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
