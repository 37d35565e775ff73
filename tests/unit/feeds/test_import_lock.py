"""One import at a time: a second one is refused, and nobody has to tidy up after a killed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from k2.common.errors import ConfigurationError
from k2.feeds.import_lock import FILE_NAME, import_lock

HOLD = (
    "import sys, pathlib; from k2.feeds.import_lock import import_lock\n"
    "with import_lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_a_second_import_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    with (
        import_lock(tmp_path),
        pytest.raises(ConfigurationError, match=f"process {os.getpid()}"),
        import_lock(tmp_path),
    ):
        pass


def test_the_lock_is_free_again_afterwards(tmp_path: Path) -> None:
    with import_lock(tmp_path):
        pass

    with import_lock(tmp_path):
        assert (tmp_path / FILE_NAME).read_text() == str(os.getpid())


def test_imports_into_two_platforms_do_not_meet(tmp_path: Path) -> None:
    with import_lock(tmp_path / "one"), import_lock(tmp_path / "other"):
        pass


def test_a_killed_import_leaves_no_lock_behind(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().strip() == "held"
        with pytest.raises(ConfigurationError, match=f"process {holder.pid}"), import_lock(tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()

    with import_lock(tmp_path):
        pass


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigurationError, match="cannot write the import lock"), import_lock(tmp_path / "file"):
        pass
