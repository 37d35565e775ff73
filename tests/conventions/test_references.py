"""The generated references say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_generated_references_are_fresh() -> None:
    script = ROOT / "scripts" / "generate_references.py"

    check = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert check.stdout + check.stderr == "", "run `make references`"
    assert check.returncode == 0
