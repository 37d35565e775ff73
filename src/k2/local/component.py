"""What a component of the platform is: the ports it needs, how it is prepared, started, checked and reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from k2.local.layout import DataDirectory
    from k2.local.processes import ProcessIdentity


class State(StrEnum):
    """Where a component is in its life."""

    WAITING = "waiting"
    DOWNLOADING = "downloading"
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    RESTARTING = "restarting"
    FAILING = "failing"
    FINISHED = "finished"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True)
class Command:
    """A command line, where it runs, and its environment (None: that of the supervisor)."""

    words: tuple[str, ...]
    directory: Path
    env: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Site:
    """Where a component lives: the data directory and the ports it was given."""

    directory: DataDirectory
    ports: Mapping[str, int]


class UnhealthyError(Exception):
    """The component does not answer as it should; the text says how."""


class StopRequestedError(Exception):
    """The platform is to end; raised out of a download, which nothing else can interrupt."""


class Component(Protocol):
    """One kind of component. Implementations hold no state of the running process."""

    @property
    def name(self) -> str:
        """Return the name that people and files use."""
        ...

    @property
    def needs(self) -> tuple[str, ...]:
        """Return the components that must be healthy before this one starts."""
        ...

    @property
    def stop_rank(self) -> int:
        """Return when it is stopped: lower ranks first."""
        ...

    @property
    def port_names(self) -> tuple[str, ...]:
        """Return the names of its ports; the first one is its address."""
        ...

    @property
    def may_finish(self) -> bool:
        """Say whether an exit with code 0 is the end of its work and not a death."""
        ...

    def install(self, progress: Callable[[int, int], None]) -> None:
        """Bring its program onto this machine, telling (bytes so far, bytes in all)."""
        ...

    def command(self, site: Site) -> Command:
        """Write its configuration and return how to start it."""
        ...

    def check(self, site: Site, *, timeout_seconds: float) -> None:
        """Ask it whether it works; raise UnhealthyError if it does not."""
        ...

    def after_start(self, site: Site, *, timeout_seconds: float) -> None:
        """Configure what can only be configured while it runs; the same each time."""
        ...

    def before_retry(self) -> None:
        """Undo what may have kept the last start from succeeding."""
        ...

    def address(self, site: Site) -> str:
        """Return where it is reached."""
        ...

    def endpoints(self, site: Site) -> dict[str, Any]:
        """Return the settings that lead to it, as sections of K2's settings."""
        ...


@dataclass(frozen=True)
class ComponentStatus:
    """What is known of a component at one moment."""

    name: str
    state: State
    detail: str = ""
    process: ProcessIdentity | None = None
    address: str = ""
    ports: Mapping[str, int] = field(default_factory=dict)
    restarts: int = 0
    since_ns: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
