"""Show overload on a real platform: ten times the usual market, a slow sink, each level taken and left, none lost."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from k2.cli.degradation_demo import demonstrate
from k2.cli.overload_stage import FULL, QUICK
from k2.common.clock import SystemClock


def main() -> int:
    """Run it in a directory that is kept only where one was named; exit code 1 if something was not shown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="under a minute of overload and recovery")
    parser.add_argument("--dir", type=Path, help="an empty directory to keep the platform in")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="k2-demo-") as temporary:
        directory = chosen.dir or Path(temporary)
        shown = demonstrate(directory, QUICK if chosen.quick else FULL, console=Console(), clock=SystemClock())
    return 0 if shown else 1


if __name__ == "__main__":
    sys.exit(main())
