"""The generated references say what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_generated_references_are_fresh() -> None:
    script = ROOT / "scripts" / "generate_references.py"

    check = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)

    assert check.stdout + check.stderr == "", "run `make references`"
    assert check.returncode == 0


def test_the_command_reference_shows_flags_and_nothing_hidden() -> None:
    text = (ROOT / "docs" / "reference" / "cli.md").read_text()

    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("| `")]
    assert "| `--simulate` | Stream a simulated market in. |" in rows
    assert [row for row in rows if row.count("|") != 3] == []
    assert [row for row in rows if row.startswith("| `ONLY`")] == []


def test_the_readme_names_every_command() -> None:
    reference = (ROOT / "docs" / "reference" / "cli.md").read_text()
    rows = [line.split("|")[1] for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| `k2 ")]

    commands = set(re.findall(r"^## k2 (\S+)", reference, re.MULTILINE))

    named = set(re.findall(r"`(?:k2 )?(\w+)[^`]*`", " ".join(rows)))
    assert len(commands) > 10
    assert commands - named == set()
