"""How a running platform describes itself to other processes: `run/platform.json` and the holder of its lock."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from k2.common.errors import ConfigurationError
from k2.local.component import ComponentStatus, State
from k2.local.processes import ProcessIdentity, identify, is_same
from k2.local.state_files import read_json

if TYPE_CHECKING:
    from k2.local.layout import DataDirectory


@dataclass(frozen=True)
class PlatformDescription:
    """The supervisor, its stage (starting, ready, stopping, stopped, failed) and its components."""

    supervisor: ProcessIdentity | None
    stage: str
    components: tuple[ComponentStatus, ...]
    error: str = ""


def to_json(description: PlatformDescription) -> dict[str, Any]:
    """Return the description as JSON values; of each process its number, start and command."""
    return {"v": 1, **asdict(description)}


def from_json(values: dict[str, Any], where: str) -> PlatformDescription:
    """Return the description that `to_json` wrote.

    Raises:
        ConfigurationError: the values are not such a description.
    """
    try:
        return PlatformDescription(
            _process(values["supervisor"]),
            str(values["stage"]),
            tuple(_component(entry) for entry in values["components"]),
            str(values.get("error", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigurationError(
            f"expected the description of a platform in {where}, found something else ({error!r}): "
            "end the platform if it runs, delete the file, and start again"
        ) from error


def read_description(directory: DataDirectory) -> PlatformDescription | None:
    """Return what the platform of this directory last said of itself; None if it never ran."""
    values = read_json(directory.platform_file)
    return None if values is None else from_json(values, str(directory.platform_file))


def running_supervisor(directory: DataDirectory) -> ProcessIdentity | None:
    """Return the supervisor that runs the platform of this directory now; None if none does."""
    try:
        pid, started = directory.lock.read_text(encoding="utf-8").split()
        found = identify(int(pid))
    except (OSError, ValueError):
        return None
    return found if found is not None and found.started == started else None


def orphans(description: PlatformDescription) -> tuple[ProcessIdentity, ...]:
    """Return the recorded processes that still run, the same ones and no others."""
    recorded = (component.process for component in description.components)
    return tuple(process for process in recorded if process is not None and is_same(process, identify(process.pid)))


def _process(values: dict[str, Any] | None) -> ProcessIdentity | None:
    if values is None:
        return None
    return ProcessIdentity(int(values["pid"]), str(values["started"]), tuple(map(str, values["command"])))


def _component(values: dict[str, Any]) -> ComponentStatus:
    fields = dict(values)
    fields["state"] = State(fields["state"])
    fields["process"] = _process(fields["process"])
    return ComponentStatus(**fields)
