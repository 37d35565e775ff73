"""Write docs/reference/ and .env.example from the code; `--check` says what is stale and changes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer.main
from pydantic import BaseModel, SecretStr
from pydantic_core import PydanticUndefined

from k2.cli.main import app
from k2.common import errors
from k2.query.bars.columns import BAR_COLUMNS
from k2.schemas.records import DEAD_LETTERS, GAPS, QUOTES, TRADES
from k2.settings import Settings, variable_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import click
    from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[1]
NOTE = "<!-- Written by scripts/generate_references.py; change the code, then run `make references`. -->\n"


def settings_of(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Yield each setting below `model` with its path, sections opened up."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from settings_of(kind, (*path, name))
        else:
            yield (*path, name), field


def default_text(field: FieldInfo) -> str:
    """Return a setting's default as it would be written in the environment."""
    value: Any = field.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined:
        return ""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value)
    return str(value)


def configuration() -> str:
    """Return the reference of all settings."""
    lines = [
        "# Configuration\n",
        NOTE,
        "Later wins: the default, what the running local platform found free, the settings file (`<data dir>/k2.toml`,",
        "or the file that `K2_SETTINGS_FILE` names), the environment. `K2_DATA_DIR` names the data directory (default",
        "`.k2`). An unknown name or an impossible value stops the command with the name of the setting.\n",
        "In the settings file, `K2_KAFKA__BOOTSTRAP_SERVERS` is `bootstrap_servers` in the table `[kafka]`.\n",
        "| variable | default | meaning |",
        "|---|---|---|",
    ]
    for path, field in settings_of(Settings):
        if path == ("data_dir",):
            continue
        default = default_text(field)
        lines.append(f"| `{variable_name(path)}` | {f'`{default}`' if default else ''} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def environment_example() -> str:
    """Return `.env.example`: each setting, commented out, with its default."""
    lines = ["# Settings of K2 with their defaults; docs/reference/configuration.md explains them."]
    lines += ["# Remove the # of what you change, then: set -a; . ./.env; set +a", ""]
    for path, field in settings_of(Settings):
        if path != ("data_dir",):
            lines += [f"# {field.description or ''}", f"#{variable_name(path)}={default_text(field)}"]
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """Return the reference of all commands."""
    lines = ["# Command line\n", NOTE]
    lines += list(commands(typer.main.get_command(app), "k2"))
    return "\n".join(lines) + "\n"


def commands(command: click.Command, name: str) -> Iterator[str]:
    """Yield the help of a command and of those below it."""
    children = getattr(command, "commands", None)
    if children is None:
        with command.make_context(name, [], resilient_parsing=True) as context:
            yield f"## {name}\n"
            yield (command.help or "").strip() + "\n"
            yield "| argument or option | meaning |"
            yield "|---|---|"
            for parameter in command.get_params(context):
                if getattr(parameter, "hidden", False):
                    continue
                record = parameter.get_help_record(context)
                described = getattr(parameter, "help", None) or (record[1] if record else "")
                label = record[0] if record else (parameter.name or "").upper()
                yield f"| `{in_cell(label)}` | {in_cell(' '.join(str(described).split()))} |"
            yield ""
        return
    for child, below in sorted(children.items()):
        yield from commands(below, f"{name} {child}")


def in_cell(text: str) -> str:
    """Return the text as a cell of a table holds it, where a bar would begin the next cell, even in code."""
    return text.replace("|", "\\|")


def records() -> str:
    """Return the reference of all columns."""
    lines = ["# Records\n", NOTE]
    for record_type in (TRADES, QUOTES, DEAD_LETTERS, GAPS):
        lines += [
            f"## market.{record_type.name}\n",
            "| column | type | null | from | meaning |",
            "|---|---|---|---|---|",
        ]
        for field in record_type.fields:
            null = "yes" if field.nullable else "no"
            lines.append(f"| `{field.name}` | {field.type.value} | {null} | {field.origin.value} | {field.doc} |")
        lines.append("")
    lines += [
        "## Bars\n",
        "What `/v1/ohlcv` and `k2 bars` answer.\n",
        "| column | type | null | meaning |",
        "|---|---|---|---|",
    ]
    for column in BAR_COLUMNS:
        lines.append(f"| `{column.name}` | {column.type} | {'yes' if column.nullable else 'no'} | {column.doc} |")
    lines.append("")
    lines += [
        "`price` is decimal(28,12), `quantity` decimal(28,10), `timestamp` is in microseconds with time zone UTC,",
        "`strings` is a list of strings. A `message` column travels in the Avro message; a `log` column is known by",
        "the broker; a `derived` one is a function of the message; a `commit` one is known by the commit.",
    ]
    return "\n".join(lines) + "\n"


def error_tree() -> str:
    """Return the reference of errors: the tree of the module that defines them."""
    return "\n".join(["# Errors\n", NOTE, "```", (errors.__doc__ or "").strip(), "```"]) + "\n"


def documents() -> dict[Path, str]:
    """Return each generated file with its text."""
    reference = ROOT / "docs" / "reference"
    return {
        reference / "configuration.md": configuration(),
        reference / "cli.md": command_line(),
        reference / "records.md": records(),
        reference / "errors.md": error_tree(),
        ROOT / ".env.example": environment_example(),
    }


def main() -> int:
    """Write what is stale, or say so."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if a file is stale")
    check = parser.parse_args().check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    for path in stale:
        print(("stale: " if check else "written: ") + str(path.relative_to(ROOT)))
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(documents()[path])
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
