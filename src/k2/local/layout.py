"""Where a platform keeps things: the paths inside its data directory and inside the user's cache."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MARKER_TEXT: Final = "K2 data directory, version 1\n"


@dataclass(frozen=True)
class DataDirectory:
    """The paths of one platform's state; `root` is absolute."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> DataDirectory:
        """Return the layout of a directory that may be given relative to the current one."""
        return cls(path.expanduser().absolute())

    @property
    def marker(self) -> Path:
        """Return the file that says that the directory is K2's."""
        return self.root / ".k2-data"

    @property
    def lock(self) -> Path:
        """Return the file that the supervisor holds a lock on while it runs."""
        return self.run / "platform.lock"

    @property
    def run(self) -> Path:
        """Return the directory of what describes the running platform."""
        return self.root / "run"

    @property
    def platform_file(self) -> Path:
        """Return the list of running components."""
        return self.run / "platform.json"

    @property
    def endpoints_file(self) -> Path:
        """Return the overlay of settings that leads every command to this platform."""
        return self.run / "endpoints.json"

    @property
    def ports_file(self) -> Path:
        """Return the ports of the last run."""
        return self.run / "ports.json"

    @property
    def key_file(self) -> Path:
        """Return the file of the API key."""
        return self.root / "api-key"

    @property
    def settings_file(self) -> Path:
        """Return the file of settings that a person may write."""
        return self.root / "k2.toml"

    @property
    def logs(self) -> Path:
        """Return the directory of the logs."""
        return self.root / "logs"

    def log(self, component: str) -> Path:
        """Return the log of a component, or of the `supervisor`."""
        return self.logs / f"{component}.log"

    def component(self, name: str) -> Path:
        """Return the directory of a component's own state."""
        return self.root / name

    def catalog(self) -> dict[str, str]:
        """Return the settings of the catalog that lives in this directory."""
        return {"uri": f"sqlite:///{self.root}/catalog.db", "warehouse": f"file://{self.root}/warehouse"}


def cache_directory(configured: Path | None, *, home: Path, xdg_cache_home: str | None) -> Path:
    """Return where downloads are kept, for all platforms of this user."""
    if configured is not None:
        return configured.expanduser().absolute()
    base = Path(xdg_cache_home) if xdg_cache_home and Path(xdg_cache_home).is_absolute() else home / ".cache"
    return base / "k2"


def user_cache_directory(configured: Path | None) -> Path:
    """Return where downloads are kept for the user of this process."""
    xdg = os.environ.get("XDG_CACHE_HOME")  # noqa: TID251  # the desktop's own variable, not a setting of K2
    return cache_directory(configured, home=Path.home(), xdg_cache_home=xdg)
