"""Where tables can be: each catalog with each store that a suite runs on, as settings; servers start when asked."""

from __future__ import annotations

import uuid
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final, NoReturn, Self, TypeVar

from pyiceberg.exceptions import NoSuchTableError

from k2.common.errors import UnavailableError
from k2.storage.catalog import close_catalog, open_catalog
from k2.storage.settings import CatalogSettings
from k2.storage.tables import MAIN_TABLES, NAMESPACE, SIDE_TABLES
from k2.testing.services.postgres import PostgresService
from k2.testing.services.rest_catalog import RestCatalogService
from k2.testing.services.s3 import S3Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOCAL: Final = "sqlite+files"
SERVED: Final = ("postgres+files", "rest+files", "sqlite+s3", "postgres+s3")
_BUCKET: Final = "k2-tests"
_NOT_HERE: Final = frozenset({"Maven repository", "PostgreSQL"})
"""What a server misses that cannot be had on this machine: its download, or binaries for the system."""
Started = TypeVar("Started", PostgresService, RestCatalogService, S3Service)


class Services:
    """The servers of one test session, each started at its first use and ended with the session."""

    def __init__(
        self,
        directory: Path,
        *,
        progress: Callable[[str, int, int], None],
        not_to_be_had: Callable[[str], NoReturn],
    ) -> None:
        self._directory = directory
        self._progress = progress
        self._not_to_be_had = not_to_be_had
        self._reasons: dict[str, str] = {}
        self._stack = ExitStack()

    @cached_property
    def postgres(self) -> PostgresService:
        """Return PostgreSQL."""
        return self._started("PostgreSQL", lambda: PostgresService(self._told("PostgreSQL")))

    @cached_property
    def rest(self) -> RestCatalogService:
        """Return the REST catalog."""
        return self._started("a REST catalog", lambda: RestCatalogService(self._home("rest"), self._told("REST")))

    @cached_property
    def s3(self) -> S3Service:
        """Return the S3 store, with its bucket."""
        service = self._started("an S3 store", lambda: S3Service(self._home("s3"), self._told("s3proxy")))
        service.make_bucket(_BUCKET)
        return service

    def warehouse_in_s3(self, *, port: int | None = None) -> dict[str, str]:
        """Return the settings of an empty warehouse in the S3 store; `port` is that of a proxy in between."""
        return self.s3.settings(f"s3://{_BUCKET}/{uuid.uuid4().hex}", port=port)

    @contextmanager
    def place(self, name: str, directory: Path) -> Iterator[dict[str, str]]:
        """Give the catalog settings of a place without tables; `directory` is for local files."""
        catalog, store = name.split("+")
        settings = {"uri": f"sqlite:///{directory}/catalog.db", "warehouse": f"file://{directory}/lake"}
        if store == "s3":
            settings |= self.warehouse_in_s3()
        if catalog == "postgres":
            settings |= {"name": uuid.uuid4().hex, "uri": self.postgres.uri()}
        if catalog == "rest":
            settings |= self.rest.settings()
        try:
            yield settings
        finally:
            if catalog == "rest":
                self.empty_rest()

    def empty_rest(self) -> None:
        """Drop the tables of the REST catalog, which has one set of them only, and remove their files."""
        catalog = open_catalog(CatalogSettings.model_validate(self.rest.settings()))
        for table in (*MAIN_TABLES, *SIDE_TABLES):
            with suppress(NoSuchTableError):
                catalog.drop_table(f"{NAMESPACE}.{table}")
        close_catalog(catalog)
        self.rest.remove_files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _home(self, name: str) -> Path:
        home = self._directory / name
        home.mkdir(exist_ok=True)
        return home

    def _started(self, name: str, start: Callable[[], Started]) -> Started:
        """Start a server. One that cannot be had here is told, and not asked for again; one that fails raises."""
        if name not in self._reasons:
            try:
                return self._stack.enter_context(start())
            except UnavailableError as error:
                if error.dependency not in _NOT_HERE:
                    raise
                self._reasons[name] = str(error)
        return self._not_to_be_had(f"{name} cannot be had on this machine: {self._reasons[name]}")

    def _told(self, name: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(name, done, total)
