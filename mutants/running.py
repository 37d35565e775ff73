"""Applies a mutant to a copy of the tree and runs its tests there; the tree itself is never touched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutants.catalogue import Edit, Mutant

ROOT = Path(__file__).parents[1]
COPIED = ("src", "tests", "config", "pyproject.toml")
SECONDS_MAX = 300
BASELINE_SECONDS_MAX = 1800
_PASSED, _FAILED = 0, 1


class MutantError(Exception):
    """A mutant cannot be made, or its tests cannot be run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant: `killed_by` is the first test that failed, or None if it survived."""

    mutant: Mutant
    killed_by: str | None
    seconds: float


def copy_tree(directory: Path) -> Path:
    """Copy what a test run needs into `directory`."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, directory / name)  # bytecode too: it is valid where the source is
        else:
            shutil.copy2(source, directory / name)
    return directory


def problem_of(edit: Edit, root: Path = ROOT) -> str | None:
    """Return why an edit cannot be made in the tree at `root`; None if it can."""
    path = root / edit.path
    found = path.read_text().count(edit.anchor) if path.is_file() else 0
    if found == 1:
        return None
    return f"expected once in {edit.path}, found {found} times: {edit.anchor.strip()!r}; mend it in mutants/"


def apply(mutant: Mutant, tree: Path) -> dict[Path, str]:
    """Make the edits in a copy; return what the files held before."""
    before: dict[Path, str] = {}
    for edit in mutant.edits:
        problem = problem_of(edit, tree)
        if problem:
            raise MutantError(f"{mutant.name}: {problem}")
        path = tree / edit.path
        before.setdefault(path, path.read_text())
        path.write_text(path.read_text().replace(edit.anchor, edit.replacement))
    return before


def try_mutant(mutant: Mutant, tree: Path) -> Verdict:
    """Break the copy, run the mutant's tests, mend the copy."""
    began = time.monotonic()
    before = apply(mutant, tree)
    try:
        code, output = run_tests(tree, mutant.tests)
    finally:
        for path, text in before.items():
            path.write_text(text)
    if code not in (_PASSED, _FAILED):
        raise MutantError(f"{mutant.name}: pytest ended with {code}, the break itself is broken:\n{output[-2000:]}")
    killer = next((line.split(" ")[1] for line in output.splitlines() if line.startswith("FAILED ")), None)
    if code == _FAILED and killer is None:
        raise MutantError(f"{mutant.name}: no test failed, but the run did:\n{output[-2000:]}")
    return Verdict(mutant, killer, time.monotonic() - began)


def run_tests(tree: Path, tests: Sequence[str], *, seconds_max: float = SECONDS_MAX) -> tuple[int, str]:
    """Run tests on the copy, and on nothing else, until the first one fails.

    Raises:
        MutantError: they take too long.
    """
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", "--tb=line", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=seconds_max, check=False
        )
    except subprocess.TimeoutExpired:
        raise MutantError(f"{len(tests)} tests took longer than {seconds_max:g} s; is the machine busy?") from None
    return ended.returncode, ended.stdout + ended.stderr


def check_baseline(mutants: Sequence[Mutant], tree: Path) -> None:
    """See that the tests pass on the tree as it is: a test that fails anyway kills nothing."""
    names = list(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    code, output = run_tests(tree, names, seconds_max=BASELINE_SECONDS_MAX)
    if code != _PASSED:
        raise MutantError(f"the tests fail without any mutant:\n{output[-3000:]}")
