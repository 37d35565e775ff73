"""The components that are K2 itself: ingest worker, API, upkeep and simulator, each its own Python process."""

from __future__ import annotations

import hashlib
import http.client
import json
import platform
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k2.local.component import Command, Site, UnhealthyError
from k2.local.ports import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

_ANSWER_BYTES_MAX = 65_536


@dataclass(frozen=True)
class K2Component:
    """One command of K2, checked over HTTP where it has a port."""

    name: str
    verb: str
    needs: tuple[str, ...]
    stop_rank: int
    port_names: tuple[str, ...] = ()
    port_option: str = ""
    may_finish: bool = False
    arguments: tuple[str, ...] = ()
    is_group_member: bool = False

    def install(self, progress: Callable[[int, int], None]) -> None:
        """Do nothing: it came with this package."""

    def command(self, site: Site) -> Command:
        """Return the command line."""
        root = str(site.directory.root)
        words = [sys.executable, "-m", "k2.cli.main", self.verb, "--data-dir", root, *self.arguments]
        if self.port_option:
            words += [self.port_option, str(site.ports[self.port_names[0]])]
        if self.is_group_member:
            words += ["--member-id", _member_id(site)]
        return Command(tuple(words), site.directory.root)

    def check(self, site: Site, *, timeout_seconds: float) -> None:
        """Ask `/livez`, where there is a port."""
        if not self.port_names:
            return
        status, _ = self._ask(site, "/livez", timeout_seconds)
        if status != http.client.OK:
            raise UnhealthyError(f"{self.name} answers {status} to GET /livez on port {site.ports[self.port_names[0]]}")

    def unready(self, site: Site, *, timeout_seconds: float) -> tuple[str, ...]:
        """Return why the process cannot do its work now, though it lives: what it answers to `/readyz`.

        Raises:
            UnhealthyError: it does not answer, or not as it should.
        """
        if not self.port_names:
            return ()
        _, body = self._ask(site, "/readyz", timeout_seconds)
        try:
            return tuple(map(str, json.loads(body)["reasons"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UnhealthyError(f"{self.name} answers GET /readyz with {body[:80]!r}") from error

    def _ask(self, site: Site, path: str, timeout_seconds: float) -> tuple[int, bytes]:
        port = site.ports[self.port_names[0]]
        connection = http.client.HTTPConnection(HOST, port, timeout=timeout_seconds)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(_ANSWER_BYTES_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise UnhealthyError(f"no answer from {self.name} on port {port}: {error}") from error
        finally:
            connection.close()

    def after_start(self, site: Site, *, timeout_seconds: float) -> None:
        """Do nothing."""

    def before_retry(self) -> None:
        """Do nothing."""

    def address(self, site: Site) -> str:
        """Return the base URL."""
        return f"http://{HOST}:{site.ports[self.port_names[0]]}" if self.port_names else ""

    def endpoints(self, site: Site) -> dict[str, Any]:
        """Return the setting that leads clients to the API."""
        if self.name != "api":
            return {}
        return {"api": {"host": HOST, "port": site.ports["api"], "key_file": str(site.directory.key_file)}}


def _member_id(site: Site) -> str:
    """Return the same name at every start of this platform, and another one for each platform."""
    place = f"{platform.node()}:{site.directory.root}"
    return f"k2-worker-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


def worker() -> K2Component:
    """Return the ingest worker."""
    return K2Component(
        "worker", "ingest", ("kafka", "registry"), 1, ("worker",), "--metrics-port", is_group_member=True
    )


def api() -> K2Component:
    """Return the REST API."""
    return K2Component("api", "serve", ("kafka", "registry"), 1, ("api",))


def upkeep() -> K2Component:
    """Return the upkeep of the tables."""
    return K2Component("upkeep", "maintain", (), 1, ("upkeep",), "--metrics-port", arguments=("--every", "auto"))


def simulator(arguments: tuple[str, ...] = ()) -> K2Component:
    """Return the simulated market."""
    return K2Component("simulator", "simulate", ("kafka", "registry"), 0, may_finish=True, arguments=arguments)
