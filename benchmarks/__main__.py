"""Run the benchmarks named, or all of them, one after the other."""

from __future__ import annotations

import argparse
import importlib
import sys

from benchmarks.report import Figure, show, write

NAMES = (
    "api_overload",
    "dedup",
    "gaps",
    "ingest",
    "overload",
    "overload_live",
    "visibility",
    "hybrid",
    "planning",
    "recovery",
    "sequences",
    "startup",
    "storage",
    "stream",
    "compaction",
    "mutes",
    "commits",
)


def main() -> int:
    """Run, print, write; exit 1 if a goal was missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *NAMES], help=f"benchmarks to run, of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work; figures are rougher")
    arguments = parser.parse_args()
    results: dict[str, list[Figure]] = {}
    for name in arguments.names or NAMES:
        print(f"measuring: {name}", flush=True)
        results[name] = importlib.import_module(f"benchmarks.{name}").measure(quick=arguments.quick)
        show(name, results[name])
    print(f"written: {write(results)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
