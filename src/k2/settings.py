"""Every setting of K2: read once, frozen, in sections; the only module that reads the environment.

Later wins: defaults, `<data dir>/run/endpoints.json` (what the running local platform found free), the settings
file (`<data dir>/k2.toml`, or the one that K2_SETTINGS_FILE names), the environment (`K2_KAFKA__BOOTSTRAP_SERVERS`).
"""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from k2.api.settings import ApiSettings
from k2.common.errors import ConfigurationError
from k2.common.settings import DegradationSettings
from k2.feeds.settings import FeedSettings
from k2.ingestion.settings import IngestionSettings
from k2.kafka.settings import AnnouncingSettings, KafkaSettings
from k2.local.settings import LocalSettings
from k2.query.settings import QuerySettings
from k2.storage.settings import CatalogSettings, UpkeepSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "K2_"
DATA_DIR_VARIABLE: Final = "K2_DATA_DIR"
SETTINGS_FILE_VARIABLE: Final = "K2_SETTINGS_FILE"
DEFAULT_DATA_DIR: Final = Path(".k2")
_NOT_SETTINGS: Final = frozenset({DATA_DIR_VARIABLE, SETTINGS_FILE_VARIABLE, "K2_SAMPLE_DATA"})


class ValkeySettings(BaseModel):
    """Where Valkey (or Redis) answers; a cache, never needed for a correct answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: SecretStr = Field(default=SecretStr("redis://127.0.0.1:6379/0"), description="URL of Valkey or Redis")


class Settings(BaseModel):
    """All sections. Values never change after they are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_dir: Path = Field(default=DEFAULT_DATA_DIR, description="Directory of the local platform's state")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level of log events"
    )
    topics_file: Path | None = Field(
        default=None, description="Topics and exchanges; the packaged topics.yaml if unset"
    )
    crash_points: str = Field(
        default="", description="Tests only: points at which to end the process, e.g. before_commit:3"
    )
    kafka: KafkaSettings = Field(default_factory=KafkaSettings, description="The log and its schema registry")
    announcing: AnnouncingSettings = Field(
        default_factory=AnnouncingSettings, description="Levels and drills, as processes tell each other"
    )
    catalog: CatalogSettings = Field(default_factory=CatalogSettings, description="The Iceberg catalog and warehouse")
    upkeep: UpkeepSettings = Field(
        default_factory=UpkeepSettings, description="Merging, compaction, expiry and orphans of the tables"
    )
    valkey: ValkeySettings = Field(default_factory=ValkeySettings, description="The cache")
    feeds: FeedSettings = Field(default_factory=FeedSettings, description="Importer and simulated market")
    ingestion: IngestionSettings = Field(default_factory=IngestionSettings, description="The ingest worker")
    degradation: DegradationSettings = Field(
        default_factory=DegradationSettings, description="Overload: levels, and what each leaves out"
    )
    query: QuerySettings = Field(default_factory=QuerySettings, description="Hybrid queries")
    api: ApiSettings = Field(default_factory=ApiSettings, description="The REST API")
    local: LocalSettings = Field(default_factory=LocalSettings, description="The platform on this machine")


def load_settings(data_dir: Path | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings for the platform of `data_dir` (else K2_DATA_DIR, else `.k2` here).

    Raises:
        ConfigurationError: a file cannot be read or parsed, a name is unknown, or a value is impossible.
    """
    environment = os.environ if environ is None else environ
    directory = (data_dir or Path(environment.get(DATA_DIR_VARIABLE) or DEFAULT_DATA_DIR)).expanduser().absolute()
    values: dict[str, Any] = {"catalog": _local_catalog(directory)}
    _merge(values, _read_endpoints(directory / "run" / "endpoints.json"))
    _merge(values, _read_settings_file(directory, environment))
    _merge(values, _read_environment(environment))
    values["data_dir"] = directory
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigurationError(_explain(error)) from None


def _local_catalog(directory: Path) -> dict[str, str]:
    """Return the catalog that a platform without other settings has: SQLite and files in its data directory."""
    return {"uri": f"sqlite:///{directory}/catalog.db", "warehouse": f"file://{directory}/warehouse"}


def variable_name(path: tuple[str, ...]) -> str:
    """Return the environment variable that sets the value at `path`: ("kafka", "x") -> K2_KAFKA__X."""
    return PREFIX + "__".join(part.upper() for part in path)


def _read_endpoints(path: Path) -> dict[str, Any]:
    text = _text_of(path)
    if text is None:
        return {}
    try:
        values = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(
            f"expected JSON in {path}, found {text[:80]!r} ({error}): "
            "stop the platform, delete the file, start it again"
        ) from error
    if not isinstance(values, dict):
        raise ConfigurationError(f"expected a JSON object in {path}, found {type(values).__name__}: delete the file")
    return values


def _read_settings_file(directory: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    named = environment.get(SETTINGS_FILE_VARIABLE)
    path = Path(named).expanduser() if named else directory / "k2.toml"
    text = _text_of(path)
    if text is None:
        if named:
            raise ConfigurationError(
                f"{SETTINGS_FILE_VARIABLE} names {path}, which does not exist: mend the name or unset it"
            )
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"expected TOML in the settings file {path}, found a mistake: {error}") from error


def _text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"expected text in UTF-8 in {path}, found other bytes ({error.reason})") from error
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}; check its permissions") from error


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.startswith(PREFIX) or name in _NOT_SETTINGS:
            continue
        path = name.removeprefix(PREFIX).lower().split("__")
        section = values
        for part in path[:-1]:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ConfigurationError(f"the setting {name} is a section and a value at once: unset one of them")
        section[path[-1]] = json.loads(text) if _is_json_container(text) else text
    return values


def _is_json_container(text: str) -> bool:
    """Say whether the text of a variable is a JSON object or list, as settings with parts are written."""
    if not text.startswith(("{", "[")):
        return False
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _merge(into: dict[str, Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        present = into.get(name)
        if isinstance(present, dict) and isinstance(value, dict):
            _merge(present, value)
        else:
            into[name] = value


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        path = tuple(str(part) for part in problem["loc"])
        name = variable_name(path)
        if problem["type"] == "extra_forbidden":
            lines.append(
                f"unknown setting {name} ({'.'.join(path)}): see docs/reference/configuration.md for the known ones"
            )
        else:
            lines.append(f"setting {name} ({'.'.join(path)}): {problem['msg']}; found {str(problem['input'])[:80]!r}")
    return "\n".join(lines)
