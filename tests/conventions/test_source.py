"""What every source file keeps to, beyond what the linters know."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "k2").rglob("*.py"))
EVERY_FILE = sorted(
    path for folder in ("src", "tests", "benchmarks", "mutants", "scripts") for path in (ROOT / folder).rglob("*.py")
)
LINES_MAX = 400
SUPPRESSION = re.compile(r"# (noqa|type: ignore)")
REASONED = re.compile(r"# (noqa: [A-Z]+[0-9]+(, ?[A-Z]+[0-9]+)*|type: ignore\[[\w, -]+\])[ #:-]+[(`]?\w+")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_the_sources_are_found() -> None:
    assert len(SOURCES) > 40


@pytest.mark.parametrize("path", EVERY_FILE, ids=name_of)
def test_no_file_is_longer_than_the_limit(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_says_in_its_first_line_what_it_does(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))

    assert docstring, "a module begins with a docstring"
    assert len(docstring.splitlines()[0]) > 15


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_suppression_without_a_reason(path: Path) -> None:
    bare = [
        f"{number}: {line.strip()}"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if SUPPRESSION.search(line) and not REASONED.search(line)
    ]

    assert bare == []
