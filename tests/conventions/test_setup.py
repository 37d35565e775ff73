"""`make setup` shows progress and errors, and no line for each package."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = """#!/bin/sh
[ "$2" = sync ] || exit 0
echo "Downloading pyarrow (45MB)" >&2
echo "Installed 110 packages in 20s" >&2
echo " + pyarrow==1" >&2
echo " - numpy==1" >&2
echo " ~ k2==1" >&2
exit $UV_ENDS_WITH
"""


def setup(environment: Path, *, uv_ends_with: int) -> subprocess.CompletedProcess[str]:
    """Run `make setup` on an environment whose uv only speaks."""
    (environment / "bin").mkdir(parents=True, exist_ok=True)
    for name, text in (("uv", UV), ("python", "#!/bin/sh\n")):
        (environment / "bin" / name).write_text(text)
        (environment / "bin" / name).chmod(0o755)
    words = ["make", "--no-print-directory", "setup", f"VENV={environment}"]
    variables = {"PATH": "/usr/bin:/bin", "UV_ENDS_WITH": str(uv_ends_with)}
    return subprocess.run(words, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)


def test_setup_shows_progress_without_a_line_for_each_package(tmp_path: Path) -> None:
    ended = setup(tmp_path, uv_ends_with=0)

    lines = (ended.stdout + ended.stderr).splitlines()
    assert ended.returncode == 0
    assert "Downloading pyarrow (45MB)" in lines
    assert "Installed 110 packages in 20s" in lines
    assert [line for line in lines if "==" in line] == []


def test_a_setup_that_fails_fails(tmp_path: Path) -> None:
    assert setup(tmp_path, uv_ends_with=1).returncode != 0
    assert not (tmp_path / ".ready").exists()
