"""A mapping: which table and exchange a file is for, and where each field comes from. Read from YAML and checked."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictStr, ValidationError, model_validator

from k2.common.errors import ConfigurationError
from k2.common.strict_yaml import explain, read_yaml
from k2.feeds.mapped.columns import GIVEN, TextColumn, kinds_of, required_of
from k2.schemas.records import RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from k2.feeds.mapped.columns import Column
    from k2.kafka.topics import Exchange, TopicCatalog

KIND: Final = "mapping"


class CsvForm(BaseModel):
    """How a CSV file is written: UTF-8, a record a line, fields perhaps in quotes (doubled inside)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    delimiter: StrictStr = Field(default=",", min_length=1, max_length=1)
    header: bool = Field(default=True, strict=True)
    """The first line names the columns; without it, `names` does."""
    names: tuple[StrictStr, ...] = ()

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.delimiter in '"\r\n' or not self.delimiter.isascii():
            raise ValueError("an ASCII delimiter that is no quote and no end of a line")
        if self.header == bool(self.names):
            raise ValueError("names of the columns where header is false, none where it is true")
        if len(set(self.names)) != len(self.names):
            raise ValueError("each name once")
        return self


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1]
    table: Literal["trades", "quotes"]
    exchange: StrictStr
    csv: CsvForm | None = None
    columns: dict[StrictStr, Any] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class FileMapping:
    """Where each field of a table's records comes from. `columns` are by field, in the contract's order."""

    path: Path
    data_type: str
    exchange: str
    csv: CsvForm | None
    columns: Mapping[str, Column]

    @property
    def names(self) -> tuple[str, ...]:
        """The columns of the file that are needed, each once."""
        return tuple(dict.fromkeys(name for column in self.columns.values() for name in column.names))

    @property
    def symbol(self) -> str | None:
        """The symbol of all records, where the mapping names one."""
        column = self.columns["symbol"]
        return column.constant if isinstance(column, TextColumn) else None


def read_mapping(path: Path) -> FileMapping:
    """Read a mapping.

    Raises:
        ConfigurationError: it cannot be read or says something impossible; names each place and what was found.
    """
    return mapping_of(read_yaml(path, KIND), path)


def mapping_of(content: Any, path: Path) -> FileMapping:
    """Return the mapping that the content of a file says; ConfigurationError as of `read_mapping`."""
    try:
        file = _File.model_validate(content)
    except ValidationError as error:
        raise ConfigurationError("\n".join(explain(path, problem) for problem in error.errors())) from None
    record_type = RECORD_TYPES[file.table]
    kinds, problems = kinds_of(record_type), []
    columns: dict[str, Column] = {}
    for name in file.columns:
        if name in GIVEN:
            problems.append(
                f"{path}: columns.{name}: no column says it ({', '.join(GIVEN)} come from the mapping's exchange, the "
                "file's SHA-256 and the number of the line or row): remove it"
            )
        elif name not in kinds:
            problems.append(
                f"{path}: unknown field columns.{name}: the fields of {file.table} are {', '.join(kinds)}; mend its "
                "name, or put the column into extra"
            )
    for name, kind in kinds.items():
        if name in file.columns:
            try:
                columns[name] = kind.model_validate(file.columns[name])
            except ValidationError as error:
                problems += [explain(path, problem, below=f"columns.{name}") for problem in error.errors()]
    missing = [name for name in required_of(record_type) if name not in file.columns]
    if missing:
        problems.append(
            f"{path}: expected columns for {', '.join(missing)}, found none: every record of {file.table} has "
            "them; name a column for each (a symbol can be a constant)"
        )
    if problems:
        raise ConfigurationError("\n".join(problems))
    return FileMapping(path, file.table, file.exchange, file.csv, MappingProxyType(columns))


def exchange_of(mapping: FileMapping, topics: TopicCatalog) -> Exchange:
    """Return the exchange that a mapping names; ConfigurationError, which says how to add one, if there is none."""
    return exchange_named(mapping.exchange, topics, where=f"{mapping.path}: exchange")


def exchange_named(name: str, topics: TopicCatalog, *, where: str) -> Exchange:
    """Return an exchange; ConfigurationError, which says how to add one, if there is none. `where` it was named."""
    found = topics.exchanges.get(name)
    if found is None:
        raise ConfigurationError(
            f"{where}: expected one of topics.yaml ({', '.join(topics.exchanges)}), found {name!r}: mend its name, or "
            "add it to a copy of config/topics.yaml (asset_class, timezone, sequence_scope, partitions), name the copy "
            "in K2_TOPICS_FILE, and start the platform again"
        )
    return found
