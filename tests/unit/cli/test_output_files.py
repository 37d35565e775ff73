"""Where `--output` writes: through links and into pipes, never in the place of them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pyarrow as pa

from k2.cli.output import write

TABLE = pa.table({"n": [1]})


def test_a_link_keeps_pointing_where_it_does(tmp_path: Path) -> None:
    target, link = tmp_path / "target.csv", tmp_path / "link.csv"
    link.symlink_to(target)

    write(TABLE, None, "csv", link)

    assert link.is_symlink()
    assert target.read_text().split() == ["n", "1"]


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()

    write(TABLE, None, "csv", pipe)

    reader.join(timeout=10)
    assert read == ["n\n1\n"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
