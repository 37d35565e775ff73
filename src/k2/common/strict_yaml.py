"""Reads a small YAML file that people write, and says where it is wrong: a key that comes twice, a bad value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from k2.common.errors import ConfigurationError

if TYPE_CHECKING:
    from pathlib import Path

_SHOWN_CHARACTERS = 80


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys in silence; this refuses them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping; ConstructorError if a key comes twice."""
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(self.construct_object(key_node, deep=True))
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} comes twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, kind: str) -> Any:
    """Return what a file says; ConfigurationError where it cannot be read or is no YAML. `kind`: what it should be."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"cannot read the {kind} {path}: {error}") from error
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 - derives from SafeLoader
    except yaml.YAMLError as error:
        raise ConfigurationError(f"expected YAML in the {kind} {path}, found a mistake: {error}") from error


def explain(path: Path, problem: Any, *, below: str = "") -> str:
    """Return one of Pydantic's problems as a line that names the file, the place (below `below`) and what was found."""
    parts = [str(part) for part in problem["loc"] if part != "[key]"]
    where = ".".join([below, *parts] if below else parts) or "the whole file"
    found = repr(problem["input"])[:_SHOWN_CHARACTERS]
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key {where} (found {found}): remove it or mend its name"
    return f"{path}: {where}: {problem['msg']}; found {found}"
