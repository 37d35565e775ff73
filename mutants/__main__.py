"""Try the mutants named, or all of them; exit 1 if one survives."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from mutants.catalogue import MUTANTS
from mutants.running import MutantError, check_baseline, copy_tree, try_mutant


def main() -> int:
    """Copy the tree, try each mutant in the copy, print who was killed by what."""
    names = [mutant.name for mutant in MUTANTS]
    parser = argparse.ArgumentParser(prog="python -m mutants", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *names], help=f"of: {', '.join(names)}")
    arguments = parser.parse_args()
    chosen = [mutant for mutant in MUTANTS if not arguments.names or mutant.name in arguments.names]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="k2-mutants-") as directory:
        tree = copy_tree(Path(directory))
        try:
            check_baseline(chosen, tree)
            for mutant in chosen:
                verdict = try_mutant(mutant, tree)
                survivors += verdict.killed_by is None
                fate = f"killed by {verdict.killed_by}" if verdict.killed_by else "SURVIVED"
                print(f"{mutant.name:<24} {verdict.seconds:6.1f} s  {fate}\n{'':<34}{mutant.breaks}", flush=True)
        except MutantError as error:
            print(error, file=sys.stderr)
            return 2
    print(f"{len(chosen)} mutants, {len(chosen) - survivors} killed, {survivors} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
