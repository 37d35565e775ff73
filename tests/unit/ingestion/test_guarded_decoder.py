"""A message that ends the process is found in three deaths and left out; the rest of its batch becomes rows."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from k2.common.crash_points import EXIT_CODE
from k2.common.errors import UnavailableError
from k2.ingestion.decode_journal import DecodeJournal
from k2.ingestion.guarded_decoder import GuardedDecoder
from k2.kafka.decoding import Decoder
from k2.schemas.avro import avro_text
from k2.schemas.records import TRADES
from k2.testing.fake_log import FakeRegistry
from k2.testing.messages import SCHEMA_ID, batch_of, encode, trade

if TYPE_CHECKING:
    from pathlib import Path

    from k2.kafka.batches import LogBatch
    from k2.kafka.decoding import Decoded

POISON = "poison-"
WORKER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from k2.common import crash_points
    from tests.unit.ingestion import test_guarded_decoder as scene

    crash_points.arm_at("decoding", scene.POISON.encode())
    decoded = scene.decode(Path(sys.argv[1]), scene.messages(poison=[int(word) for word in sys.argv[2:]]))
    print(decoded.rows["log_offset"].to_list(), [(bad.offset, bad.error_class) for bad in decoded.bad])
    """
)


class Death(BaseException):
    """The process ends here."""


class Deadly:
    """A decoder that some messages kill."""

    def __init__(self, *offsets: int) -> None:
        self.offsets = set(offsets)
        self.inner = Decoder(TRADES, FakeRegistry({SCHEMA_ID: avro_text(TRADES)}))
        self.asked: list[list[int]] = []

    def decode(self, batch: LogBatch, *, log_id: int) -> Decoded:
        self.asked.append(list(batch.offsets))
        if self.offsets & set(batch.offsets):
            raise Death
        return self.inner.decode(batch, log_id=log_id)


def messages(*, start: int = 100, count: int = 10, poison: list[int] | None = None) -> LogBatch:
    values = [
        encode(trade(sequence=n, trade_id=f"{POISON}{n}" if poison and n in poison else str(n)))
        for n in range(start, start + count)
    ]
    return batch_of(values, start=start)


def decode(directory: Path, batch: LogBatch) -> Decoded:
    """Decode as a new process would."""
    journal = DecodeJournal.open(directory, "group", "member", kills_max=3)
    decoder = GuardedDecoder(Decoder(TRADES, FakeRegistry({SCHEMA_ID: avro_text(TRADES)})), journal, kills_max=3)
    return decoder.decode(batch, log_id=0)


class Lives:
    """One worker after another, with the same journal; a death leaves the file as it was at that moment."""

    def __init__(self, directory: Path, *poison: int) -> None:
        self.directory = directory
        self.decoder = Deadly(*poison)

    def live(self, batch: LogBatch) -> Decoded | None:
        journal = DecodeJournal.open(self.directory, "group", "member", kills_max=3)
        journal.interrupted = lambda: None  # type: ignore[method-assign]  # a dead process notes nothing
        try:
            return GuardedDecoder(self.decoder, journal, kills_max=3).decode(batch, log_id=0)
        except Death:
            return None


def test_the_third_death_names_one_offset_and_the_fourth_process_goes_on(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)

    fates = [lives.live(messages()) for _ in range(4)]

    assert fates[:3] == [None, None, None]
    assert fates[3] is not None
    assert fates[3].rows["log_offset"].to_list() == [100, 101, 102, 103, 105, 106, 107, 108, 109]
    assert [(bad.offset, bad.error_class, bad.value) for bad in fates[3].bad] == [
        (104, "KilledTheProcess", messages().values[4])
    ]
    assert "killed the process three times" in fates[3].bad[0].reason


def test_only_the_last_try_goes_message_by_message(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)

    for _ in range(3):
        lives.live(messages())

    block = list(range(100, 110))
    assert lives.decoder.asked == [block, block, [100], [101], [102], [103], [104]]


