"""A few of the product's mutants die; `make mutants` tries them all."""

from __future__ import annotations

from pathlib import Path

from mutants.catalogue import MUTANTS, Edit, Mutant
from mutants.running import check_baseline, copy_tree, try_mutant

SHARE = ("own-retry", "greater-fence", "no-accounts")


def test_a_stated_share_of_the_mutants_dies_and_a_harmless_one_lives(tmp_path: Path) -> None:
    tree = copy_tree(tmp_path)
    chosen = [mutant for mutant in MUTANTS if mutant.name in SHARE]
    path = "src/k2/storage/writer.py"
    harmless = Mutant(
        "harmless", "nothing", (Edit(path, "        check_accounts(batch)\n", "        check_accounts(batch)  # \n"),),
        ("tests/unit/storage/test_seam.py::test_a_leader_epoch_never_goes_back",),
    )  # fmt: skip

    check_baseline(chosen, tree)
    verdicts = [try_mutant(mutant, tree) for mutant in [*chosen, harmless]]

    assert {verdict.mutant.name for verdict in verdicts if verdict.killed_by} == set(SHARE)
    assert (tree / path).read_text() == (Path(__file__).parents[2] / path).read_text()
