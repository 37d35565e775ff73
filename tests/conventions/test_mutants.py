"""Each mutant still fits the code that it breaks, and names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants.catalogue import MUTANTS, Mutant
from mutants.running import problem_of

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_that_it_breaks(mutant: Mutant) -> None:
    problems = [problem for edit in mutant.edits if (problem := problem_of(edit))]

    assert problems == []


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_names_tests_that_exist(mutant: Mutant) -> None:
    missing = []
    for node in mutant.tests:
        path, _, name = node.partition("::")
        if f"def {name.partition('[')[0]}(" not in (ROOT / path).read_text():
            missing.append(node)

    assert mutant.tests
    assert missing == []


def test_the_guarantees_list_each_mutant_and_what_it_breaks() -> None:
    document = (ROOT / "docs/operations/guarantees.md").read_text()

    absent = [mutant.name for mutant in MUTANTS if f"| `{mutant.name}` | {mutant.breaks} |" not in document]

    assert absent == []