def test_it_stays_out_when_it_is_read_again_by_a_later_process(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)
    for _ in range(4):
        lives.live(messages())

    again = lives.live(messages(start=102, count=20))

    assert again is not None
    assert [bad.offset for bad in again.bad] == [104]
    assert again.rows.height == 19


def test_two_of_them_in_one_block_are_both_found(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 103, 107)

    fates = [lives.live(messages()) for _ in range(6)]

    last = next(fate for fate in fates if fate is not None)
    assert [bad.offset for bad in last.bad] == [103, 107]
    assert last.rows.height == 8


def test_blocks_cut_otherwise_after_a_death_do_not_spread_suspicion(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)
    lives.live(messages(start=100, count=6))

    lives.live(messages(start=98, count=20))

    assert lives.decoder.asked[1:] == [[98, 99], list(range(100, 106))]


def test_a_death_of_something_else_is_forgotten_once_the_block_is_decoded(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)
    lives.live(messages())
    lives.decoder.offsets.clear()

    lives.live(messages())
    lives.live(messages())

    assert lives.decoder.asked == [list(range(100, 110))] * 3


def test_the_same_offset_of_another_partition_is_not_suspected(tmp_path: Path) -> None:
    lives = Lives(tmp_path, 104)
    for _ in range(3):
        lives.live(messages())
    lives.decoder.offsets.clear()

    other = lives.live(batch_of(messages().values, start=100, partition=1))

    assert other is not None
    assert other.bad == ()


def test_an_error_is_no_death(tmp_path: Path) -> None:
    batch = messages()
    journal = DecodeJournal.open(tmp_path, "group", "member", kills_max=3)
    registry = FakeRegistry()
    registry.is_up = False
    with pytest.raises(UnavailableError):
        GuardedDecoder(Decoder(TRADES, registry), journal, kills_max=3).decode(batch, log_id=0)

    assert DecodeJournal.open(tmp_path, "group", "member", kills_max=3).suspects == ()


def test_members_without_a_name_do_not_share_a_file(tmp_path: Path) -> None:
    first = DecodeJournal.open(tmp_path, "group", None, kills_max=3)
    second = DecodeJournal.open(tmp_path, "group", None, kills_max=3)

    assert len(list(tmp_path.iterdir())) == 2
    first.close()
    second.close()


def test_a_file_of_rubbish_costs_the_memory_and_nothing_else(tmp_path: Path) -> None:
    DecodeJournal.open(tmp_path, "group", "member", kills_max=3).close()
    (tmp_path / "group.member.decoding").write_bytes(b"\xff{]\n")

    assert decode(tmp_path, messages()).rows.height == 10


def test_without_a_place_for_the_file_decoding_goes_on(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    assert decode(tmp_path / "file", messages()).rows.height == 10


def test_real_processes_that_really_die_leave_one_message_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path), "104"]

    runs = [subprocess.run(command, capture_output=True, text=True, check=False) for _ in range(4)]

    assert [run.returncode for run in runs] == [EXIT_CODE, EXIT_CODE, EXIT_CODE, 0], runs[-1].stderr
    assert runs[3].stdout.split("\n")[-2] == (
        "[100, 101, 102, 103, 105, 106, 107, 108, 109] [(104, 'KilledTheProcess')]"
    )


@pytest.mark.parametrize(
    "text",
    [
        '{"decoding":["t",1,0,5,6,"x"],"suspects":[],"quarantined":[]}',
        '{"decoding":[7,1,0,5,6,0]}',
        '{"suspects":[["t",1,0,5]]}',
        '{"suspects":[["t",1,0,5,6,0]],"quarantined":[[]]}',
        "[1,2]",
        "[" * 60_000,
    ],
)
def test_a_journal_of_nonsense_is_an_empty_one(tmp_path: Path, text: str) -> None:
    DecodeJournal.open(tmp_path, "group", "member", kills_max=3)
    (path,) = tmp_path.iterdir()
    path.write_text(text + "\n")

    journal = DecodeJournal.open(tmp_path, "group", "member", kills_max=3)

    assert (journal.suspects, journal.quarantined) == ((), ())
