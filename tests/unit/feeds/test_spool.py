"""A spool keeps what it took: in order, across the end of a process, within its bounds, or it says that it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from k2.common.errors import ConfigurationError, CorruptionError, OverloadedError
from k2.feeds.settings import SpoolSettings
from k2.feeds.spool import NOTE_NAME, Spool
from k2.feeds.spool_files import Block, encode, segments
from k2.testing.manual_clock import ManualClock

SMALL = SpoolSettings(bytes_max=4096, segment_bytes=1024)
BLOCKS_MAX = 10_000


def opened(directory: Path, settings: SpoolSettings = SMALL) -> Spool:
    return Spool(directory, settings, ManualClock())


def block_of(number: int, size: int = 100) -> Block:
    return Block("trades", [b"k"], [b"%06d" % number + b"x" * (size - 6)])


def unread(spool: Spool) -> list[Block]:
    return [found[0] for found in islice(iter(lambda: spool.read(0), None), BLOCKS_MAX)]


def numbers(blocks: list[Block]) -> list[int]:
    return [int(value[:6]) for block in blocks for value in block.values if value is not None]


def paths(directory: Path) -> list[Path]:
    return [path for _, path in segments(directory)]


PART = st.none() | st.binary(max_size=40)


@given(
    st.lists(
        st.builds(
            lambda topic, parts, flag: Block(topic, [key for key, _ in parts], [value for _, value in parts], flag),
            st.text(max_size=20),
            st.lists(st.tuples(PART, PART), min_size=1, max_size=5),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_blocks_come_back_as_they_went_in(tmp_path_factory: pytest.TempPathFactory, blocks: list[Block]) -> None:
    spool = opened(tmp_path_factory.mktemp("spool"), SpoolSettings(bytes_max=2**20, segment_bytes=1024, fsync="never"))

    for block in blocks:
        spool.append(block)

    assert unread(spool) == blocks
    spool.close()


def test_what_was_not_acknowledged_is_there_after_a_restart(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(20):
        spool.append(block_of(number))
    for _ in range(12):
        _, position = spool.read(0)
    spool.acknowledge(position, 12, {("trades", 0): 12})
    spool.close()

    again = opened(tmp_path)

    assert again.messages == 8
    assert numbers(unread(again)) == list(range(12, 20))
    assert again.note.ends == {("trades", 0): 12}
    again.close()


def test_a_rewound_spool_gives_again_what_is_not_acknowledged(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(3):
        spool.append(block_of(number))
    _, position = spool.read(0)
    spool.acknowledge(position, 1, {})
    unread(spool)

    spool.rewind()

    assert numbers(unread(spool)) == [1, 2]
    spool.close()


@given(st.integers(0, 600))
def test_of_a_block_that_was_not_finished_nothing_is_kept(
    tmp_path_factory: pytest.TempPathFactory, cut_bytes: int
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = opened(directory, SpoolSettings(bytes_max=2**20, segment_bytes=2**16, fsync="never"))
    for number in range(5):
        spool.append(block_of(number))
    spool.close()
    (path,) = paths(directory)
    left = path.stat().st_size - cut_bytes
    os.truncate(path, max(0, left))

    again = opened(directory)

    whole = max(0, left) // len(encode(block_of(0)))
    assert numbers(unread(again)) == list(range(whole))
    again.append(block_of(99))
    assert numbers(unread(again)) == [99]
    again.close()


def test_a_damaged_segment_is_named_and_not_skipped(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    for number in range(20):
        spool.append(block_of(number))
    spool.close()
    first = paths(tmp_path)[0]
    content = bytearray(first.read_bytes())
    content[200] ^= 1
    first.write_bytes(content)

    with pytest.raises(CorruptionError, match=first.name):
        opened(tmp_path)


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / NOTE_NAME).write_bytes(b'{"position":')

    with pytest.raises(CorruptionError, match=NOTE_NAME):
        opened(tmp_path)


def test_a_full_spool_refuses_and_counts_and_keeps_what_it_has(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    taken = 0
    while spool.bytes_held + len(encode(block_of(taken))) <= SMALL.bytes_max:
        spool.append(block_of(taken))
        taken += 1

    with pytest.raises(OverloadedError, match=r"1 messages were refused.*K2_FEEDS__SPOOL__BYTES_MAX"):
        spool.append(block_of(taken))
    with pytest.raises(OverloadedError):
        spool.append(block_of(taken))

    assert spool.refused == 2
    assert spool.bytes_held <= SMALL.bytes_max
    assert taken > 25
    assert numbers(unread(spool)) == list(range(taken))
    spool.close()


def test_acknowledging_makes_room(tmp_path: Path) -> None:
    spool = opened(tmp_path)

    for number in range(1_000):
        spool.append(block_of(number))
        _, position = spool.read(0)
        spool.acknowledge(position, 1, {})

    assert spool.messages == 0
    assert len(paths(tmp_path)) == 1
    assert spool.bytes_held <= SMALL.segment_bytes
    spool.close()


def test_a_full_disk_is_a_refusal_and_leaves_no_half_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = opened(tmp_path)
    spool.append(block_of(1))
    write = os.pwrite

    def some_of_it(file: int, content: bytes, at: int) -> int:
        if len(content) < 100:
            raise OSError(28, "No space left on device")
        return write(file, content[:50], at)

    monkeypatch.setattr("os.pwrite", some_of_it)
    with pytest.raises(OverloadedError, match="No space left on device"):
        spool.append(block_of(2))
    monkeypatch.undo()

    spool.append(block_of(3))

    assert numbers(unread(spool)) == [1, 3]
    spool.close()


def test_two_feeds_cannot_have_one_spool(tmp_path: Path) -> None:
    spool = opened(tmp_path)

    with pytest.raises(ConfigurationError, match="give each feed its own"):
        opened(tmp_path)

    spool.close()
    opened(tmp_path).close()


@pytest.mark.parametrize(("policy", "syncs"), [("always", 10), ("interval", 2), ("never", 0)])
def test_blocks_are_written_through_as_the_policy_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str, syncs: int
) -> None:
    clock, synced = ManualClock(), list[int]()
    settings = SpoolSettings(bytes_max=2**20, segment_bytes=2**16, fsync=policy, fsync_seconds=2)
    spool = Spool(tmp_path, settings, clock)
    monkeypatch.setattr("os.fsync", synced.append)

    for number in range(10):
        clock.advance(0.5)
        spool.append(block_of(number))

    assert len(synced) == syncs
    spool.close()


def test_a_spool_that_cannot_hold_two_segments_is_refused() -> None:
    with pytest.raises(ValidationError, match="at least two segments"):
        SpoolSettings(bytes_max=4096, segment_bytes=4096)


def test_a_block_is_kept_once_append_returned_also_by_kill_9(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
from k2.common.clock import SystemClock
from k2.feeds.settings import SpoolSettings
from k2.feeds.spool import Spool
from k2.feeds.spool_files import Block
spool = Spool(Path({str(tmp_path)!r}), SpoolSettings(), SystemClock())
for number in range(1_000_000):
    spool.append(Block("trades", [b"k"], [b"%06d" % number]))
    print(number, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(200)][-1]
        process.send_signal(signal.SIGKILL)

    spool = opened(tmp_path, SpoolSettings())

    kept = numbers(unread(spool))
    assert kept == list(range(len(kept)))
    assert len(kept) > told
    spool.close()
