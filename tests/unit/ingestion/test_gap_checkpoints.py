"""Checkpoints of the gap ledger's memory: kept whole, never believed when they are of something else."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from k2.ingestion.sequences.batches import Memory, observe, remembered
from k2.ingestion.sequences.checkpoints import Checkpoint, CheckpointFiles, CheckpointPlace, fitting
from k2.ingestion.sequences.markers import Marker
from k2.ingestion.sequences.rules import NO_OFFSET, SequenceRules
from k2.storage.seam import LogPartition
from k2.testing.manual_clock import ManualClock
from k2.testing.market_rows import market_rows

PLACE = CheckpointPlace("trades", "a-table", "symbol", LogPartition(0, 3))
RULES = SequenceRules(reorder_messages=2)
MISSING = (5, 11, 12)


def files(directory: Path, *, rules: SequenceRules = RULES, clock: ManualClock | None = None) -> CheckpointFiles:
    return CheckpointFiles(directory / "ingest", rules=rules, clock=clock or ManualClock())


def memory_of_rows(*missing: int) -> Memory:
    rows = market_rows(range(14), symbols=["AAA", "B\N{SNOWMAN}"]).filter(~pl.col("log_offset").is_in(missing))
    seen = observe(Memory(), rows, RULES, scope="symbol", partition=3, end_offset=14)
    return remembered(Memory(), seen)


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = Checkpoint(memory_of_rows(*MISSING), next_offset=14, commit_sequence=7)

    files(tmp_path).save(PLACE, saved)

    assert saved.memory.holed
    assert files(tmp_path).load(PLACE) == saved


@pytest.mark.parametrize(
    "other",
    [
        PLACE._replace(table="quotes"),
        PLACE._replace(table_uuid="another"),
        PLACE._replace(scope="channel"),
        PLACE._replace(key=LogPartition(1, 3)),
        PLACE._replace(key=LogPartition(0, 4)),
    ],
)
def test_a_checkpoint_of_something_else_is_not_believed(tmp_path: Path, other: CheckpointPlace) -> None:
    files(tmp_path).save(PLACE, Checkpoint(memory_of_rows(), 14, 7))

    assert files(tmp_path).load(other) is None


def test_a_checkpoint_of_other_rules_is_not_believed(tmp_path: Path) -> None:
    files(tmp_path).save(PLACE, Checkpoint(memory_of_rows(), 14, 7))

    assert files(tmp_path, rules=replace(RULES, holes_max=1)).load(PLACE) is None


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda _: b"", lambda data: data.replace(b"14", b"15")])
def test_a_damaged_checkpoint_is_not_believed(tmp_path: Path, damage) -> None:
    files(tmp_path).save(PLACE, Checkpoint(memory_of_rows(), 14, 7))
    (path,) = (tmp_path / "ingest").iterdir()

    path.write_bytes(damage(path.read_bytes()))

    assert files(tmp_path).load(PLACE) is None


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        b"nonsense",
        b'{"of":1}',
        b"[" * 100_000,
        b'{"of":OF}',
        b'{"of":OF,"streams":[]}',
        b'{"of":OF,"streams":{"A":[[1],[]]},"memory":[1,2,3,4]}',
    ],
)
def test_nonsense_with_the_right_checksum_is_not_believed(tmp_path: Path, text: bytes) -> None:
    files(tmp_path).save(PLACE, Checkpoint(memory_of_rows(), 14, 7))
    (path,) = (tmp_path / "ingest").iterdir()
    of = json.dumps(json.loads(path.read_bytes().partition(b"\n")[2])["of"]).encode()
    text = text.replace(b"OF", of)

    path.write_bytes(b"%08x\n" % zlib.crc32(text) + text)

    assert files(tmp_path).load(PLACE) is None


@pytest.mark.parametrize("number", ["null", "0.5", '"7"', "true"])
@pytest.mark.parametrize("place", [b'"next_offset":14', b'"commit_sequence":7', b",13,-1]", b"[[20454,"])
def test_a_value_that_is_no_whole_number_is_not_believed(tmp_path: Path, place: bytes, number: str) -> None:
    files(tmp_path).save(PLACE, Checkpoint(memory_of_rows(), 14, 7))
    (path,) = (tmp_path / "ingest").iterdir()
    text = path.read_bytes().partition(b"\n")[2]
    spoilt = text.replace(place, re.sub(rb"-?\d+(?=\D*$)", number.encode(), place), 1)

    path.write_bytes(b"%08x\n" % zlib.crc32(spoilt) + spoilt)

    assert place in text
    assert files(tmp_path).load(PLACE) is None


@pytest.mark.parametrize(
    ("counted", "there", "fits"),
    [(NO_OFFSET, [], True), (7, [3, 7], True), (7, [3, 7, 9], True), (7, [3, 6], False), (7, [], False)],
)
def test_a_checkpoint_that_has_counted_markers_which_are_no_more_is_not_believed(
    counted: int, there: list[int], *, fits: bool
) -> None:
    saved = Checkpoint(replace(memory_of_rows(), marker=counted), 14, 7)
    markers = [Marker("AAA", 20, 0, 1, offset) for offset in there]

    assert fitting(saved, markers) is (saved if fits else None)


def test_a_directory_that_cannot_be_written_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    (tmp_path / "ingest").write_text("no directory")
    kept = files(tmp_path)

    kept.save(PLACE, Checkpoint(memory_of_rows(), 14, 7))

    assert kept.load(PLACE) is None


class SlowClock(ManualClock):
    """A clock that moves by a second whenever it is asked."""

    def monotonic(self) -> float:
        self.sleep(1)
        return super().monotonic()


def test_saving_takes_a_fiftieth_of_the_time_at_most(tmp_path: Path) -> None:
    clock = SlowClock()
    kept = files(tmp_path, clock=clock)
    kept.save(PLACE, Checkpoint(memory_of_rows(), 14, 7))

    kept.save(PLACE, Checkpoint(memory_of_rows(), 15, 8))
    early = kept.load(PLACE)
    clock.sleep(50)
    kept.save(PLACE, Checkpoint(memory_of_rows(), 16, 9))

    assert (early.next_offset, kept.load(PLACE).next_offset) == (14, 16)
