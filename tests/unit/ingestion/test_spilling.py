"""Under memory pressure decoded records go to disk: the memory is given back, and the rows stay what they are."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import polars as pl
from polars.testing import assert_frame_equal

from k2.ingestion.overload.spilling import NoSpill, Spill
from k2.ingestion.pending import PartitionPending, Pending
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

if TYPE_CHECKING:
    from pathlib import Path

RELEASED_MIN_MIB = 60
MEASURE = """
import sys, time
from pathlib import Path
import psutil
from k2.ingestion.memory import prepare_process
from k2.ingestion.overload.spilling import Spill
from k2.ingestion.pending import PartitionPending, Pending
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

prepare_process()
resident = lambda: psutil.Process().memory_info().rss / 2**20
pending, part = Pending(), PartitionPending("t", 1, 0, 0, 0.0)
pending.partitions[LogPartition(0, 0)] = part
part.frames += [market_rows(range(start, start + 100_000)) for start in range(0, 1_200_000, 100_000)]
spill = Spill(Path(sys.argv[1]), bytes_max=2**31, clock=ManualClock())
before = resident()
spill.relieve(pending)
least = before
for _ in range(40):
    least = min(least, resident())
    time.sleep(0.05)
print(before - least, spill.nbytes / 2**20, sum(frame.height for frame in part.frames))
"""


def batch(*frames: pl.DataFrame) -> tuple[Pending, PartitionPending]:
    pending, part = Pending(), PartitionPending("t", 1, 0, 0, 0.0)
    pending.partitions[LogPartition(0, 0)] = part
    part.frames += frames
    return pending, part


def spill_in(directory: Path, *, bytes_max: int = 2**30) -> tuple[Spill, list[None]]:
    released: list[None] = []
    clock = ManualClock()
    return Spill(directory, bytes_max=bytes_max, clock=clock, release=lambda: released.append(None)), released


def test_the_rows_are_what_they_were(tmp_path: Path) -> None:
    rows = [market_rows(range(50)), market_rows(range(50, 60)).clear()]
    pending, part = batch(*rows)
    spill, released = spill_in(tmp_path / "spill")

    spill.relieve(pending)

    for before, after in zip(rows, part.frames, strict=True):
        assert_frame_equal(before, after)
        assert before is not after
    assert spill.nbytes > 0
    assert len(released) == 1


def test_what_is_on_disk_is_not_written_again(tmp_path: Path) -> None:
    pending, part = batch(market_rows(range(50)))
    spill, _ = spill_in(tmp_path / "spill")
    spill.relieve(pending)
    first, size = part.frames[0], spill.nbytes

    part.frames.append(market_rows(range(50, 100)))
    spill.relieve(pending)

    assert part.frames[0] is first
    assert (part.spilled, spill.nbytes > size) == (2, True)


def test_room_is_free_again_once_the_rows_are_gone_and_no_file_is_left(tmp_path: Path) -> None:
    pending, part = batch(market_rows(range(50)))
    spill, _ = spill_in(tmp_path / "spill")
    spill.relieve(pending)

    files = list((tmp_path / "spill").iterdir())
    part.frames.clear()

    assert (files, spill.nbytes) == ([], 0)


def test_past_its_bound_the_rest_stays_in_memory(tmp_path: Path) -> None:
    frames = [market_rows(range(start, start + 50)) for start in (0, 50, 100)]
    pending, part = batch(*frames)
    size = int(frames[0].estimated_size())
    spill, _ = spill_in(tmp_path / "spill", bytes_max=2 * size + size // 2)

    spill.relieve(pending)

    assert part.spilled == 2
    assert part.frames[2] is frames[2]


def test_a_disk_that_cannot_be_written_leaves_the_rows_in_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    rows = market_rows(range(50))
    pending, part = batch(rows)
    spill, _ = spill_in(tmp_path / "file" / "spill")

    spill.relieve(pending)

    assert part.frames[0] is rows
    assert (part.spilled, spill.nbytes) == (0, 0)


def test_a_disk_that_failed_is_left_alone_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    pending, part = batch(market_rows(range(50)))
    clock = ManualClock()
    spill = Spill(tmp_path / "file" / "spill", bytes_max=2**30, clock=clock, release=lambda: None)
    spill.relieve(pending)
    (tmp_path / "file").unlink()

    spill.relieve(pending)
    too_early = part.spilled
    clock.advance(10)
    spill.relieve(pending)

    assert (too_early, part.spilled) == (0, 1)


def test_what_a_process_left_behind_is_deleted_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "spill").mkdir()
    (tmp_path / "spill" / "7.arrow").write_bytes(b"left")

    spill_in(tmp_path / "spill")

    assert not (tmp_path / "spill").exists()


def test_without_a_place_nothing_moves() -> None:
    rows = market_rows(range(5))
    pending, part = batch(rows)

    NoSpill().relieve(pending)

    assert part.frames[0] is rows


def test_the_resident_set_falls_by_most_of_what_was_held(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "spill")]

    ended = subprocess.run(command, capture_output=True, text=True, check=True)

    fell, held, rows = map(float, ended.stdout.split()[-3:])
    assert rows == 1_200_000
    assert held > RELEASED_MIN_MIB
    assert fell > 0.6 * held
